"""Choices and processes: command line, configuration, supervision, beamline, viewer, training."""
