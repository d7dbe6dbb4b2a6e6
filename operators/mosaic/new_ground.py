"""Which patches show the most ground that no other has shown: what goes first when there is no time for all.

Ground only ever becomes known, so what a patch would add only falls. A queue by what it was last found to add
therefore finds the best without looking at all: a patch is looked at again only when it comes to the front,
and at most once for every step that it falls by, however many wait.
"""

import heapq

import numpy as np
from numpy.typing import NDArray

from operators.arrays import Array, Corners
from operators.geometry import Bounds
from operators.mosaic.light import lit_part
from operators.mosaic.mosaic import KNOWN_FRACTION

N_STEPS = 8
"""In which new ground is told apart, none of what a patch lights to all; within one the older go first."""
_CELLS = 32  # across the light, at most: a larger beam is looked at more coarsely, at the same cost


class NewGround:
    """The ground that is known, and the patches that wait, by how much each would add.

    Parameters
    ----------
    illumination : (y, x) float32, photons
        |P|^2 summed over modes. A patch shows the pixels where it exceeds `KNOWN_FRACTION` of its peak.
    """

    def __init__(self, illumination: Array) -> None:
        part = lit_part(illumination, KNOWN_FRACTION)
        lit = illumination > KNOWN_FRACTION * illumination.max()
        lit = lit[part.top : part.bottom, part.left : part.right]
        self._cell_px = -(-max(lit.shape) // _CELLS)
        self._first = np.array(part.origin)
        self._lit = _coarse(lit, self._cell_px)
        self._n_lit = int(np.count_nonzero(self._lit))
        self._bounds: Bounds | None = None  # in cells
        self._is_known = np.zeros((0, 0), bool)
        self._queue: list[tuple[int, int, int, int]] = []  # steps known, number, cell

    def show(self, corners: Corners) -> None:
        """Notes that patches at `corners`, (frame, 2) int64, absolute object pixels, are known."""
        cells = self._cells(corners)
        if len(cells):
            self._grow(cells)
        for row, column in cells.tolist():
            self._window(row, column)[self._lit] = True

    def wait(self, numbers: NDArray[np.int64], corners: Corners) -> None:
        """Adds patches that could be shown, by number, (frame,) int64; corners as for `show`."""
        cells = self._cells(corners)
        if len(cells):
            self._grow(cells)
        for number, (row, column) in zip(numbers.tolist(), cells.tolist(), strict=True):
            self._put(self._steps_known(row, column), number, row, column)

    def first(self, n_most: int) -> list[int]:
        """Returns the numbers of up to `n_most` that show the most new ground one after the other.

        Each counts as shown from here on, and waits no longer; nor do those that would show nothing new.
        """
        chosen: list[int] = []
        while self._queue and len(chosen) < n_most:
            was_known, number, row, column = heapq.heappop(self._queue)
            is_known = self._steps_known(row, column)
            if is_known > was_known:
                self._put(is_known, number, row, column)
                continue
            self._window(row, column)[self._lit] = True
            chosen.append(number)
        return chosen

    def _put(self, steps_known: int, number: int, row: int, column: int) -> None:
        if steps_known < N_STEPS:
            heapq.heappush(self._queue, (steps_known, number, row, column))

    def _steps_known(self, row: int, column: int) -> int:
        """Return how much of what a patch at these cells lights is known, 0 to `N_STEPS`, rounded down."""
        n_known = int(np.count_nonzero(self._window(row, column) & self._lit))
        return N_STEPS * n_known // self._n_lit

    def _window(self, row: int, column: int) -> Array:
        assert self._bounds is not None  # noqa: S101 -- made room for before
        top, left = row - self._bounds.top, column - self._bounds.left
        return self._is_known[top : top + self._lit.shape[0], left : left + self._lit.shape[1]]

    def _cells(self, corners: Corners) -> Corners:
        return (np.asarray(corners) + self._first + self._cell_px // 2) // self._cell_px

    def _grow(self, cells: Corners) -> None:
        bounds = Bounds.of_windows(cells, max(self._lit.shape))
        if self._bounds is not None and self._bounds.contains(bounds):
            return
        old, held = self._bounds, self._is_known
        # Growing copies what is known: a margin makes it rare.
        union = bounds if old is None else old.union(bounds)
        self._bounds = union.padded(max(union.shape) // 8 + 1)
        self._is_known = np.zeros(self._bounds.shape, bool)
        if old is not None:
            self._is_known[old.slices_in(self._bounds)] = held


def _coarse(lit: Array, cell_px: int) -> NDArray[np.bool_]:
    """Return which cells of (y, x) bool are lit for the most part."""
    n_rows, n_columns = (-(-side // cell_px) for side in lit.shape)
    padded = np.zeros((n_rows * cell_px, n_columns * cell_px), np.float32)
    padded[: lit.shape[0], : lit.shape[1]] = lit
    share = padded.reshape(n_rows, cell_px, n_columns, cell_px).mean(axis=(1, 3))
    return share >= 0.5
