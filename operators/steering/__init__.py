"""Where to measure next: maps of what is known, candidates, their worth, routes."""
