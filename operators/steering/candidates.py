"""Where the next point may be, and how far every such place is from what has been measured.

The guarantees of adaptive scanning rest on this distance. A candidate's distance is the radius of the hole
it would fill: taken farthest first, points cover the field evenly however many are taken, and stay apart.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from operators.arrays import Corners
from operators.geometry import Bounds

JITTER = 0.3  # of the spacing: a perfect grid would leave its own period in the object

Window = tuple[slice, slice]


class Candidates:
    """Places that may be measured, each with its distance from the nearest measured point.

    Parameters
    ----------
    area : Bounds
        Absolute object pixels where the centre of the probe may be.
    centres : (row, col, 2) or (point, 2) int, absolute object pixels
        Where the centre of the probe would be, (y, x).
    farthest_px : float
        Beyond it all distances are alike, which is what a new point costs time for; none is unless given.

    Attributes
    ----------
    centres : (row, col, 2) int64
        As given; a list of points is one row.
    distance : (row, col) float32, object pixels
        To the nearest measured point, `farthest_px` or the diagonal of the area where it is more.

    Raises
    ------
    ValueError
        If there is none.
    """

    def __init__(self, area: Bounds, centres: Corners, farthest_px: float = math.inf) -> None:
        self.area = area
        self.centres: Corners = np.asarray(centres, np.int64)
        if self.centres.ndim == 2:
            self.centres = self.centres[None]
        if not self.centres.size:
            raise ValueError(f"candidates: expected at least one place within {area}, got none")
        shape = self.centres.shape[:2]
        self.distance = np.full(shape, min(math.hypot(*area.shape), farthest_px), np.float32)
        self._y, self._x = np.moveaxis(self.centres, -1, 0).astype(np.float32)

    def __len__(self) -> int:
        return self.distance.size

    def window(self, centre: Sequence[int], radius_px: float) -> Window:
        """Return the slices of a part with every candidate within `radius_px` of `centre`: here, of all."""
        rows, columns = self.distance.shape
        return slice(0, rows), slice(0, columns)

    def distance_to(self, centre: Sequence[int], window: Window) -> NDArray[np.float32]:
        """Return the distances of the candidates in `window` from `centre`, (row, col) float32, pixels."""
        y, x = self._y[window] - np.float32(centre[0]), self._x[window] - np.float32(centre[1])
        return np.sqrt(y * y + x * x)


class Lattice(Candidates):
    """Candidates on a jittered grid, so that those near a point are found at once.

    Parameters
    ----------
    area, farthest_px
        As of `Candidates`.
    spacing_px : float
        Of the grid, at least 2.
    rng : numpy.random.Generator
        Of the jitter; the same state gives the same candidates.

    Raises
    ------
    ValueError
        If the spacing is below 2 pixels or not finite.
    """

    def __init__(
        self, area: Bounds, spacing_px: float, rng: np.random.Generator, farthest_px: float = math.inf
    ) -> None:
        if not (math.isfinite(spacing_px) and spacing_px >= 2):
            raise ValueError(f"candidates: expected a spacing of at least 2 pixels, got {spacing_px!r}")
        self.spacing_px = float(spacing_px)
        first, last = np.array(area.origin), np.array([area.bottom - 1, area.right - 1])
        n_steps = np.rint((last - first) / spacing_px).astype(int)
        pitch = np.maximum((last - first) / np.maximum(n_steps, 1), 1.0)
        self._pitch: list[float] = pitch.tolist()
        grid = first + pitch * np.moveaxis(np.indices(tuple(n_steps + 1)), 0, -1)
        moved = grid + rng.uniform(-JITTER, JITTER, grid.shape) * spacing_px
        super().__init__(area, np.clip(np.rint(moved), first, last).astype(np.int64), farthest_px)

    def window(self, centre: Sequence[int], radius_px: float) -> Window:
        """Return the slices of a part of the grid with every candidate within `radius_px` of `centre`."""
        # Scalars: arrays of two elements would take five times as long, and this runs for every point.
        down, across = self._pitch
        rows = _around((centre[0] - self.area.top) / down, radius_px / down)
        columns = _around((centre[1] - self.area.left) / across, radius_px / across)
        return rows, columns


def _around(middle: float, reach: float) -> slice:
    """Return the cells within `reach` and one more: jitter and rounding move candidates by less than one."""
    return slice(max(math.floor(middle - reach) - 1, 0), max(math.ceil(middle + reach) + 2, 0))
