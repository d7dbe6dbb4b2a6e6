"""Sources of positions, one per module: each turns what comes into the documents of bluesky runs."""
