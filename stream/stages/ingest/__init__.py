"""The stage that takes the frames of a detector, in one process or two."""
