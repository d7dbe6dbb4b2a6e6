"""Ground of a mosaic that hangs together in phase.

A patch that hardly overlaps what is there begins an island, whose phase is a guess until a later patch lies
on both. Then the smaller of the two is turned, exactly, since each island keeps the sums of its own patches;
where islands overlap the mosaic is the sum of both.
"""

import numpy as np
from numpy.typing import NDArray

from operators.arrays import Array, Object, phase_factor
from operators.geometry import Bounds

LEAST_TIE = 0.05
"""How far a patch has to agree with an island to be part of it, in units of how it agrees with itself. The
rim of its light does not tell a phase: there it is least to be believed."""


class Island:
    """Weighted sums of patches that agree in phase, on a canvas that grows with them.

    Attributes
    ----------
    bounds : Bounds
        Absolute pixels of `sums`.
    sums : (row, col) complex64
    n_patches : int
    """

    def __init__(self, bounds: Bounds) -> None:
        self.bounds, self.sums, self.n_patches = bounds, np.zeros(bounds.shape, np.complex64), 0

    def add(self, sums: Array, bounds: Bounds, n_patches: int = 1) -> None:
        """Adds the sums of patches that are in its phase."""
        if not self.bounds.contains(bounds):
            # Growing copies the canvas: a margin makes it rare.
            grown = self.bounds.reaching(bounds, max(self.bounds.union(bounds).shape) // 8)
            old, self.sums = self.sums, np.zeros(grown.shape, np.complex64)
            self.sums[self.bounds.slices_in(grown)] = old
            self.bounds = grown
        self.sums[bounds.slices_in(self.bounds)] += sums
        self.n_patches += n_patches


class Islands:
    """All islands of a mosaic; its length is how many there are."""

    def __init__(self) -> None:
        self._islands: list[Island] = []
        # (island, 4) int64, their bounds: of hundreds, those under a patch are found at once
        self._edges = np.zeros((0, 4), np.int64)

    def __len__(self) -> int:
        return len(self._islands)

    def sums_on(self, bounds: Bounds, step: int = 1) -> Object:
        """Returns the sums of all islands on every `step`th row and column of `bounds`, complex64."""
        sums = np.zeros(bounds.shape, np.complex64)[::step, ::step]
        for index in self._touched_by(bounds):
            island = self._islands[index]
            if (shared := bounds.intersection(island.bounds)) is not None:
                start = np.subtract(shared.origin, bounds.origin)
                (top, left), (row, column) = -start % step, -(-start // step)
                there = island.sums[shared.slices_in(island.bounds)][top::step, left::step]
                sums[row : row + there.shape[0], column : column + there.shape[1]] += there
        return sums

    def place(self, patch: Array, weights: Array, believed: Array, bounds: Bounds) -> list[Bounds]:
        """Adds a patch in the phase of the largest island that it lies on, or begins one.

        Returns the absolute pixels of the other islands that it lies on: they have been turned and are part
        of that one.

        Parameters
        ----------
        patch : (y, x) complex64
        weights : (y, x) float32
            Of its pixels in the sums.
        believed : (y, x) float32
            How far its pixels tell a phase.
        bounds : Bounds
            Absolute pixels of the patch.
        """
        seen, sums = patch * believed, patch * weights
        ties = self._ties(seen, bounds)
        least = LEAST_TIE * float(np.vdot(seen, sums).real)
        told = [(island, tie) for island, tie in ties if abs(tie) > least]
        turned = []
        if told:
            (island, tie), *others = told
            turned = [self._merge(other, island, phase_factor(tie * its.conj())) for other, its in others]
        else:
            island, tie = self._begin(bounds), sum((tie for _, tie in ties), np.complex64(0))
        self._add(island, phase_factor(tie) * sums, bounds)
        return turned

    def place_unturned(self, patch: Array, weights: Array, bounds: Bounds) -> None:
        """Adds a patch that is in the phase of all others already."""
        if not self._islands:
            self._begin(bounds)
        self._add(self._islands[0], patch * weights, bounds)

    def _begin(self, bounds: Bounds) -> Island:
        self._islands.append(Island(bounds))
        self._edges = np.vstack([self._edges, _edges(bounds)])
        return self._islands[-1]

    def _add(self, island: Island, sums: Array, bounds: Bounds, n_patches: int = 1) -> None:
        before = island.bounds
        island.add(sums, bounds, n_patches)
        if island.bounds is not before:
            self._edges[self._islands.index(island)] = _edges(island.bounds)

    def _touched_by(self, bounds: Bounds) -> list[int]:
        """Return which islands share a pixel with `bounds`."""
        top, left, bottom, right = self._edges.T
        is_touched = (top < bounds.bottom) & (bottom > bounds.top) & (left < bounds.right)
        return [int(index) for index in np.flatnonzero(is_touched & (right > bounds.left))]

    def _ties(self, seen: Array, bounds: Bounds) -> list[tuple[Island, np.complex64]]:
        """Return the islands under a patch, the largest first, and their inner products with it."""
        ties = []
        for index in self._touched_by(bounds):
            island = self._islands[index]
            if (shared := bounds.intersection(island.bounds)) is not None:
                under = island.sums[shared.slices_in(island.bounds)]
                ties.append((island, np.vdot(seen[shared.slices_in(bounds)], under)))
        return sorted(ties, key=lambda tie: tie[0].n_patches, reverse=True)

    def _merge(self, other: Island, island: Island, turn: np.complex64) -> Bounds:
        index = self._islands.index(other)
        del self._islands[index]
        self._edges = np.delete(self._edges, index, axis=0)
        self._add(island, turn * other.sums, other.bounds, other.n_patches)
        return other.bounds


def _edges(bounds: Bounds) -> NDArray[np.int64]:
    return np.array([bounds.top, bounds.left, bounds.bottom, bounds.right], np.int64)
