"""Bluesky's documents as a source of positions."""
