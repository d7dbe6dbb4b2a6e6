"""Stages of a run, and tiles of a reconstruction, on the nodes of a Ray cluster. Nothing else knows Ray."""
