"""How positions lie on the frames, where the beam meets the detector, and how far the probe is from focus."""
