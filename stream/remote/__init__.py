"""Stages on other machines: what they need goes there by question and answer, what they make comes back."""
