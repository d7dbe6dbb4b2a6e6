"""A run as processes: which there are, their start, supervision and end."""
