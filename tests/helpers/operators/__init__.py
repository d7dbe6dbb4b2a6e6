"""For tests of `operators`."""
