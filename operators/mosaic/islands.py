"""Ground of a mosaic that hangs together in phase.

A patch that hardly overlaps what is there begins an island, whose phase is a guess until a later patch lies
on both. Then the smaller of the two is turned, exactly, since each island keeps the sums of its own patches;
where islands overlap the mosaic is the sum of both.
"""

import numpy as np
from numpy.typing import NDArray

from operators.arrays import Array, Object
from operators.geometry import Bounds
from operators.mosaic.blocks import Blocks

LEAST_TIE = 0.05
"""How far a patch has to agree with an island to be part of it, in units of how it agrees with itself. The
rim of its light does not tell a phase: there it is least to be believed."""


class Island:
    """Weighted sums of patches that agree in phase.

    Attributes
    ----------
    bounds : Bounds
        Absolute pixels beyond which nothing was added.
    sums : Blocks
        One layer, complex64.
    n_patches : int
    """

    def __init__(self, bounds: Bounds) -> None:
        self.bounds, self.sums, self.n_patches = bounds, Blocks(1, np.complex64), 0

    def add(self, sums: Array, bounds: Bounds) -> None:
        """Adds the sums of a patch that is in its phase, (row, col) complex64."""
        self.sums.add(sums[None], bounds)
        self._reach(bounds, 1)

    def take(self, other: "Island", turn: np.complex64) -> None:
        """Adds another island, turned by a phase factor; that one is not to be used any more."""
        self.sums.take(other.sums, turn)
        self._reach(other.bounds, other.n_patches)

    def _reach(self, bounds: Bounds, n_patches: int) -> None:
        if not self.bounds.contains(bounds):
            self.bounds = self.bounds.union(bounds)
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
        first, *others = self._touched_by(bounds) or [Island(bounds)]
        sums = first.sums.on(bounds, step)[0]
        for island in others:
            sums += island.sums.on(bounds, step)[0]
        return sums

    def place(self, seen: Array, sums: Array, bounds: Bounds) -> list[Bounds]:
        """Adds a patch in the phase of the largest island that it lies on, or begins one.

        Returns the absolute pixels of the other islands that it lies on: they have been turned and are part
        of that one.

        Parameters
        ----------
        seen : (y, x) complex64
            The patch, by how far its pixels tell a phase.
        sums : (y, x) complex64
            The patch, by its weight in the sums.
        bounds : Bounds
            Absolute pixels of the patch.
        """
        ties = self._ties(seen, bounds)
        least = LEAST_TIE * float(np.vdot(seen, sums).real)
        told = [(island, tie) for island, tie in ties if abs(tie) > least]
        turned = []
        if told:
            (island, tie), *others = told
            turned = [self._merge(other, island, _phase(tie * its.conjugate())) for other, its in others]
        else:
            island, tie = self._begin(bounds), sum((tie for _, tie in ties), 0j)
        self._add(island, _phase(tie) * sums, bounds)
        return turned

    def add(self, sums: Array, bounds: Bounds) -> None:
        """Adds the sums of a patch that is in the phase of all others already."""
        if not self._islands:
            self._begin(bounds)
        self._add(self._islands[0], sums, bounds)

    def _begin(self, bounds: Bounds) -> Island:
        self._islands.append(Island(bounds))
        self._edges = np.vstack([self._edges, _edges(bounds)])
        return self._islands[-1]

    def _add(self, island: Island, sums: Array, bounds: Bounds) -> None:
        before = island.bounds
        island.add(sums, bounds)
        if island.bounds is not before:
            self._edges[self._islands.index(island)] = _edges(island.bounds)

    def _touched_by(self, bounds: Bounds) -> list[Island]:
        """Return the islands whose bounds share a pixel with `bounds`, or the only one."""
        if len(self._islands) == 1:  # as a rule
            return self._islands[:]
        top, left, bottom, right = self._edges.T
        is_touched = (top < bounds.bottom) & (bottom > bounds.top) & (left < bounds.right)
        return [self._islands[index] for index in np.flatnonzero(is_touched & (right > bounds.left))]

    def _ties(self, seen: Array, bounds: Bounds) -> list[tuple[Island, complex]]:
        """Return the islands under a patch, the largest first, and their inner products with it."""
        islands = self._touched_by(bounds)
        ties = [(island, island.sums.product(seen[None], bounds)) for island in islands]
        return sorted(ties, key=lambda tie: tie[0].n_patches, reverse=True)

    def _merge(self, other: Island, island: Island, turn: np.complex64) -> Bounds:
        index = self._islands.index(other)
        del self._islands[index]
        self._edges = np.delete(self._edges, index, axis=0)
        island.take(other, turn)
        self._edges[self._islands.index(island)] = _edges(island.bounds)
        return other.bounds


def _phase(tie: complex) -> np.complex64:
    """Return tie / |tie|, 1 where it is 0."""
    return np.complex64(tie / abs(tie) if tie else 1)


def _edges(bounds: Bounds) -> NDArray[np.int64]:
    return np.array([bounds.top, bounds.left, bounds.bottom, bounds.right], np.int64)
