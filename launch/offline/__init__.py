"""Reconstruction of recorded scans, in one process or in tiles."""
