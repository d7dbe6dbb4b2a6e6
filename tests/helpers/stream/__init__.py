"""For tests of `stream`, and of what stands on it."""
