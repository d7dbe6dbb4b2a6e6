"""Sums on a plane that grows with the scan: squares of pixels, each made when something is added there."""

from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from operators.arrays import Array
from operators.geometry import Bounds

SIDE = 320  # pixels; a power of two would have the rows of a patch compete for places in the cache


class Blocks:
    """Layers of sums by absolute pixel, zero where nothing was added.

    What is there already is never moved: adding costs as much on a large plane as on a small one.

    Parameters
    ----------
    n_layers : int
    dtype : dtype

    Attributes
    ----------
    blocks : dict
        (layer, `SIDE`, `SIDE`) by row and column of blocks, that of pixel (0, 0) is (0, 0).
    """

    def __init__(self, n_layers: int, dtype: DTypeLike) -> None:
        self._shape, self._dtype = (n_layers, SIDE, SIDE), np.dtype(dtype)
        self.blocks: dict[tuple[int, int], NDArray[Any]] = {}

    def add(self, values: Array, bounds: Bounds) -> None:
        """Adds `values`, (layer, row, col), to the pixels of `bounds`."""
        for index, here, there in _pieces(bounds):
            if (block := self.blocks.get(index)) is None:
                block = self.blocks[index] = np.zeros(self._shape, self._dtype)
            sums = block[:, *there]
            np.add(sums, values[:, *here], out=sums)

    def take(self, other: "Blocks", factor: np.number[Any]) -> None:
        """Adds all of `other` times `factor`, of the same dtype; that one is not to be used any more."""
        for index, block in other.blocks.items():
            block *= factor
            if index in self.blocks:
                self.blocks[index] += block
            else:
                self.blocks[index] = block

    def product(self, values: Array, bounds: Bounds) -> complex:
        """Returns the inner product of `values`, (layer, row, col), and what is on `bounds`."""
        product = 0j
        for index, here, there in _pieces(bounds):
            if (block := self.blocks.get(index)) is not None:
                product += complex(np.vdot(values[:, *here], block[:, *there]))
        return product

    def on(self, bounds: Bounds, step: int = 1, layers: slice = slice(None)) -> NDArray[Any]:
        """Returns a copy of every `step`th row and column of `bounds`, (layer, row, col)."""
        n_rows, n_columns = (-(-n // step) for n in bounds.shape)
        n_layers = len(range(*layers.indices(self._shape[0])))
        sums = np.empty((n_layers, n_rows, n_columns), self._dtype)
        for index, here, there in _pieces(bounds, step):
            block = self.blocks.get(index)
            sums[:, *here] = 0 if block is None else block[layers, *there]
        return sums


Pieces: TypeAlias = list[tuple[tuple[int, int], tuple[slice, slice], tuple[slice, slice]]]


@lru_cache(maxsize=16)  # a patch is added to several sums
def _pieces(bounds: Bounds, step: int = 1) -> Pieces:
    """Return each block that has a share of `bounds` in steps, where that is in these, and in the block."""
    rows, columns = _along(bounds.top, bounds.bottom, step), _along(bounds.left, bounds.right, step)
    return [
        ((row, column), (from_row, from_column), (to_row, to_column))
        for row, from_row, to_row in rows
        for column, from_column, to_column in columns
    ]


def _along(start: int, stop: int, step: int) -> list[tuple[int, slice, slice]]:
    """Return the same along one axis."""
    pieces = []
    for block in range(start // SIDE, (stop - 1) // SIDE + 1):
        origin = block * SIDE
        last = min(stop, origin + SIDE)
        first, end = max(0, -((start - origin) // step)), -((start - last) // step)
        if first < end:
            there = slice(start + first * step - origin, last - origin, step)
            pieces.append((block, slice(first, end), there))
    return pieces
