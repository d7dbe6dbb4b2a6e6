"""Slow variations of an object's phase that its patterns contradict.

They are found in one look at some frames, where iterations take hundreds of epochs: a slope of phase moves
a pattern by a small fraction of a pixel, which hardly shows in any residual.
"""

from dataclasses import dataclass

import numpy as np

from operators.arrays import (
    Array,
    Corners,
    Mask,
    Object,
    Patches,
    Patterns,
    Positions,
    Probe,
    abs2,
    array_module,
    to_numpy,
)
from operators.optics.forward import FRAMES_AT_A_TIME, exit_waves, far_field, forward_residual, intensities
from operators.patches import extract_patches

_DEGREE = 4
_POWERS = [(a, n - a) for n in range(1, _DEGREE + 1) for a in range(n + 1)]  # of y and x in each term
_CAUTION = 2.0


def missing_phase(
    patterns: Patterns, probe: Probe, object_: Object, corners: Corners, mask: Mask | None = None
) -> Array | None:
    """Return the slow phase that an object lacks by its patterns, (row, col) float32, rad; None for nothing.

    It is what the centroids tell, if that explains the frames better; else as much of each of its degrees as
    does. A model that is wrong otherwise is not bent to the centroids.

    Parameters
    ----------
    patterns : (frame, ky, kx) float32, photons, corner-origin
    probe : (mode, y, x) complex64
    object_ : (row, col) complex64
    corners : (frame, 2) int64, pixels of the object
    mask : (ky, kx) bool, True where valid
    """
    xp, n = array_module(patterns), probe.shape[-1]
    patches = extract_patches(object_, corners, n)

    def left(under: Array) -> float:
        return float(forward_residual(patterns, probe, patches * xp.exp(1j * under), mask).mean())

    slopes = missing_slopes(patterns, probe, patches, mask)
    slow = slow_phase(slopes, corners + n / 2, object_.shape)
    under = slow.under(corners, n)
    before = left(xp.zeros_like(under[0]))
    if left(under.sum(axis=0)) < before:
        return slow.on_all()
    shares = shares_that_fit(patterns, probe, patches, under, mask)
    return slow.on_all(shares) if left(xp.tensordot(shares, under, 1)) < before else None


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


@dataclass(frozen=True, slots=True)
class SlowPhase:
    """A polynomial of degree 4 on an object, without its constant.

    Attributes
    ----------
    coefficients : (term,) float32, rad
        Of each of `_POWERS` of coordinates from -1 to 1.
    shape : (int, int)
        Of the object.
    """

    coefficients: Array
    shape: tuple[int, int]

    def under(self, corners: Corners, n_pixels: int) -> Array:
        """Return each degree under each window, (degree, frame, y, x) float32; `corners` are (frame, 2)."""
        xp = array_module(self.coefficients)
        rows, columns = (
            xp.stack([along[start : start + n_pixels] for start in starts])
            for along, starts in zip(self._axes(), to_numpy(corners).T.tolist(), strict=True)
        )
        phases = xp.zeros((_DEGREE, len(corners), n_pixels, n_pixels), xp.float32)
        for coefficient, (a, b) in zip(self.coefficients, _POWERS, strict=True):
            phases[a + b - 1] += coefficient * (rows**a)[:, :, None] * (columns**b)[:, None, :]
        return phases

    def on_all(self, shares: Array | None = None) -> Array:
        """Return its sum on the whole object, (row, col) float32, of each degree its share, (degree,)."""
        xp, (rows, columns) = array_module(self.coefficients), self._axes()
        phase = xp.zeros(self.shape, xp.float32)
        for coefficient, (a, b) in zip(self.coefficients, _POWERS, strict=True):
            share = 1 if shares is None else shares[a + b - 1]
            phase += share * coefficient * (rows**a)[:, None] * columns**b
        return phase

    def _axes(self) -> tuple[Array, Array]:
        xp = array_module(self.coefficients)
        rows, columns = (xp.linspace(-1, 1, n, endpoint=False, dtype=xp.float32) for n in self.shape)
        return rows, columns


def slow_phase(slopes: Array, positions_px: Positions, shape: tuple[int, int]) -> SlowPhase:
    """Return the polynomial whose slopes are nearest to those given.

    The terms of each degree are shrunk together by twice what noise contributes to them (James and Stein,
    1961), to nothing where that is all or where there are fewer frames than terms.

    Parameters
    ----------
    slopes : (frame, 2) float32, rad/pixel
    positions_px : (frame, 2) float64, on the host
        Where they were measured, pixels of the object.
    shape : (int, int)
        Of the object.
    """
    xp = array_module(slopes)
    if len(slopes) < len(_POWERS):  # half the equations have to tell the noise
        return SlowPhase(xp.zeros(len(_POWERS), xp.float32), shape)
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
    return SlowPhase(xp.asarray(np.linalg.pinv(mixing, rcond=1e-6), xp.float32) @ found, shape)


def shares_that_fit(
    patterns: Patterns, probe: Probe, patches: Patches, phases: Array, mask: Mask | None = None
) -> Array:
    """Return which share of each phase fits the patterns best when added: (phase,) float32, 0 to 1.

    One step of Gauss and Newton on the residual, for all phases together.

    Parameters
    ----------
    patterns : (frame, ky, kx) float32, photons, corner-origin
    probe : (mode, y, x) complex64
    patches : (frame, y, x) complex64
        The object under each frame.
    phases : (phase, frame, y, x) float32, rad
    mask : (ky, kx) bool, True where valid
    """
    xp = array_module(patterns)
    n = len(phases)
    normal, wanted = xp.zeros((n, n), xp.float32), xp.zeros(n, xp.float32)
    for start in range(0, len(patterns), FRAMES_AT_A_TIME):
        part = slice(start, start + FRAMES_AT_A_TIME)
        waves = far_field(exit_waves(probe, patches[part]))
        amplitude = xp.sqrt(abs2(waves).sum(axis=1))
        left = (xp.sqrt(patterns[part]) - amplitude) * (1 if mask is None else mask)
        changes = []
        for phase in phases:
            change = far_field(exit_waves(probe, 1j * phase[part] * patches[part]))
            change = (waves.conj() * change).real.sum(axis=1) / xp.maximum(amplitude, np.float32(1e-6))
            changes.append((change * (1 if mask is None else mask)).ravel())
        table = xp.stack(changes)
        normal += table @ table.T
        wanted += table @ left.ravel()
    # A phase that is nothing changes nothing.
    shares = xp.linalg.pinv(normal.astype(xp.float64), rcond=1e-6) @ wanted.astype(xp.float64)
    return xp.clip(shares, 0, 1).astype(xp.float32)


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
