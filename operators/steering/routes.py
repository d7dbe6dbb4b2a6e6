"""The order in which a batch of points is visited, and what the way to a point costs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from operators.arrays import Array, Corners

STRIPS = (1, 2, 4)  # widths to try, in the one asked for: few points far apart want wide strips
MOST_TO_EXCHANGE = 64  # points: the time of an exchange grows with their square, its use falls

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

    def time_s(self, way_px: Array) -> Array:
        """Return how long, s, an exposure takes at the end of a way, object pixels; arrays of any shape."""
        return self.dwell_s + way_px / self.speed_px_s


def short_route(centres: Corners, strip_px: float, start: Sequence[int] | None = None) -> Order:
    """Return a short way through all points: through strips, or, where they are few, by exchanges.

    Parameters
    ----------
    centres : (point, 2) int64, object pixels
    strip_px : float
        Least width of the strips.
    start : (int, int), optional
        Where the stage is.

    Returns
    -------
    (point,) int64
        The order in which to visit them.
    """
    centres = np.asarray(centres)
    routes = [snake_route(centres, strips * strip_px, start) for strips in STRIPS]
    route = min(routes, key=lambda order: _length(centres[order], start))
    if start is not None and 1 < len(centres) <= MOST_TO_EXCHANGE:
        points = np.concatenate([[start], centres[route]]).astype(np.float32)
        route = route[_exchanged(np.hypot(*(points[:, None] - points).transpose(2, 0, 1))) - 1]
    return route


def snake_route(centres: Corners, strip_px: float, start: Sequence[int] | None = None) -> Order:
    """Return the order that runs through strips of rows to and fro, begun at the end nearest to `start`.

    Arguments and result are those of `short_route`.
    """
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


def _length(points: Corners, start: Sequence[int] | None) -> float:
    way = points if start is None else np.concatenate([[start], points])
    return float(np.hypot(*np.diff(way, axis=0).T).sum())


def _exchanged(distance: NDArray[np.float32]) -> Order:
    """Return the order of all points but the first that no turning round of a part makes shorter.

    `distance` is (point, point); the way begins at the first. 2-opt (Croes, Oper. Res. 6 (1958) 791), the
    best exchange first.
    """
    n, way = len(distance), distance.copy()
    order = np.arange(n)
    is_part = np.triu(np.ones((n - 1, n - 1), np.float32))
    # Turning round the points i to j replaces the steps to i and from j; from the last there is none.
    step, beyond = np.zeros(n, np.float32), np.zeros((n - 1, n - 1), np.float32)
    worth_it = 1e-3 * np.diagonal(way, 1).mean()
    for _ in range(n):
        step[:-1], beyond[:, :-1] = np.diagonal(way, 1), way[1:, 2:]
        shorter = step[:-1, None] + step[1:] - way[:-1, 1:] - beyond
        shorter *= is_part
        i, j = divmod(int(shorter.argmax()), n - 1)
        if shorter[i, j] < worth_it:
            break
        part, turned = slice(i + 1, j + 2), slice(j + 1, i, -1)
        order[part], way[part] = order[turned], way[turned]
        way[:, part] = way[:, turned]
    return order[1:]
