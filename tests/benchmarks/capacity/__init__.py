"""What a facility would need, on paper and in a small simulation."""
