"""Arrays in, arrays out: the computations of ptychography on NumPy or CuPy.

Users call `operators.reconstruct.reconstruct`, which is documented and stays; everything else may change.
"""
