"""Where things listen unless a configuration or a command says otherwise: all on this machine."""

LIVE = "tcp://127.0.0.1:5810"
POLICY = "tcp://127.0.0.1:5811"
POSITIONS = "tcp://127.0.0.1:5578"  # bluesky's documents
DETECTOR = "tcp://127.0.0.1:31001"
REMOTE = "tcp://127.0.0.1:5812"  # for workers on other machines
REMOTE_FROM_ANYWHERE = "tcp://0.0.0.0:5812"  # where the run places them itself
REFINEMENT = "tcp://127.0.0.1:5813"  # the same, for those that refine
REFINEMENT_FROM_ANYWHERE = "tcp://0.0.0.0:5813"
CLUSTER = r"ray(://[^/\s]+:\d{1,5})?"  # a Ray cluster: that of this computer, or one elsewhere
