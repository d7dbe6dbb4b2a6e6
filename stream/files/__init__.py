"""Files of scans, probes and weights, ours and those of other programs."""
