"""The scan that engines are compared on, and how far an object is from its truth.

400 positions, 128 x 128 pixels, a probe of 57 pixels, three quarters of overlap, 10^6 photons a frame, an
object of occluding discs of all sizes; the starting probe has another size and curvature and no structure.
"""

import numpy as np
import scipy.fft
from scipy.ndimage import gaussian_filter

from operators.metrics.errors import nrmse
from operators.metrics.gauge import remove_gauge
from tests.benchmarks.engines.engine_scan import EngineScan

N_PIXELS, SIDE, STEP, MARGIN = 128, 20, 15, 4
PHOTONS = 1e6
PAD = 8  # pixels that an object may be off before the gauge finds them


def make_scan() -> EngineScan:
    """Returns the same scan every time."""
    rng = np.random.default_rng(0)
    size = N_PIXELS + STEP * (SIDE - 1) + 2 * MARGIN
    amplitude, phase = (discs(size, np.random.default_rng(seed)) for seed in (0, 1))
    truth = ((0.7 + 0.3 * amplitude) * np.exp(1.5j * phase)).astype(np.complex64)
    probe, start = make_probes()
    grid = STEP * np.indices((SIDE, SIDE)).reshape(2, -1).T
    corners = grid + rng.integers(-2, 3, grid.shape) + MARGIN
    windows = np.stack([truth[y : y + N_PIXELS, x : x + N_PIXELS] for y, x in corners])
    patterns = rng.poisson(np.abs(scipy.fft.fft2(windows * probe, norm="ortho")) ** 2).astype(np.float32)
    start *= np.float32(np.sqrt(patterns.sum(axis=(1, 2)).max() / np.sum(np.abs(start) ** 2)))
    return EngineScan(truth, start, corners.astype(np.int64), patterns)


def make_probes() -> tuple[np.ndarray, np.ndarray]:
    """Returns the true probe, of `PHOTONS`, and the one to start from, whose power is still to be set."""
    probe = _rough(_disc(fwhm=60, curvature=26))
    probe *= np.float32(np.sqrt(PHOTONS / np.sum(np.abs(probe) ** 2)))
    return probe, _disc(fwhm=54, curvature=20)


def error(object_: np.ndarray, origin: tuple[int, int], scan: EngineScan) -> float:
    """Returns the distance from the truth over its norm where the scan went.

    Parameters
    ----------
    object_ : (row, col) complex
    origin : (row, col)
        Element of `object_` where element (0, 0) of the truth should be, to a few pixels. Shift, phase ramp
        and complex scale are free: the probe is refined with the object.
    """
    low, high = N_PIXELS // 2, N_PIXELS // 2 + STEP * (SIDE - 1) + 2 * MARGIN
    around = slice(low - PAD, high + PAD)
    row, column = origin
    found = object_[low - PAD + row : high + PAD + row, low - PAD + column : high + PAD + column]
    if found.shape != (high - low + 2 * PAD,) * 2:
        raise ValueError(f"an object of shape {object_.shape} with origin {origin} does not hold the scan")
    truth = scan.truth[around, around]
    inside = np.s_[PAD:-PAD, PAD:-PAD]
    aligned = remove_gauge(found, truth, scale=True)[inside]
    aligned *= np.vdot(aligned, truth[inside]) / np.vdot(aligned, aligned)
    return float(nrmse(aligned, truth[inside]).loose)


def discs(size: int, rng: np.random.Generator, count: int = 6000) -> np.ndarray:
    """Returns occluding discs with radii as r^-3, (size, size) float32 in 0..1."""
    image = np.full((size, size), 0.5, np.float32)
    share = rng.random(count)
    radii = 1 / np.sqrt(share / 90**2 + (1 - share) / 3**2)
    centres, values = rng.random((2, count)).T * size, rng.random(count)
    rows, columns = np.ogrid[:size, :size]
    for (y, x), radius, value in zip(centres, radii, values, strict=True):
        window = tuple(slice(max(0, int(at - radius)), int(at + radius) + 2) for at in (y, x))
        image[window][((rows - y) ** 2 + (columns - x) ** 2)[window] <= radius**2] = value
    image = gaussian_filter(image, 1.0)
    return (image - image.min()) / np.ptp(image)


def _disc(*, fwhm: float, curvature: float) -> np.ndarray:
    centre = (N_PIXELS - 1) / 2
    squared = ((np.indices((N_PIXELS, N_PIXELS)) - centre) ** 2).sum(axis=0)
    amplitude = np.exp(-0.5 * np.log(2) * (2 * np.sqrt(squared) / fwhm) ** 4)
    return (amplitude * np.exp(1j * curvature * squared / (N_PIXELS / 2) ** 2)).astype(np.complex64)


def _rough(probe: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(3)
    phase, amplitude = (
        gaussian_filter(rng.standard_normal(probe.shape), sigma) * scale
        for sigma, scale in ((8, 7.0), (6, 1.8))
    )
    return (probe * (1 + amplitude) * np.exp(1j * phase)).astype(np.complex64)
