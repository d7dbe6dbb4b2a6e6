"""Bluesky plans that follow the policy."""
