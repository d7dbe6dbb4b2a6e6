"""The live image as EPICS PVs, for the screens that a beamline has already."""
