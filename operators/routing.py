"""The order in which a batch of points is visited, and which of them are worth the way.

Separate because it is about motors, not about the sample. Called by the selector.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from operators.arrays import Corners

TILE_DIAMETERS = 8.0  # side of the groups that travel is counted between, in diameters of the probe

Order = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Travel:
    """What measuring and moving cost.

    Attributes
    ----------
    dwell_s : float
        Time of one exposure.
    speed_px_s : float
        Of the stage, object pixels per second.
    """

    dwell_s: float
    speed_px_s: float


def snake_route(centres: Corners, strip_px: float, start: Sequence[int] | None = None) -> Order:
    """Return the order that runs through strips of rows to and fro, begun at the end nearest to `start`."""
    if not len(centres):
        return np.zeros(0, np.int64)
    y, x = np.asarray(centres).T
    strip = ((y - y.min()) // max(strip_px, 1)).astype(np.int64)
    # Strips that hold no point must not turn the direction.
    strip = np.unique(strip, return_inverse=True)[1]
    order = np.lexsort((np.where(strip % 2, -x, x), strip))
    if start is not None:
        ends = np.asarray(centres)[order[[0, -1]]] - np.asarray(start)
        if (ends[1] ** 2).sum() < (ends[0] ** 2).sum():
            order = order[::-1]
    return order


def best_tiles(
    centres: Corners,
    gains: NDArray[np.float64],
    n_points: int,
    travel: Travel,
    tile_px: float,
    start: Sequence[int] | None = None,
) -> Order:
    """Return `n_points` of the points: those of the tiles with the most gain per second, travel included.

    Parameters
    ----------
    centres : (point, 2) int64, object pixels
        In the order of preference.
    gains : (point,) float64
        Of each point, in any unit.
    n_points : int
    travel : Travel
    tile_px : float
        Side of a tile.
    start : (int, int), optional
        Where the stage is.
    """
    tile = np.unique(np.floor_divide(centres, tile_px), axis=0, return_inverse=True)[1].ravel()
    n = np.bincount(tile)
    middle = np.stack([np.bincount(tile, weights=axis) / n for axis in np.asarray(centres).T], axis=1)
    gain, time_s = np.bincount(tile, weights=gains), n * travel.dwell_s
    here = middle[tile[0]] if start is None else np.asarray(start, np.float64)
    taken: list[int] = []
    left = np.ones(len(n), bool)
    while len(taken) < n_points and left.any():
        way_s = np.hypot(*(middle - here).T) / travel.speed_px_s
        best = int(np.where(left, gain / (time_s + way_s), -1.0).argmax())
        left[best], here = False, middle[best]
        taken.extend(np.flatnonzero(tile == best).tolist())
    return np.array(taken[:n_points], np.int64)
