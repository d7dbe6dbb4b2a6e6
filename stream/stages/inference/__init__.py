"""Stage: patterns through the network, in one process or in several that lease frames from it."""
