"""Arrays in, arrays out: the computations of ptychography on NumPy or CuPy."""
