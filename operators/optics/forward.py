"""The forward model: object and probe to intensities on the detector, and Poisson counts of them.

The one statement of the physics: engine, metrics, network labels and simulated detector all call it, so
they cannot disagree. Everything is corner-origin and unitary, hence the photons of a pattern equal the
power of its exit waves (Parseval).
"""

import numpy as np

from operators.arrays import (
    Array,
    Corners,
    Mask,
    Object,
    Patches,
    Patterns,
    Probe,
    Waves,
    abs2,
    array_module,
    fft2,
    to_numpy,
)
from operators.optics.detector_effects import Detector, detect
from operators.patches import extract_patches

FRAMES_AT_A_TIME = 64  # bounds the memory of waves: frames x modes x pixels
_IN_CACHE = 1 << 16  # pixels of waves that a processor's cache holds: three times as fast


def exit_waves(probe: Probe, patches: Patches) -> Waves:
    """Return the wave behind the sample, probe x patch, (frame, mode, y, x) complex64."""
    return probe[None] * patches[:, None]


def far_field(waves: Waves) -> Waves:
    """Return the waves at the detector, (frame, mode, ky, kx), corner-origin, of the same power."""
    return fft2(waves)


def intensities(probe: Probe, patches: Patches) -> Patterns:
    """Return the photons expected on the detector, the incoherent sum over modes.

    Parameters
    ----------
    probe : (mode, y, x) complex64
        Sum of |P|^2 over modes and pixels is the photons per frame.
    patches : (frame, y, x) complex64
        The object under each probe.

    Returns
    -------
    (frame, ky, kx) float32, photons
        Zero frequency in the corner.
    """
    xp = array_module(patches)
    size = max(1, _IN_CACHE // probe.size if xp is np else len(patches))
    parts = [patches[start : start + size] for start in range(0, len(patches), size) or [0]]
    return xp.concatenate([abs2(far_field(exit_waves(probe, part))).sum(axis=1) for part in parts])


def noise_residual(patterns: Patterns, mask: Mask | None = None) -> Array:
    """Return (frame,) float32, photons: about what sum (|F| - sqrt I)^2 is for the truth, from noise alone.

    That is 1/4 on a lit pixel, and 1 on one of a single photon; never more than a quarter of the pattern,
    should its unit not be photons.

    Parameters
    ----------
    patterns : (frame, ky, kx) float32, photons
    mask : (ky, kx) bool, True where valid
    """
    xp = array_module(patterns)
    lit = patterns > 0 if mask is None else (patterns > 0) & mask
    left = xp.where(lit, xp.where(patterns < 1.5, np.float32(1), np.float32(0.25)), np.float32(0))
    return xp.minimum(left.sum(axis=(1, 2)), xp.where(lit, patterns, np.float32(0)).sum(axis=(1, 2)) / 4)


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
    return (difference**2 * weights).sum(axis=(1, 2)) / valid_photons(patterns, mask)


def valid_photons(patterns: Patterns, mask: Mask | None) -> Array:
    """Returns (frame,) float32, the photons on valid pixels, never 0."""
    xp = array_module(patterns)
    valid = patterns if mask is None else xp.where(mask, patterns, np.float32(0))
    return xp.maximum(valid.sum(axis=(1, 2)), np.float32(1e-6))


def simulate_counts(
    object_: Object,
    probe: Probe,
    corners: Corners,
    rng: np.random.Generator,
    *,
    detector: Detector | None = None,
    flux: Array | None = None,
) -> np.ndarray:
    """Return Poisson counts of the scan, on the host, reproducible from the state of `rng`.

    Parameters
    ----------
    object_ : (row, col) complex64
    probe : (mode, y, x) complex64
        Sum of |P|^2 is the mean photons per frame of a transparent object.
    corners : (frame, 2) int64, pixels
        Top-left pixel of each window, (row, col).
    rng : numpy.random.Generator
        NumPy's on either backend, so that the counts are the same.
    detector : Detector, optional
        An ideal one unless given.
    flux : (frame,) float, optional
        Photons of each frame over those of the probe; 1 unless given.

    Returns
    -------
    (frame, ky, kx) uint32, counts
        Zero frequency in the corner; `centre_origin` turns them into frames as a detector sends them.
    """
    n_pixels = probe.shape[-1]
    counts = np.empty((len(corners), n_pixels, n_pixels), np.uint32)
    for start in range(0, len(corners), FRAMES_AT_A_TIME):
        batch = slice(start, start + FRAMES_AT_A_TIME)
        expected = to_numpy(intensities(probe, extract_patches(object_, corners[batch], n_pixels)))
        if flux is not None:
            expected *= np.float32(flux[batch, None, None])
        counts[batch] = rng.poisson(expected) if detector is None else detect(expected, detector, rng)
    return counts
