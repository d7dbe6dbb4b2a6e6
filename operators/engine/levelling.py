"""Slow variations of an object's phase that its patterns contradict.

They are found in one look at some frames, where iterations take hundreds of epochs: a slope of phase moves
a pattern by a small fraction of a pixel, which hardly shows in any residual.
"""

import numpy as np

from operators.arrays import Array, Mask, Patches, Patterns, Positions, Probe, array_module
from operators.optics.forward import intensities

_DEGREE = 4
_POWERS = [(a, n - a) for n in range(1, _DEGREE + 1) for a in range(n + 1)]  # of y and x in each term
_CAUTION = 2.0


def missing_slopes(patterns: Patterns, probe: Probe, patches: Patches, mask: Mask | None = None) -> Array:
    """Return the mean slope of phase that the object lacks under each frame, (frame, 2) float32, rad/pixel.

    The centroid of a pattern is the mean slope of the exit wave's phase, weighted with its intensity: the
    measured one less that of the model is what the object lacks. That is the signal of differential phase
    contrast (Thibault et al., Phys. Rev. A 80, 043813 (2009)).

    Parameters
    ----------
    patterns : (frame, ky, kx) float32, photons, corner-origin
    probe : (mode, y, x) complex64
    patches : (frame, y, x) complex64
        The object under each frame.
    mask : (ky, kx) bool, True where valid
    """
    off = _centroids(patterns, mask) - _centroids(intensities(probe, patches), mask)
    return np.float32(2 * np.pi / patterns.shape[-1]) * off


def slow_phase(slopes: Array, positions_px: Positions, shape: tuple[int, int]) -> Array:
    """Return the polynomial of degree 4 whose slopes are nearest to those given, (row, col) float32, rad.

    The terms of each degree are shrunk together by twice what noise contributes to them (James and Stein,
    1961), to nothing where that is all or where there are fewer frames than terms.

    Parameters
    ----------
    slopes : (frame, 2) float32, rad/pixel
    positions_px : (frame, 2) float64, on the host
        Where they were measured, pixels of the result.
    shape : (int, int)
    """
    xp = array_module(slopes)
    if len(slopes) < len(_POWERS):  # half the equations have to tell the noise
        return xp.zeros(shape, xp.float32)
    basis, mixing = np.linalg.qr(_slopes_of_terms(np.asarray(positions_px, np.float64), shape))
    basis = xp.asarray(basis, xp.float32)
    measured = slopes.T.reshape(-1)
    found = basis.T @ measured
    left = ((measured - basis @ found) ** 2).sum() / (len(measured) - len(found))
    first = 0
    for n_terms in range(2, _DEGREE + 2):  # of a degree
        terms = found[first : first + n_terms]
        by_noise = _CAUTION * n_terms * left / xp.maximum((terms**2).sum(), np.float32(1e-30))
        terms *= xp.maximum(1 - by_noise, np.float32(0))
        first += n_terms
    # Where frames lie in a line, terms cannot be told apart.
    coefficients = xp.asarray(np.linalg.pinv(mixing, rcond=1e-6), xp.float32) @ found
    rows, columns = (xp.linspace(-1, 1, n, endpoint=False, dtype=xp.float32) for n in shape)
    phase = xp.zeros(shape, xp.float32)
    for coefficient, (a, b) in zip(coefficients, _POWERS, strict=True):
        phase += coefficient * (rows**a)[:, None] * columns**b
    return phase


def _slopes_of_terms(positions_px: Positions, shape: tuple[int, int]) -> np.ndarray:
    """Return what each term of the polynomial adds to the slopes: (2 frames, term), down before right."""
    size = np.array(shape)
    y, x = (2 * positions_px / size - 1).T
    down = [a * y ** max(a - 1, 0) * x**b * 2 / size[0] for a, b in _POWERS]
    right = [b * y**a * x ** max(b - 1, 0) * 2 / size[1] for a, b in _POWERS]
    return np.concatenate([np.stack(down, axis=1), np.stack(right, axis=1)])


def _centroids(patterns: Patterns, mask: Mask | None) -> Array:
    """Return (frame, 2) float32, pixels from the optical axis, (ky, kx)."""
    xp = array_module(patterns)
    valid = patterns if mask is None else patterns * mask
    n = patterns.shape[-1]
    k = xp.fft.fftfreq(n, 1 / n).astype(xp.float32)
    power = xp.maximum(valid.sum(axis=(1, 2)), np.float32(1e-6))
    return xp.stack([valid.sum(axis=2) @ k / power, valid.sum(axis=1) @ k / power], axis=1)
