"""What a scan is on disk: columns addressed by frame number, and what became of each frame."""
