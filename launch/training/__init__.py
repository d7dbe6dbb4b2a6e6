"""Training, tuning, calibration and judgement of networks."""
