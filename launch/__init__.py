"""Choices and processes: command line, configuration, supervision, beamline, viewer, training.

Users call the commands and the plans of `launch.plans`, which are documented and stay; everything else may
change.
"""
