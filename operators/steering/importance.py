"""Where measuring more is worth it, what it would gain, and when it is enough.

The judgements of adaptive scanning, each a formula on super-pixel maps: importance of a place, how far its
error exceeds photon noise, gain of a batch, verdict on a place, end of a scan.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, uniform_filter

from operators.arrays import Array, Corners
from operators.mosaic.mosaic import phase_variance
from operators.steering.maps import Map, SuperPixels, block_mean

LEAST_IMPORTANCE = 0.004  # its fourth root, 0.25: empty ground gets a quarter of the density along a line
NOISE_MARGIN = 1.5  # structure below so many times the noise is taken for noise
EMPTY_QUANTILE = 0.2  # the quietest fifth of the field is no better than noise
MOST_INFLATION = 16.0
GAP_CELLS = 5  # squares over which structure is taken to continue where nothing is known
RELEVANT = 0.25  # of the largest importance: worth an uncertainty of its own
PRIOR_VARIANCE = 1.0  # rad^2: what is known of a phase before it is measured
_TINY = 1e-6
_VARIANCE_OF_ONE_PHOTON = np.float32(phase_variance(1.0))  # in single precision, as the maps are


def importance(maps: SuperPixels, least: float = LEAST_IMPORTANCE) -> Map:
    """Return how much each place matters, (row, col) float32, from `least` where it is empty to 1.

    It is 1 far from all that is known.

    Notes
    -----
    Structure above noise, spread by two squares so that the density of points changes gradually. The noise
    is the smaller of two upper bounds: what the claimed uncertainty explains, and the quietest fifth of the
    field.
    """
    known = maps.coverage > 0.5
    if not known.any():
        return np.ones(maps.cells.shape, np.float32)
    explained = 4 * maps.variance  # two steps, each between two pixels whose errors may be independent
    quiet = np.quantile(maps.structure[known], EMPTY_QUANTILE)
    excess = np.maximum(maps.structure - NOISE_MARGIN * np.minimum(explained, quiet), 0) * known
    # A gap between squares that are known is as important as they are.
    share = np.maximum(uniform_filter(known.astype(np.float32), GAP_CELLS), 0)
    excess = np.where(known, excess, uniform_filter(excess, GAP_CELLS) / np.maximum(share, _TINY))
    spread = maximum_filter(uniform_filter(excess, 3), 3)
    strong = np.quantile(spread[known], 0.9)
    relative = spread / strong if strong > 0 else np.zeros_like(spread)
    return np.where(share > _TINY, np.clip(relative, least, 1), 1).astype(np.float32)


def inflation(maps: SuperPixels) -> Map:
    """Return each place's variance over photon noise, (row, col) float32, from 1 to `MOST_INFLATION`."""
    ratio = maps.model_variance / np.maximum(maps.floor, _TINY)
    return np.where(maps.coverage > 0.5, np.clip(1 + ratio, 1, MOST_INFLATION), 1).astype(np.float32)


def predicted_gain(maps: SuperPixels, weights: Map, illumination: Array, centres: Corners) -> Map:
    """Return by how much measuring at `centres` would lower the weighted variance of each place, rad^2.

    Parameters
    ----------
    maps : SuperPixels
    weights : (row, col) float32
        Importance.
    illumination : (y, x) float32, photons
        What one exposure puts on each pixel of its window.
    centres : (point, 2) int64, absolute object pixels

    Notes
    -----
    w [1 / J - 1 / (J + p)] with the precision J that photons give, and the precision p of the exposures: the
    Cramer-Rao bound before and after.
    """
    added = _added_precision(maps, illumination, centres)
    before = maps.photons / _VARIANCE_OF_ONE_PHOTON + np.float32(1 / PRIOR_VARIANCE)
    # 1 / J - 1 / (J + p), without its cancellation
    return (weights * added / (before * (before + added))).astype(np.float32, copy=False)


def uncertainty(maps: SuperPixels) -> Map:
    """Return the phase variance of each place with what is known beforehand, (row, col) float32, rad^2."""
    known = np.minimum(maps.variance, PRIOR_VARIANCE)
    return np.where(maps.coverage > 0.5, known, PRIOR_VARIANCE).astype(np.float32)


def _added_precision(maps: SuperPixels, illumination: Array, centres: Corners) -> Map:
    """Return the precision that exposures add to each square; their place is rounded to whole squares."""
    n, side = illumination.shape[-1], maps.cell_px
    footprint = block_mean(np.pad(illumination, (0, -n % side)), side) / _VARIANCE_OF_ONE_PHOTON
    size = len(footprint)
    padded = np.zeros(np.add(maps.cells.shape, 2 * size), np.float32)
    corners = np.floor_divide(np.asarray(centres) - n // 2 + side // 2, side) - maps.cells.origin + size
    for row, column in np.clip(corners, 0, np.array(padded.shape) - size).tolist():
        padded[row : row + size, column : column + size] += footprint
    return padded[size:-size, size:-size]


class Verdict(IntEnum):
    """What would help a place."""

    UNSEEN = 0  # a first look
    ENOUGH = 1  # nothing: it is known well enough
    DOSE = 2  # more photons: noise is most of its error
    COMPUTE = 3  # more epochs or a better model: photons are not what is missing


def verdicts(maps: SuperPixels, target_rad: float) -> NDArray[np.uint8]:
    """Return what would bring each place's phase error below `target_rad`, (row, col) uint8 of `Verdict`."""
    remedy = np.where(maps.model_variance > maps.floor, Verdict.COMPUTE, Verdict.DOSE)
    remedy = np.where(maps.variance <= target_rad**2, Verdict.ENOUGH, remedy)
    return np.where(maps.coverage > 0.5, remedy, Verdict.UNSEEN).astype(np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How well the places that matter are known.

    Attributes
    ----------
    sigma_q95_rad : float
        Standard uncertainty that 95 % of them stay below; infinite while one of them is unseen.
    relevant_fraction : float
        Their share of the field.
    """

    sigma_q95_rad: float
    relevant_fraction: float


def quality(maps: SuperPixels, weights: Map, field: NDArray[np.bool_]) -> Quality:
    """Return how well the places of at least `RELEVANT` importance are known.

    Parameters
    ----------
    maps : SuperPixels
    weights : (row, col) float32
        Importance.
    field : (row, col) bool
        Where anything may be measured.
    """
    relevant = (weights >= RELEVANT) & field
    if not relevant.any():
        return Quality(sigma_q95_rad=0.0, relevant_fraction=0.0)
    sigma = np.sqrt(np.where(maps.coverage > 0.5, maps.variance, np.inf)[relevant])
    worst = float(np.quantile(sigma, 0.95, method="higher"))
    return Quality(sigma_q95_rad=worst, relevant_fraction=float(relevant.sum() / field.sum()))


class StopRule:
    """Says enough once the places that matter were known well enough several times in a row.

    It rests on the claimed uncertainty alone, so it says nothing while that is not to be trusted.

    Parameters
    ----------
    target_rad : float
        Standard uncertainty of the phase to reach; 0 never stops.
    n_in_a_row : int
        Decisions that must agree: one map may be lucky.
    """

    def __init__(self, target_rad: float, n_in_a_row: int = 3) -> None:
        self.target_rad, self.n_in_a_row = target_rad, n_in_a_row
        self._n = 0

    @property
    def is_met(self) -> bool:
        """Whether the last decisions agreed."""
        return self._n >= self.n_in_a_row

    def look(self, now: Quality, is_trusted: bool = True) -> None:
        """Take the quality of one more map, and whether its uncertainty can be believed."""
        is_enough = is_trusted and self.target_rad > 0 and now.sigma_q95_rad <= self.target_rad
        self._n = self._n + 1 if is_enough else 0
