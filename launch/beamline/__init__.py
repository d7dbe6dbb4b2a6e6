"""The simulated beamline of the demos."""
