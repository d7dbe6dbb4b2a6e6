"""What the live image says about the sample, averaged over squares of a few pixels: the maps decisions use.

The only part of steering that reads whole images: it is kept up to date where the image changed, and
everything after it handles maps sixty-four times smaller.
"""

import numpy as np
from numpy.typing import NDArray

from operators.arrays import Array, Object, abs2
from operators.geometry import Bounds
from operators.mosaic.mosaic import phase_variance

Map = NDArray[np.float32]
_TINY = 1e-6


class SuperPixels:
    """Maps (row, col) of squares of `cell_px` pixels; absolute square (0, 0) begins at pixel (0, 0).

    Attributes
    ----------
    photons : float32
        Mean photons per pixel that the sample let through, N |O|^2: what the phase is known from.
    variance : float32, rad^2
        Mean squared standard uncertainty of the phase, over the known pixels.
    structure : float32, rad^2
        Mean squared phase step to the next pixel, down and right together; noise included.
    coverage : float32
        Fraction of the pixels about which something is known.

    Parameters
    ----------
    area : Bounds
        Absolute object pixels to keep maps of.
    cell_px : int
        Side of a square.
    """

    def __init__(self, area: Bounds, cell_px: int = 8) -> None:
        self.cell_px = cell_px
        self.cells = _cells_that_touch(area, cell_px)
        self.bounds = _pixels_of(self.cells, cell_px)
        self.photons, self.variance, self.structure, self.coverage = np.zeros(
            (4, *self.cells.shape), np.float32
        )

    @property
    def floor(self) -> Map:
        """The variance that photon noise alone would leave, (row, col) float32, rad^2."""
        return phase_variance(self.photons)

    @property
    def model_variance(self) -> Map:
        """The variance beyond photon noise, (row, col) float32, rad^2.

        It is what more computing or another view could remove.
        """
        return np.maximum(self.variance - self.floor, 0)

    def cell_of(self, centres: Array) -> NDArray[np.int64]:
        """Return the index into a flattened map of the square under each absolute pixel, (point,) int64."""
        cells = np.floor_divide(np.asarray(centres, np.int64), self.cell_px) - self.cells.origin
        rows, columns = np.clip(cells, 0, np.array(self.cells.shape) - 1).T
        return rows * self.cells.shape[1] + columns

    def update(
        self, object_: Object, sigma: Array, photons: Array, bounds: Bounds, changed: Bounds | None = None
    ) -> None:
        """Take what an image says about the pixels `changed`, all of it unless given.

        Parameters
        ----------
        object_ : (row, col) complex64
            0 where nothing is known.
        sigma : (row, col) float32, radians
        photons : (row, col) float32
        bounds : Bounds
            Absolute object pixels that the arrays cover.
        changed : Bounds, optional
            Absolute object pixels outside which nothing is new.
        """
        window = self.bounds.intersection(bounds if changed is None else changed)
        window = None if window is None else window.intersection(bounds)
        if window is None:
            return
        side = self.cell_px
        cells = _cells_that_touch(window, side)
        pixels = _pixels_of(cells, side)
        here = _cut(object_, bounds, Bounds(pixels.top, pixels.left, pixels.bottom + 1, pixels.right + 1))
        steps, n_steps = _squared_phase_steps(here)
        here = here[:-1, :-1]
        known = here != 0
        variance = np.where(known, _cut(sigma, bounds, pixels), 0) ** 2
        coverage = block_mean(known, side)
        means = {
            "coverage": coverage,
            "photons": block_mean(_cut(photons, bounds, pixels) * np.abs(here) ** 2, side),
            "variance": block_mean(variance, side) / np.maximum(coverage, _TINY),
            "structure": block_mean(steps, side) / np.maximum(block_mean(n_steps, side) / 2, _TINY),
        }
        for name, values in means.items():
            getattr(self, name)[cells.slices_in(self.cells)] = values


def block_mean(values: Array, side: int) -> Map:
    """Return the mean over squares of `side` pixels, (row, col) float32.

    `values` is (row, col), bool or real; its shape must hold whole squares.
    """
    n_rows, n_columns = (n // side for n in values.shape)
    # A matrix product is twenty times faster than a mean over strided axes.
    along = values.astype(np.float32, copy=False).reshape(-1, side) @ np.ones(side, np.float32)
    mean: Map = along.reshape(n_rows, side, n_columns).sum(axis=1) / np.float32(side**2)
    return mean


def _squared_phase_steps(object_: Object) -> tuple[Map, NDArray[np.int8]]:
    """Return squared phase steps to the pixels below and right, and how many of the two are known."""
    modulus = np.abs(object_)
    known = modulus > 0
    phasor = object_ / np.where(known, modulus, 1)
    here, is_known = phasor[:-1, :-1], known[:-1, :-1]
    steps = np.zeros(here.shape, np.float32)
    n_steps = np.zeros(here.shape, np.int8)
    for there, is_there in ((phasor[1:, :-1], known[1:, :-1]), (phasor[:-1, 1:], known[:-1, 1:])):
        both = is_known & is_there
        # |exp(ia) - exp(ib)|^2 = 2 - 2 cos(a - b): the squared step where it is small, without an arctangent
        steps += np.where(both, abs2(there - here), 0)
        n_steps += both
    return steps, n_steps


def _cells_that_touch(area: Bounds, side: int) -> Bounds:
    return Bounds(area.top // side, area.left // side, -(-area.bottom // side), -(-area.right // side))


def _pixels_of(cells: Bounds, side: int) -> Bounds:
    return Bounds(cells.top * side, cells.left * side, cells.bottom * side, cells.right * side)


def _cut(layer: Array, bounds: Bounds, window: Bounds) -> Array:
    """Return a layer that covers `bounds` on `window`, 0 beyond its edges."""
    shared = bounds.intersection(window)
    if shared == window:
        return layer[window.slices_in(bounds)]
    cut = np.zeros(window.shape, layer.dtype)
    if shared is not None:
        cut[shared.slices_in(window)] = layer[shared.slices_in(bounds)]
    return cut
