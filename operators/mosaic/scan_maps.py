"""Maps of what single frames say (`operators.optics.moments`), each value where its probe was.

NumPy alone: clients make them as well.
"""

import numpy as np
from numpy.typing import NDArray

from operators.arrays import Positions
from operators.geometry import Bounds

MAPS = ("intensity", "gradient_y", "gradient_x", "dpc", "dark_field")
"""Photons of a frame; gradient of the phase, rad per object pixel; its integral, rad; width of the pattern,
pixels of it."""
_REACH = 0.6  # standard deviation of a value's surroundings, steps of the scan
_TAPS = 3  # cells to either side that it goes
_ASKED = 64  # frames that are asked for their neighbours
_LEAST = 0.02  # weight of the nearest value from which on a cell is known


def scan_maps(
    moments: NDArray[np.float32], centres_px: Positions, bounds: Bounds, n_pixels: int
) -> tuple[dict[str, NDArray[np.float32]], float]:
    """Return the maps of a scan, each (row, col) float32, NaN where no frame is near, and the side of a cell.

    Parameters
    ----------
    moments : (frame, 4) float32, as of `operators.optics.moments.moments`
    centres_px : (frame, 2) float, absolute object pixels (y, x), in the order of the scan
    bounds : Bounds
        Absolute object pixels that the maps cover, from the corner of cell [0, 0] on.
    n_pixels : int
        Side of the patterns.
    """
    cell_px = scan_step_px(centres_px) / 2
    photons, y, x, width = placed(moments, centres_px, bounds, cell_px)
    rad, known = np.float32(2 * np.pi / n_pixels), np.isfinite(y)
    # A beam beside the middle of the detector is no slope of the sample.
    gradient_y, gradient_x = (rad * (k - k[known].sum() / np.float32(max(known.sum(), 1))) for k in (y, x))
    return {
        "intensity": photons,
        "gradient_y": gradient_y,
        "gradient_x": gradient_x,
        "dpc": integrated(gradient_y * np.float32(cell_px), gradient_x * np.float32(cell_px)),
        "dark_field": width,
    }, cell_px


def on_pixels(
    cells: NDArray[np.float32], cell_px: float, shape: tuple[int, int], pixel_px: float = 1.0
) -> NDArray[np.float32]:
    """Return a map of cells on pixels, (row, col) of `shape`: each has the value of the cell it lies in.

    Parameters
    ----------
    cells : (row, col) float32, as of `scan_maps`
    cell_px, pixel_px : float
        Sides of a cell and of a pixel, object pixels.
    shape : (int, int)
    """
    rows, columns = (
        np.minimum(((np.arange(n) + 0.5) * pixel_px / cell_px).astype(np.int64), n_cells - 1)
        for n, n_cells in zip(shape, cells.shape, strict=True)
    )
    return cells[rows[:, None], columns]


def scan_step_px(centres_px: Positions) -> float:
    """Return how far apart the positions of a scan lie, pixels, at least 1.

    Parameters
    ----------
    centres_px : (frame, 2) float

    Notes
    -----
    The median distance of nearest neighbours or, where lines are flown densely, the side of a frame's share
    of the field.
    """
    centres = np.asarray(centres_px, np.float64)
    if len(centres) < 2:
        return 1.0
    asked = centres[np.unique(np.linspace(0, len(centres) - 1, _ASKED).astype(np.int64))]
    squared = ((asked[:, None] - centres) ** 2).sum(axis=2)
    squared[squared == 0] = np.inf  # itself, or a place that was lit again
    nearest = np.sqrt(squared.min(axis=1))
    nearest = float(np.median(nearest[np.isfinite(nearest)])) if np.isfinite(nearest).any() else 1.0
    return max(nearest, float(np.sqrt(np.ptp(centres, axis=0).prod() / len(centres))), 1.0)


def placed(
    values: NDArray[np.float32], centres_px: Positions, bounds: Bounds, cell_px: float
) -> NDArray[np.float32]:
    """Return maps of values, (value, row, col) float32, NaN where no position is near.

    Parameters
    ----------
    values : (frame, value) float
    centres_px : (frame, 2) float, object pixels (y, x)
    bounds : Bounds
        Object pixels that the maps cover.
    cell_px : float
        Side of a cell of the maps, object pixels.
    """
    shape = tuple(max(int(np.ceil(side / cell_px)), 1) for side in bounds.shape)
    cells = np.floor((np.asarray(centres_px) - bounds.origin) / cell_px).astype(np.int64)
    inside = ((cells >= 0) & (cells < shape)).all(axis=1) & np.isfinite(values).all(axis=1)
    flat = np.ravel_multi_index(tuple(cells[inside].T), shape)
    n_cells = shape[0] * shape[1]
    columns = [np.ones(len(flat)), *np.asarray(values, np.float64)[inside].T]
    sums: NDArray[np.float64] = np.stack(
        [np.bincount(flat, column, n_cells).reshape(shape).astype(float) for column in columns]
    )
    spread = _blurred(_blurred(sums, axis=1), axis=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        maps = spread[1:] / spread[0]
    maps[:, spread[0] < _LEAST] = np.nan
    return maps.astype(np.float32)


def _blurred(maps: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    out = np.zeros_like(maps)
    for tap in range(-_TAPS, _TAPS + 1):
        weight = np.exp(-((tap / (2 * _REACH)) ** 2) / 2)  # two cells to a step
        source, target = [slice(None)] * 3, [slice(None)] * 3
        source[axis] = slice(max(-tap, 0), maps.shape[axis] - max(tap, 0))
        target[axis] = slice(max(tap, 0), maps.shape[axis] - max(-tap, 0))
        out[tuple(target)] += weight * maps[tuple(source)]
    return out


def integrated(gradient_y: NDArray[np.float32], gradient_x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the map whose gradient is nearest to the two, without its mean; NaN where they are.

    Parameters
    ----------
    gradient_y, gradient_x : (row, col) float32, per cell; NaN where unknown

    Notes
    -----
    Least squares by Fourier transform (Frankot and Chellappa, IEEE PAMI 10, 439 (1988)) of the mirrored maps,
    so that opposite edges do not have to agree. Without the mean gradient, and taken as flat where unknown.
    """
    known = np.isfinite(gradient_y) & np.isfinite(gradient_x)
    if not known.any():
        return np.full(gradient_y.shape, np.nan, np.float32)
    y, x = (np.where(known, g - g[known].mean(), 0).astype(np.float64) for g in (gradient_y, gradient_x))
    y = np.block([[y, y[:, ::-1]], [-y[::-1], -y[::-1, ::-1]]])
    x = np.block([[x, -x[:, ::-1]], [x[::-1], -x[::-1, ::-1]]])
    ky = 2j * np.pi * np.fft.fftfreq(y.shape[0])[:, None]
    kx = 2j * np.pi * np.fft.fftfreq(y.shape[1])[None]
    squared = (np.abs(ky) ** 2 + np.abs(kx) ** 2).clip(1e-12)
    potential = np.fft.ifft2((np.conj(ky) * np.fft.fft2(y) + np.conj(kx) * np.fft.fft2(x)) / squared).real
    potential = potential[: known.shape[0], : known.shape[1]]
    return np.where(known, potential - potential[known].mean(), np.nan).astype(np.float32)
