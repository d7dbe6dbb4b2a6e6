"""Moments of diffraction patterns: what a scan shows without probe, network or model.

The photons of a pattern are the transmission, its centroid the mean gradient of the phase, its width how much
is scattered aside (Bunk et al., New J. Phys. 11, 123016 (2009)).
"""

import numpy as np

from operators.arrays import Array, Mask, Patterns, array_module

MOMENTS = ("photons", "centroid_y", "centroid_x", "width")
"""The columns of what `moments` returns."""


def moments(patterns: Patterns, mask: Mask | None = None) -> Array:
    """Return the first moments of patterns, (frame, 4) float32, by the names in `MOMENTS`.

    Parameters
    ----------
    patterns : (frame, ky, kx) float32, photons, corner-origin
    mask : (ky, kx) bool, True where valid, optional
        Pixels that are not valid count as dark.

    Returns
    -------
    photons : sum of the pattern
    centroid_y, centroid_x : centre of mass, pixels of the pattern from zero frequency, 0 without photons
    width : root of the mean squared distance from the centroid, pixels
    """
    xp = array_module(patterns)
    n_pixels = patterns.shape[-1]
    steps = xp.asarray(np.fft.fftfreq(n_pixels) * n_pixels)
    valid = patterns if mask is None else patterns * xp.asarray(mask)
    down = valid.sum(axis=2, dtype=xp.float32).astype(xp.float64)
    right = valid.sum(axis=1, dtype=xp.float32).astype(xp.float64)
    photons = down.sum(axis=1)
    divisor = xp.maximum(photons, 1e-6)
    y, x = down @ steps / divisor, right @ steps / divisor
    squared = (down @ steps**2 + right @ steps**2) / divisor - y**2 - x**2
    return xp.stack([photons, y, x, xp.sqrt(xp.maximum(squared, 0))], axis=1).astype(xp.float32)
