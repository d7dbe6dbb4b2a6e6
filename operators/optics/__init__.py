"""The instrument: forward model, probes, coherence, detector effects, samples, trajectories."""
