"""How one piece of an image continues another: in phase, in slope and in amplitude.

Two reconstructions of the same ground differ by what patterns leave free, and by slow errors of phase. Where
both are known their quotient tells what one has to be multiplied by to go on where the other ends.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from operators.arrays import Array, Object
from operators.geometry import Bounds
from operators.optics.probe import probe_tilt

CELL_PX = 8  # over which phases are averaged before they are compared
LEAST_CELLS = 8  # from which on a slope is looked for
_LEAST_WEIGHT = 0.05  # of the best cell: the rim of the light
_CAUTION = 10.0  # times its variance: three standard deviations
_NARROWEST = 0.7  # cells; each scale of smoothing is twice as wide as the one before and counts a tenth
_SCALES, _WIDER, _FAR = 7, 0.1, 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """A phase that is linear in absolute object pixels.

    Parameters
    ----------
    offset : float, rad
        At pixel (0, 0).
    slope : (float, float), rad/pixel
        Along y and along x.
    """

    offset: float = 0.0
    slope: tuple[float, float] = (0.0, 0.0)

    def over(self, bounds: Bounds, step: int = 1) -> Object:
        """Returns its phase factors on every `step`th row and column of `bounds`, (row, col) complex64."""
        rows, columns = np.arange(bounds.top, bounds.bottom, step), np.arange(bounds.left, bounds.right, step)
        down = np.exp(1j * (self.offset + self.slope[0] * rows)).astype(np.complex64)
        return down[:, None] * np.exp(1j * self.slope[1] * columns).astype(np.complex64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Joint:
    """What an image is multiplied by so that it continues another one.

    Parameters
    ----------
    plane : Plane
        The phase by which they differ over all common ground.
    scale : float
        Of amplitudes.
    first_cell : (int, int)
        Cell of `rest[0, 0]`; cell (0, 0) begins at absolute pixel (0, 0).
    rest : (row, col) complex64
        Phase factor of each cell that the plane leaves. Away from the common ground they level off.
    """

    plane: Plane
    scale: float
    first_cell: tuple[int, int]
    rest: Object

    def over(self, bounds: Bounds) -> Object:
        """Returns the factors on `bounds`, (row, col) complex64."""
        rest = self.rest
        for n, start, first in zip(bounds.shape, bounds.origin, self.first_cell, strict=True):
            rest = _interpolated(rest, (np.arange(n) + start + 0.5) / CELL_PX - 0.5 - first).T
        rest *= np.float32(self.scale) / np.abs(rest)
        rest *= self.plane.over(bounds)
        return rest

    def at(self, places: Array) -> Object:
        """Returns the factors at `places`, (point, 2) absolute pixels, (point,) complex."""
        where = (places + 0.5) / CELL_PX - 0.5 - np.array(self.first_cell)
        rest = map_coordinates(self.rest, where.T, order=1, mode="nearest")
        plane = np.exp(1j * (self.plane.offset + places @ np.array(self.plane.slope)))
        return plane * self.scale * (rest / np.abs(rest))


def _interpolated(values: Object, rows: Array) -> Object:
    """Return `values` (row, col) at `rows`, (point,), between the cells; beyond them the outermost."""
    rows = np.clip(rows, 0, len(values) - 1)
    above = np.minimum(rows.astype(np.int64), max(len(values) - 2, 0))
    share = (rows - above).astype(np.float32)[:, None]
    return values[above] * (1 - share) + values[np.minimum(above + 1, len(values) - 1)] * share


def join(wanted: Object, there: Object, weights: Array, bounds: Bounds, room: Bounds, step: int) -> Joint:
    """Returns what makes one image continue another.

    Parameters
    ----------
    wanted, there : (row, col) complex64
        On common ground; the second is to continue the first.
    weights : (row, col) float32
        How far each pixel of both is to be believed; 0 where one of them is not known.
    bounds : Bounds
        Absolute pixels of the common ground, of which the arrays hold every `step`th row and column.
    room : Bounds
        Absolute pixels that the second image covers.
    step : int
    """
    product = wanted * there.conj() * weights
    plane = plane_between(product, bounds, step)
    cells, first = _cells(product * plane.over(bounds, step).conj(), bounds, step)
    top, left = (start // CELL_PX for start in room.origin)
    canvas = np.zeros((room.bottom // CELL_PX + 1 - top, room.right // CELL_PX + 1 - left), np.complex128)
    canvas[first[0] - top :, first[1] - left :][: cells.shape[0], : cells.shape[1]] = cells
    canvas /= max(np.abs(cells).max(initial=0), 1e-30)
    rest = sum(
        _WIDER**level * gaussian_filter(canvas, _NARROWEST * 2**level, mode="constant")
        for level in range(_SCALES)
    )
    # Where nothing common is near, the plane alone.
    rest = rest + _FAR
    scale = float((np.abs(wanted) * weights).sum() / max(float((np.abs(there) * weights).sum()), 1e-30))
    return Joint(
        plane=plane,
        scale=scale or 1.0,
        first_cell=(top, left),
        rest=(rest / np.abs(rest)).astype(np.complex64),
    )


def plane_between(product: Object, bounds: Bounds, step: int = 1) -> Plane:
    """Returns the phase plane by which an image differs from another.

    Parameters
    ----------
    product : (row, col) complex64
        The one times the conjugate of the other times the weight of each pixel.
    bounds : Bounds
        Absolute pixels of which `product` holds every `step`th row and column.
    step : int

    Notes
    -----
    Along either axis of the common ground a slope is shrunk, to nothing if it is within three standard
    deviations of what phases that wander make by chance (James and Stein, 1961): a plane goes on beyond the
    ground that it was fitted to, and the shorter that is the less is known about it.
    """
    steps = probe_tilt(product[None]).astype(np.float64) / step  # need no unwrapping
    ramp = Plane(slope=(float(steps[0]), float(steps[1])))
    cells, first = _cells(product * ramp.over(bounds, step).conj(), bounds, step)
    weights = np.abs(cells)
    weights[weights <= _LEAST_WEIGHT * weights.max(initial=0)] = 0
    slope = np.zeros(2)
    if np.count_nonzero(weights) >= LEAST_CELLS:
        places = CELL_PX * (np.moveaxis(np.indices(cells.shape), 0, -1) + first + 0.5)
        slope = _slope(places, np.angle(cells * np.conj(cells.sum())) + places @ steps, weights)
    found = Plane(slope=(float(slope[0]), float(slope[1])))
    offset = float(np.angle((product * found.over(bounds, step).conj()).sum()))
    return Plane(offset=offset, slope=found.slope)


def _slope(places: Array, phases: Array, weights: Array) -> Array:
    """Return the slope of `phases` (row, col) over `places` (row, col, 2) as far as it is no chance, (2,)."""
    where, roots = weights > 0, np.sqrt(weights)
    places = places - np.average(places, axis=(0, 1), weights=weights)
    phases = phases - np.average(phases, weights=weights)
    basis, sizes, axes = np.linalg.svd(roots[where][:, None] * places[where], full_matrices=False)
    found = basis.T @ (roots * phases)[where]
    left = roots * phases
    left[where] -= basis @ found
    variance = _independent(left) * (left**2).sum() / (np.count_nonzero(where) - 3)
    kept = np.maximum(1 - _CAUTION * variance / np.maximum(found**2, 1e-30), 0) * found
    return axes.T @ np.divide(kept, sizes, out=np.zeros(2), where=sizes > 1e-6 * sizes[0])


def _independent(values: Array) -> float:
    """Return how many neighbours of `values` (row, col) say the same, 1 where each stands for itself.

    Phases that wander do so over many cells. If their correlation falls exponentially along rows and columns,
    as that of a random walk that is held back, neighbours tell how far it reaches.
    """
    pairs = [(values[1:], values[:-1]), (values[:, 1:], values[:, :-1])]
    together = sum(float((a * b).sum()) for a, b in pairs)
    alone = sum(float((a**2 + b**2).sum()) / 2 for a, b in pairs)
    correlation = np.clip(together / max(alone, 1e-30), 0, 0.95)
    return float(((1 + correlation) / (1 - correlation)) ** 2)


def _cells(values: Object, bounds: Bounds, step: int) -> tuple[Object, tuple[int, int]]:
    """Return the sums of `values`, of every `step`th pixel of `bounds`, over cells, and the first cell."""
    for axis, (start, stop) in enumerate(((bounds.top, bounds.bottom), (bounds.left, bounds.right))):
        cells = np.arange(start, stop, step) // CELL_PX
        values = np.add.reduceat(values, np.flatnonzero(np.diff(cells, prepend=cells[0] - 1)), axis=axis)
    return values, (bounds.top // CELL_PX, bounds.left // CELL_PX)
