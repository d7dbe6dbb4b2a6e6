"""How far a frame's position is from where its pattern says it was taken."""

import numpy as np

from operators.arrays import Array, Patches, Probe, abs2, array_module

_LONGEST_PX = 1.0  # a gradient says little about what lies further away
_DAMPING = 1e-3  # of the trace; a frame without contrast in one direction stays where it is


def gradient_sums(corrections: Array, patches: Patches, probes: Probe) -> Array:
    """Return the sums that `position_steps` solves for.

    Parameters
    ----------
    corrections : (frame, mode, y, x) complex64, of the exit waves
    patches : (frame, y, x) complex64
    probes : (frame or 1, mode, y, x) complex64

    Returns
    -------
    (frame, 5) float32
        yy, yx, xx of the squared gradient weighted by the probe's intensity, then y, x of its product with
        the corrections.
    """
    xp = array_module(patches)
    y, x = (xp.zeros_like(patches) for _ in range(2))
    y[:, 1:-1] = (patches[:, 2:] - patches[:, :-2]) / 2
    x[:, :, 1:-1] = (patches[:, :, 2:] - patches[:, :, :-2]) / 2
    light = abs2(probes).sum(axis=1)
    moved = (corrections * probes.conj()).sum(axis=1)
    terms = light * abs2(y), light * (y * x.conj()).real, light * abs2(x), (moved * y.conj()).real
    return xp.stack([term.sum(axis=(1, 2)) for term in (*terms, (moved * x.conj()).real)], axis=1)


def position_steps(sums: np.ndarray) -> np.ndarray:
    """Return the step (y, x) with which each frame's exit wave moves towards its correction, 1 pixel at most.

    Parameters
    ----------
    sums : (frame, 5) float, of `gradient_sums`, on the host

    Returns
    -------
    (frame, 2) float64, pixels

    Notes
    -----
    The least-squares fit of the correction by the exit wave's derivative along the position: Odstrčil,
    Menzel & Guizar-Sicairos, Opt. Express 26, 3108 (2018), section 3.4.
    """
    yy, yx, xx, y, x = np.asarray(sums, np.float64).T
    damping = _DAMPING * (yy + xx) + np.finfo(np.float32).tiny
    yy, xx = yy + damping, xx + damping
    steps = np.stack([xx * y - yx * x, yy * x - yx * y], axis=1) / (yy * xx - yx**2)[:, None]
    return steps / np.maximum(1, np.linalg.norm(steps, axis=1, keepdims=True) / _LONGEST_PX)
