"""Inference on other machines: frames go there by question and answer, patches come back to who writes them."""
