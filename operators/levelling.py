"""The phase ramp of an object that its patterns contradict.

Separate from the engine because it is found in one look at some frames, where iterations take hundreds of
epochs: a ramp moves every pattern by the same small fraction of a pixel, which hardly shows in any residual.
Called by `operators.refiner` now and then.
"""

import numpy as np

from operators.arrays import Array, Mask, Patches, Patterns, Probe, array_module
from operators.forward import intensities


def excess_ramp(patterns: Patterns, probe: Probe, patches: Patches, mask: Mask | None = None) -> Array:
    """Return the slope of phase that the object lacks, (y, x) float32, rad/pixel.

    The centroid of a pattern is the mean slope of the exit wave's phase, weighted with its intensity: the
    measured one less that of the model is what the object lacks, here the mean over the frames. That is the
    signal of differential phase contrast (Thibault et al., Ultramicroscopy 109, 338 (2009)). It is shrunk by
    what photon noise contributes to it (James and Stein, 1961), to nothing where that is all.

    Parameters
    ----------
    patterns : (frame, ky, kx) float32, photons, corner-origin
    probe : (mode, y, x) complex64
    patches : (frame, y, x) complex64
        The object under each frame.
    mask : (ky, kx) bool, True where valid
    """
    xp = array_module(patterns)
    off = _centroids(patterns, mask) - _centroids(intensities(probe, patches), mask)
    mean, error = off.mean(axis=0), off.std(axis=0) / np.float32(max(len(off), 1) ** 0.5)
    share = xp.maximum(1 - (error / xp.maximum(abs(mean), np.float32(1e-12))) ** 2, np.float32(0))
    return np.float32(2 * np.pi / patterns.shape[-1]) * share * mean


def _centroids(patterns: Patterns, mask: Mask | None) -> Array:
    """Return (frame, 2) float32, pixels from the optical axis, (ky, kx)."""
    xp = array_module(patterns)
    valid = patterns if mask is None else patterns * mask
    n = patterns.shape[-1]
    k = xp.fft.fftfreq(n, 1 / n).astype(xp.float32)
    power = xp.maximum(valid.sum(axis=(1, 2)), np.float32(1e-6))
    return xp.stack([valid.sum(axis=2) @ k / power, valid.sum(axis=1) @ k / power], axis=1)
