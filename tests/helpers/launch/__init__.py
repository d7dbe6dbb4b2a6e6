"""For tests of `launch`."""
