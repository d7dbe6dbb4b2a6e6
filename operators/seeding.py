"""Decide which patches may seed refinement.

Separate because it is the gate between network and iterations: a network that was trained on another material
is confident and wrong, and a wrong start is worse than a flat one. Called by the refinement stage.
"""

import numpy as np

from operators.arrays import Array, Mask, Patches, Patterns, Probe, array_module
from operators.forward import intensities


def forward_residual(patterns: Patterns, probe: Probe, patches: Patches, mask: Mask | None = None) -> Array:
    """Returns (frame,) float32, sum (|F[P patch]| - sqrt(I))^2 / sum I over valid pixels.

    Parameters
    ----------
    patterns : (frame, ky, kx) float32, photons
    probe : (mode, y, x) complex64
    patches : (frame, y, x) complex64
    mask : (ky, kx) bool, True where valid
    """
    xp = array_module(patterns)
    difference = xp.sqrt(intensities(probe, patches)) - xp.sqrt(patterns)
    weights = xp.float32(1) if mask is None else mask.astype(xp.float32)
    total = (patterns * weights).sum(axis=(1, 2))
    return (difference**2 * weights).sum(axis=(1, 2)) / xp.maximum(total, np.float32(1e-6))


def seeds_help(
    patterns: Patterns, probe: Probe, seeds: Patches, current: Patches, mask: Mask | None = None
) -> Array:
    """Returns (frame,) bool: whether the seed explains the frame better than the object as it is.

    `seeds` are windows of the mosaic, so what a frame is asked to explain also comes from its neighbours; a
    patch that merely fits its own pattern, which one wrong by 90 % can do, does not pass on that alone.
    """
    return forward_residual(patterns, probe, seeds, mask) < forward_residual(patterns, probe, current, mask)
