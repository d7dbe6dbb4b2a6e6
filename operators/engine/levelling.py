"""Slow variations of an object's phase that its patterns contradict.

They are found in one look at some frames, where iterations take hundreds of epochs: a slope of phase moves
a pattern by a small fraction of a pixel, which hardly shows in any residual.
"""

import math
from typing import NamedTuple

import numpy as np
import scipy.linalg

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
from operators.optics.forward import FRAMES_AT_A_TIME, exit_waves, far_field, forward_residual
from operators.patches import extract_patches

_BANDS = (3, 5, 9, 20, 40)  # terms in each, from the slowest
_MOST_SPLINES = 256  # that these are made of: a grid is no finer
_LEAST_FRAMES = 14  # fewer do not tell a slope from noise
_CAUTION = 2.0
_DARK = 0.3  # sqrt(photons), below which an amplitude tells little
_PITCH = 0.75  # of the grid, over the width of the probe: what is finer iterations see themselves


class SlowPhases(NamedTuple):
    """Smooth phases on one grid: products of cubic splines along the rows and along the columns.

    Attributes
    ----------
    down : (row, i) float32
        Each spline along y, at the rows of the object.
    right : (col, j) float32
    bands : (band, i, j) float32, rad
        What of each product is in each phase, the slowest phase first.
    """

    down: Array
    right: Array
    bands: Array

    def under(self, corners: Corners, n_pixels: int, shares: Array) -> Array:
        """Return their sum with these shares, (band,) float32, under each window: (frame, y, x) float32, rad.

        Corners are on the host.
        """
        xp, inside = array_module(self.bands), np.arange(n_pixels)
        down, right = (
            axis[xp.asarray(corners[:, i, None] + inside)] for i, axis in enumerate((self.down, self.right))
        )
        return down @ xp.tensordot(shares, self.bands, 1) @ right.swapaxes(1, 2)

    def whole(self, shares: Array) -> Array:
        """Return their sum with these shares on the whole object, (row, col) float32, rad."""
        return self.down @ array_module(self.bands).tensordot(shares, self.bands, 1) @ self.right.T


def missing_phase(
    patterns: Patterns, probe: Probe, object_: Object, corners: Corners, mask: Mask | None = None
) -> Array | None:
    """Return the slow phase that an object lacks by its patterns, (row, col) float32, rad; None for nothing.

    It is what the slopes under all frames tell, if that explains the frames better; else as much of each of
    its bands as does. A model that is wrong otherwise is not bent to them.

    Parameters
    ----------
    patterns : (frame, ky, kx) float32, photons, corner-origin
    probe : (mode, y, x) complex64
    object_ : (row, col) complex64
    corners : (frame, 2) int64, pixels of the object
    mask : (ky, kx) bool, True where valid
    """
    if len(patterns) < _LEAST_FRAMES:
        return None
    xp, n = array_module(patterns), probe.shape[-1]
    patches = extract_patches(object_, corners, n)

    def left(turned: Patches) -> float:
        return float(forward_residual(patterns, probe, turned, mask).mean())

    slopes = missing_slopes(patterns, probe, patches, mask)
    phases = slow_phases(slopes, corners + n / 2, object_.shape, width_of(probe))
    before, shares = left(patches), xp.ones(len(phases.bands), xp.float32)
    if left(patches * xp.exp(1j * phases.under(corners, n, shares))) < before:
        return phases.whole(shares)
    each = xp.stack([phases.under(corners, n, one) for one in xp.eye(len(shares), dtype=xp.float32)])
    shares = shares_that_fit(patterns, probe, patches, each, mask)
    is_better = left(patches * xp.exp(1j * xp.tensordot(shares, each, 1))) < before
    return phases.whole(shares) if is_better else None


def width_of(probe: Probe) -> float:
    """Return the side of a square that would hold the probe's light evenly, pixels."""
    light = to_numpy(abs2(probe).sum(axis=0)).astype(np.float64)
    return math.sqrt(light.sum() ** 2 / (light**2).sum())


def missing_slopes(patterns: Patterns, probe: Probe, patches: Patches, mask: Mask | None = None) -> Array:
    """Return the slope of phase that the object lacks under each frame, (frame, 2) float32, rad/pixel.

    A slope moves the pattern: it is the move that makes the residual least, one step of Gauss and Newton. All
    edges of the pattern tell it, where its centroid (differential phase contrast) is moved by the photons
    far out: of the demo's patterns it is twice as well known.

    Parameters
    ----------
    patterns : (frame, ky, kx) float32, photons, corner-origin
    probe : (mode, y, x) complex64
    patches : (frame, y, x) complex64
        The object under each frame.
    mask : (ky, kx) bool, True where valid
    """
    xp = array_module(patterns)
    found = xp.zeros((len(patterns), 2), xp.float32)
    for start in range(0, len(patterns), FRAMES_AT_A_TIME):
        part = slice(start, start + FRAMES_AT_A_TIME)
        left, (down, right) = _residual(patterns[part], probe, patches[part], _ramps(probe), mask)
        yy, yx, xx = (_pixel_sums(a, b) for a, b in ((down, down), (down, right), (right, right)))
        to_y, to_x = _pixel_sums(down, left), _pixel_sums(right, left)
        # Where there is no light there is no slope.
        size = xp.maximum(yy * xx - yx * yx, np.float32(1e-6) * yy * xx + np.float32(1e-30))
        found[part, 0] = (xx * to_y - yx * to_x) / size
        found[part, 1] = (yy * to_x - yx * to_y) / size
    return found


def slow_phases(
    slopes: Array, positions_px: Positions, shape: tuple[int, int], width_px: float
) -> SlowPhases:
    """Return the smooth phase whose slopes are nearest to those given, band by band.

    Its terms are those of a smoothing spline, from the slowest (Demmler and Reinsch, 1975). The terms of each
    band are shrunk together (James and Stein, 1961) by twice what noise contributes to them, to nothing where
    that is all. There are no more terms than frames, so that half the equations tell the noise.

    Parameters
    ----------
    slopes : (frame, 2) float32, rad/pixel
    positions_px : (frame, 2) float64, on the host
        Where they were measured, pixels of the result.
    shape : (int, int)
    width_px : float
        Of what each slope is the mean over.
    """
    xp, measured = array_module(slopes), to_numpy(slopes).T.reshape(-1).astype(np.float64)
    positions_px = np.asarray(positions_px, np.float64)
    first, last = positions_px.min(axis=0) - width_px / 2, positions_px.max(axis=0) + width_px / 2
    pitch = max(_PITCH * width_px, math.sqrt(float((last - first).prod()) / _MOST_SPLINES))
    sizes = np.ceil((last - first) / pitch).astype(int) + 3
    grids = [(a, (b - a) / (size - 3), size) for a, b, size in zip(first, last, sizes, strict=True)]
    terms, slopes_of_terms = _smooth_terms(positions_px, grids)
    found = slopes_of_terms.T @ measured
    left = ((measured - slopes_of_terms @ found) ** 2).sum() / (len(measured) - len(found))
    bands, ends = np.zeros((len(_BANDS), *sizes)), np.cumsum(_BANDS)
    for band, start, end in zip(bands, ends - _BANDS, ends, strict=True):
        own = found[start:end]
        by_noise = _CAUTION * len(own) * left / max((own**2).sum(), 1e-30)
        band[...] = (terms[:, start:end] @ (own * max(1 - by_noise, 0.0))).reshape(sizes)
    # Beyond the grid a phase goes on as at its edge.
    pixels = [
        np.clip(np.arange(n), *ends) for n, ends in zip(shape, zip(first, last, strict=True), strict=True)
    ]
    splines = [_splines(x, *grid)[0] for x, grid in zip(pixels, grids, strict=True)]
    return SlowPhases(*(xp.asarray(a, np.float32) for a in (*splines, bands)))


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
        left, changes = _residual(patterns[part], probe, patches[part], phases[:, part], mask)
        table = xp.stack([change.ravel() for change in changes])
        normal += table @ table.T
        wanted += table @ left.ravel()
    # A phase that is nothing changes nothing.
    shares = xp.linalg.pinv(normal.astype(xp.float64), rcond=1e-6) @ wanted.astype(xp.float64)
    return xp.clip(shares, 0, 1).astype(xp.float32)


def _smooth_terms(positions_px: Positions, grids: list[tuple[float, float, int]]) -> tuple[Array, Array]:
    """Return the terms of a smoothing spline, (spline, term), from the slowest, and their slopes.

    The slopes, (2 frames, term), down before right, are orthonormal.
    """
    (down, slope_down), (right, slope_right) = (
        _splines(x, *grid) for x, grid in zip(positions_px.T, grids, strict=True)
    )
    slopes = np.concatenate(
        [
            np.einsum("fi,fj->fij", *pair).reshape(len(positions_px), -1)
            for pair in ((slope_down, right), (down, slope_right))
        ]
    )
    n_down, n_right = (grid[2] for grid in grids)
    rough = np.full((n_down * n_right,) * 2, 1e6)  # a constant has no slope: it comes last
    for order, weight in ((2, 1.0), (1, 1e-3)):  # of what bends as little the less steep comes first
        along = [np.diff(np.eye(n), order, axis=0) for n in (n_down, n_right)]
        rough += weight * np.kron(along[0].T @ along[0], np.eye(n_right))
        rough += weight * np.kron(np.eye(n_down), along[1].T @ along[1])
    normal = slopes.T @ slopes
    normal += 1e-6 * np.trace(normal) / len(normal) * np.eye(len(normal))  # what no frame tells
    _, terms = scipy.linalg.eigh(rough, normal)
    terms = terms[:, : min(len(normal) - 1, len(positions_px), sum(_BANDS))]
    return terms, slopes @ terms


def _splines(x: Array, first: float, pitch: float, n: int) -> tuple[Array, Array]:
    """Return cubic splines at x and their slopes, (x, spline): the second one has its middle at `first`."""
    u = (np.asarray(x, np.float64)[:, None] - first) / pitch - np.arange(-1, n - 1)
    far = np.minimum(abs(u), 2)
    values = np.where(far < 1, 2 / 3 - far**2 + far**3 / 2, (2 - far) ** 3 / 6)
    slopes = np.where(far < 1, -2 * far + 1.5 * far**2, -((2 - far) ** 2) / 2) * np.sign(u) / pitch
    return values, slopes


def _residual(
    patterns: Patterns, probe: Probe, patches: Patches, phases: Array, mask: Mask | None
) -> tuple[Array, list[Array]]:
    """Return what the amplitudes lack, (frame, ky, kx), and how each phase would change them, as many.

    `phases` are (phase, frame or 1, y, x) float32, rad.
    """
    xp = array_module(patterns)
    waves = far_field(exit_waves(probe, patches))
    amplitude = xp.sqrt(abs2(waves).sum(axis=1))
    valid = xp.float32(1) if mask is None else mask
    changes = []
    for phase in phases:
        change = (waves.conj() * far_field(exit_waves(probe, 1j * phase * patches))).real.sum(axis=1)
        changes.append(change / xp.maximum(amplitude, np.float32(_DARK)) * valid)
    return (xp.sqrt(patterns) - amplitude) * valid, changes


def _ramps(probe: Probe) -> Array:
    """Return phases that rise by 1 rad/pixel, down and to the right, about the light: (2, 1, y, x)."""
    xp, n = array_module(probe), probe.shape[-1]
    light, pixels = abs2(probe).sum(axis=0), xp.arange(n, dtype=xp.float32)
    y, x = (pixels - (light.sum(axis=1 - axis) @ pixels) / light.sum() for axis in range(2))
    return xp.stack([y[:, None] + xp.zeros_like(light), x + xp.zeros_like(light)])[:, None]


def _pixel_sums(a: Array, b: Array) -> Array:
    return (a * b).sum(axis=(1, 2))
