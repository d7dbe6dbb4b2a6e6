"""Scans, messages, sockets and stages: how frames become a live image."""
