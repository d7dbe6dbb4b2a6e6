"""What detectors send, one module per dialect, and a detector that is simulated."""
