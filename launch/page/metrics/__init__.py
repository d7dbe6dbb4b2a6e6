"""What programs are told that watch a run: /metrics for Prometheus, /status.json for any other."""
