"""Inference by workers on other machines: the door of the run, and the worker."""
