"""The first configuration of a beamline: who tells what of it, and the text that it becomes."""
