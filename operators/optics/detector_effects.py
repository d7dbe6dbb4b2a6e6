"""What a detector makes of the photons that should reach it: uneven, blind and glowing pixels, background.

A `Detector` is drawn once on the host; `read_out` works on arrays of any library with NumPy's operators,
so that the simulated scan and the training samples, which are PyTorch's, go through the same lines.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from operators.arrays import Array, Mask, corner_origin, to_numpy

HOT_COUNTS = 300.0  # mean dark counts of a hot pixel in a frame
HALO_SIGMA = 1 / 6  # of the background's diffuse part, of the side of a pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorEffects:
    """How good a detector is; the defaults are an ideal one.

    Attributes
    ----------
    gain_spread : float
        Standard deviation of the pixels' sensitivity about 1: what flat-field correction left.
    dead_share : float
        Share of pixels that never count.
    hot_share : float
        Share of pixels that count without light, 300 in a frame on average.
    beam_stop_px : float
        Radius of a disc before the direct beam, pixels; 0 for none.
    gap_px : int
        Width of the gaps between modules, pixels: one along rows and one along columns, beside the beam.
    background : float
        Mean photons per pixel and frame that did not pass the sample's probe: half of them even, half in a
        halo about the beam.
    saturation : float, optional
        Most counts that a pixel reads; no limit unless given.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    gain_spread: float = 0.0
    dead_share: float = 0.0
    hot_share: float = 0.0
    beam_stop_px: float = 0.0
    gap_px: int = 0
    background: float = 0.0
    saturation: float | None = None

    def __post_init__(self) -> None:
        for name in ("gain_spread", "dead_share", "hot_share", "beam_stop_px", "gap_px", "background"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if self.dead_share + self.hot_share >= 1 or (self.saturation is not None and self.saturation <= 0):
            raise ValueError(
                "expected dead_share + hot_share < 1 and saturation > 0, got "
                f"{self.dead_share} + {self.hot_share} and {self.saturation}"
            )


class Detector(NamedTuple):
    """A detector as its pixels are, corner-origin like the patterns; or several, along a first axis.

    Attributes
    ----------
    gain : (ky, kx) float32
        Counts per photon; 0 where nothing is counted.
    background : (ky, kx) float32, photons
        Expected per frame besides the sample's; large on hot pixels.
    saturation : (1, 1) float32, counts
    valid : (ky, kx) bool
        True where a pixel can be trusted: neither dead, hot, behind the beam stop nor in a gap.
    """

    gain: Array
    background: Array
    saturation: Array
    valid: Mask


def draw_detector(effects: DetectorEffects, n_pixels: int, rng: np.random.Generator) -> Detector:
    """Return a detector of (n_pixels, n_pixels) with its defects at random places."""
    shape = (n_pixels, n_pixels)
    kind = rng.random(shape)
    is_dead, is_hot = kind < effects.dead_share, kind > 1 - effects.hot_share
    is_open = ~(
        is_dead | beam_stop(n_pixels, effects.beam_stop_px) | module_gaps(n_pixels, effects.gap_px, rng)
    )
    gain = is_open * np.maximum(1 + effects.gain_spread * rng.standard_normal(shape), 0)
    background = effects.background * (0.5 + 0.5 * _halo(n_pixels))
    background += is_hot * HOT_COUNTS * rng.exponential(size=shape)
    return Detector(
        corner_origin(gain.astype(np.float32)),
        corner_origin(background.astype(np.float32)),
        np.full((1, 1), np.inf if effects.saturation is None else effects.saturation, np.float32),
        corner_origin(is_open & ~is_hot),
    )


def detect(expected: Array, detector: Detector, rng: np.random.Generator) -> NDArray[np.uint32]:
    """Return the counts of a detector, (frame, ky, kx) on the host.

    Parameters
    ----------
    expected : (frame, ky, kx) float32, photons
        From the sample, as `operators.optics.forward.intensities` gives them.
    detector : Detector
    rng : numpy.random.Generator
    """
    photons = rng.poisson(to_numpy(expected) + detector.background)
    return read_out(photons, detector).astype(np.uint32)


def read_out(photons: Array, detector: Detector) -> Array:
    """Return the counts, whole numbers, that photons leave in a detector.

    Parameters
    ----------
    photons : (frame, ky, kx) real
        Those that arrived, not those expected.
    detector : Detector
        One for all frames, or one for each; of the same library as `photons`.
    """
    return (photons * detector.gain).round().clip(max=detector.saturation)


def beam_stop(n_pixels: int, radius_px: float) -> Mask:
    """Return the pixels behind a disc before the direct beam, (row, col) bool, beam at the array centre."""
    from_beam = np.arange(n_pixels) - n_pixels // 2
    return np.hypot(from_beam[:, None], from_beam) < radius_px


def module_gaps(n_pixels: int, width_px: int, rng: np.random.Generator) -> Mask:
    """Return the pixels in one gap along the rows and one along the columns, (row, col) bool.

    Both lie at random, but not across the direct beam at the array centre: nobody would put it there. Raises
    ValueError if a gap does not fit beside it.
    """
    is_gap = np.zeros((n_pixels, n_pixels), bool)
    low, high = n_pixels // 2 - n_pixels // 8, n_pixels // 2 + n_pixels // 8
    starts = [*range(low - width_px + 1), *range(high, n_pixels - width_px + 1)]
    if not starts:
        raise ValueError(f"gap_px: no room beside the beam for {width_px} of {n_pixels} pixels")
    for lines in (is_gap, is_gap.T):
        start = rng.choice(starts)
        lines[start : start + width_px] = True
    return is_gap


def _halo(n_pixels: int) -> NDArray[np.float64]:
    """Return a Gaussian about the array centre whose mean is 1."""
    peak = np.zeros((n_pixels, n_pixels))
    peak[n_pixels // 2, n_pixels // 2] = n_pixels**2
    from scipy import ndimage  # a quarter of a second, for everything that only counts photons

    return ndimage.gaussian_filter(peak, HALO_SIGMA * n_pixels, mode="wrap", truncate=3)
