"""How good a reconstruction is: errors against a truth, agreement of two halves, misfit to the data.

An object is known up to a global phase and, with unknown detector centre and scan origin, up to a linear
phase ramp and a shift. Nothing of this is removed silently: `nrmse` removes the global phase,
`remove_gauge` the rest where the caller asks for it.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

from operators.arrays import Array, Corners, Mask, Object, Patterns, Probe, abs2, array_module, fft2
from operators.metrics.gauge import hann_window
from operators.optics.forward import FRAMES_AT_A_TIME, intensities
from operators.patches import extract_patches


class NRMSE(NamedTuple):
    """Root mean square error of an object, normalised in two ways.

    `c` divides by the variation of the truth: the best constant object scores 1. `loose` divides by its
    whole power, as most papers do: an empty reconstruction of a weak object looks good by it.
    """

    c: float
    loose: float


def align_phase(a: Object, b: Object, weights: Array | None = None) -> Object:
    """Return `a` times the global phase that brings it closest to `b` in the weighted least squares sense.

    Both are complex, of one shape; the weights are real and broadcast to it.
    """
    overlap = a * b.conj() if weights is None else weights * a * b.conj()
    xp = array_module(a)
    return a * xp.exp(-1j * xp.angle(overlap.sum())).astype(a.dtype)


def nrmse(a: Object, truth: Object, weights: Array | None = None) -> NRMSE:
    """Return the error of `a` against `truth` after removing the global phase and nothing else.

    Parameters
    ----------
    a, truth : (row, col) complex, or with leading axes that are pooled
    weights : real, broadcastable to the objects, optional
        For example the illumination, or a bool mask of scanned pixels.

    Raises
    ------
    ValueError
        If shapes differ or the truth is constant where the weights are not zero.

    Notes
    -----
    c^2 = sum w |a exp(-i t) - o|^2 / sum w |o - mean_w o|^2, loose^2 divides by sum w |o|^2.
    """
    _check_same_shape(a, truth)
    xp = array_module(a)
    a, truth = a.astype(xp.complex128), truth.astype(xp.complex128)
    w = xp.ones(a.shape) if weights is None else xp.broadcast_to(weights, a.shape).astype(xp.float64)
    error = float((w * abs2(align_phase(a, truth, w) - truth)).sum())
    power = float((w * abs2(truth)).sum())
    mean = (w * truth).sum() / w.sum()
    variation = float((w * abs2(truth - mean)).sum())
    if not variation > 1e-12 * power:
        raise ValueError("the truth is constant where it is weighted: there is no variation to normalise by")
    return NRMSE(c=math.sqrt(error / variation), loose=math.sqrt(error / power))


def phase_correlation_coefficient(a: Object, reference: Object, mask: Mask | None = None) -> float:
    """Return Pearson's correlation of the two phase maps, -1 to 1; a conjugated twin scores -1.

    Each phase is taken about its picture's mean transmission, so that a global phase does not move wraps.

    Parameters
    ----------
    a, reference : (row, col) complex
    mask : (row, col) bool, optional
        True = valid.

    Raises
    ------
    ValueError
        If shapes differ.
    """
    _check_same_shape(a, reference)
    xp = array_module(a)
    mask = xp.ones(a.shape, bool) if mask is None else mask
    phases = [xp.angle(picture[mask] * picture[mask].mean().conj()) for picture in (a, reference)]
    return float(xp.corrcoef(xp.stack(phases))[0, 1])


def amplitude_error(
    patterns: Patterns, object_: Object, probe: Probe, corners: Corners, mask: Mask | None = None
) -> float:
    """Return how badly the model fits the data, sum (|F| - sqrt I)^2 / sum I over valid pixels.

    Small values are necessary, not sufficient: wrong objects can fit well.

    Parameters
    ----------
    patterns : (frame, ky, kx) float32, photons
        Zero frequency in the corner.
    object_ : (row, col) complex64
    probe : (mode, y, x) complex64
    corners : (frame, 2) int64, pixels
        Top-left pixel of each window in `object_`.
    mask : (ky, kx) bool, optional
        True = valid, corner-origin.

    Raises
    ------
    ValueError
        If there are no photons on valid pixels.
    """
    xp = array_module(object_)
    valid = xp.ones(patterns.shape[-2:], bool) if mask is None else mask
    error = power = 0.0
    for start in range(0, len(corners), FRAMES_AT_A_TIME):
        batch = slice(start, start + FRAMES_AT_A_TIME)
        measured = xp.asarray(patterns[batch])[:, valid]
        patches = extract_patches(object_, corners[batch], probe.shape[-1])
        expected = intensities(probe, patches)[:, valid]
        error += float(((xp.sqrt(expected) - xp.sqrt(measured)) ** 2).sum(dtype=xp.float64))
        power += float(measured.sum(dtype=xp.float64))
    if power == 0:
        raise ValueError(f"no photons in {len(corners)} patterns over {int(valid.sum())} valid pixels")
    return error / power


@dataclass(frozen=True, slots=True, kw_only=True)
class FRC:
    """Correlation of two pictures ring by ring in Fourier space.

    Parameters
    ----------
    frequency : (ring,) float64, cycles/pixel
        Centre of each ring, 0 to 0.5.
    correlation : (ring,) float64
        -1 to 1.
    n_pixels : (ring,) int64
        Fourier pixels of each ring.
    """

    frequency: Array
    correlation: Array
    n_pixels: Array

    @property
    def half_bit(self) -> Array:
        """Correlation, (ring,) float64, from which a Fourier pixel of all the data carries half a bit.

        van Heel & Schatz, J. Struct. Biol. 151 (2005) 250. The ring of one pixel, the mean, takes the
        threshold of the next.
        """
        xp = array_module(self.correlation)
        root = xp.sqrt(xp.maximum(self.n_pixels, self.n_pixels[1]))
        return (0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root)

    def crossing(self, threshold: float | Array) -> float:
        """Return the first frequency, cycles/pixel, where the correlation falls below `threshold`.

        The correlation is averaged over three rings first; between rings it is interpolated linearly. If it
        never falls below, the answer is 0.5, the Nyquist frequency. A threshold may differ from ring to ring.
        """
        xp = array_module(self.correlation)
        smooth = xp.convolve(xp.pad(self.correlation, 1, mode="edge"), xp.ones(3) / 3, mode="valid")
        above = smooth - threshold
        below = xp.flatnonzero(above < 0)
        if len(below) == 0:
            return 0.5
        first = int(below[0])
        if first == 0:
            return 0.0
        before, after = float(above[first - 1]), float(above[first])
        fraction = before / (before - after)
        low, high = float(self.frequency[first - 1]), float(self.frequency[first])
        return low + fraction * (high - low)


def fourier_ring_correlation(a: Object, b: Object) -> FRC:
    """Return the Fourier ring correlation of two pictures, (row, col) complex, of equal shape.

    Both are multiplied by a Hann window, because their edges would correlate. Nothing else is done: remove
    phase, ramp and shift of independent reconstructions with `remove_gauge` before.

    Notes
    -----
    Re sum A conj(B) / sqrt(sum |A|^2 sum |B|^2) over rings one Fourier pixel of the shorter side wide (van
    Heel & Schatz, J. Struct. Biol. 151 (2005) 250). Where two halves of the data correlate by 0.143, a
    reconstruction from all of them would correlate with the truth by 0.5 (Rosenthal & Henderson, J. Mol.
    Biol. 333 (2003) 721).
    """
    _check_same_shape(a, b)
    xp = array_module(a)
    window = hann_window(xp, a.shape)
    A, B = fft2(a * window), fft2(b * window)
    fy, fx = xp.fft.fftfreq(a.shape[0])[:, None], xp.fft.fftfreq(a.shape[1])
    n_rings = min(a.shape) // 2 + 1
    ring = xp.rint(xp.hypot(fy, fx) * min(a.shape)).astype(int).ravel()

    def ring_sum(values: Array) -> Array:
        return xp.bincount(ring, weights=values.ravel().astype(xp.float64), minlength=n_rings)[:n_rings]

    power = xp.sqrt(ring_sum(abs2(A)) * ring_sum(abs2(B)))
    cross = ring_sum((A * B.conj()).real)
    correlation = xp.where(power > 0, cross / xp.where(power > 0, power, 1), 0)
    n_pixels = xp.bincount(ring, minlength=n_rings)[:n_rings]
    return FRC(frequency=xp.arange(n_rings) / min(a.shape), correlation=correlation, n_pixels=n_pixels)


def _check_same_shape(a: Array, b: Array) -> None:
    if a.shape != b.shape:
        raise ValueError(f"expected pictures of equal shape, got {a.shape} and {b.shape}")
