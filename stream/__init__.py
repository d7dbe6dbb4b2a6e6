"""Scans, messages, sockets and stages: how frames become a live image.

Users call the clients of `stream.client`, which are documented and stay; everything else may change.
"""
