"""What clients of the live image are sent."""
