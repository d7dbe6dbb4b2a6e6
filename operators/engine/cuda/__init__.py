"""The update as CUDA kernels."""
