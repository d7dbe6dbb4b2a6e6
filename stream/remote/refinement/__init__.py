"""Refinement by a worker on another machine: what the run lends, and the worker with its mirror."""
