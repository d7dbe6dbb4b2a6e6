"""What of a scan is on the disk whatever becomes of the power, and what a run mends before it begins."""
