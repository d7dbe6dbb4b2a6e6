"""Iterative reconstruction: ePIE and its relatives on NumPy, compiled loops or CUDA."""
