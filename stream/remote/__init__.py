"""Inference on other machines: frames go there by question and answer, and patches come back."""
