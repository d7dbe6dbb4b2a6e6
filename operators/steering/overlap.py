"""Which frames overlap enough to be refined together.

A frame that shares no ground with others has no constraint but itself, and the network's patch is all that
is known there.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from operators.arrays import Corners


class OverlapGraph:
    """Frames as they come, joined where they are at most `reach_px` apart.

    Parameters
    ----------
    reach_px : float
        Largest distance of two frames that overlap enough: (1 - overlap) x diameter of the probe.
    n_least : int
        Frames a connected group needs before it can be refined, 2 or more.

    Notes
    -----
    Frames are looked up by squares of the size of the reach, and of two groups that meet the smaller one is
    renamed (Hopcroft & Ullman, SIAM J. Comput. 2 (1973) 294): the cost of a frame does not grow with the
    scan.
    """

    def __init__(self, reach_px: float, n_least: int = 9) -> None:
        self.reach_px, self.n_least = reach_px, n_least
        self._centres: list[tuple[int, int]] = []
        self._squares: dict[tuple[int, int], list[int]] = defaultdict(list)
        self._group: list[int] = []
        self._members: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return len(self._centres)

    @property
    def centres(self) -> Corners:
        """Centres of all frames, (frame, 2) int64."""
        return np.array(self._centres, np.int64).reshape(-1, 2)

    @property
    def last(self) -> tuple[int, int] | None:
        """Centre of the last frame."""
        return self._centres[-1] if self._centres else None

    def add(self, centre: Sequence[int]) -> list[tuple[int, int]]:
        """Join one more frame with those it overlaps; return the centres that this made refinable."""
        row, column = int(centre[0]), int(centre[1])
        touched = self._touched(row, column)
        frame = len(self._centres)
        self._centres.append((row, column))
        self._squares[self._square(row, column)].append(frame)
        self._group.append(frame)
        self._members[frame] = [frame]
        return [self._centres[member] for member in self._join({frame, *touched})]

    def _join(self, groups: set[int]) -> list[int]:
        """Make one group of several; return its members that were not refinable before."""
        largest = max(groups, key=lambda group: len(self._members[group]))
        joined = self._members[largest]
        new = [] if len(joined) >= self.n_least else joined.copy()
        for group in groups - {largest}:
            members = self._members.pop(group)
            if len(members) < self.n_least:
                new += members
            for member in members:
                self._group[member] = largest
            joined += members
        return new if len(joined) >= self.n_least else []

    def _touched(self, row: int, column: int) -> set[int]:
        """Return the groups of the frames within the reach."""
        (top, left), reach2, centres = self._square(row, column), self.reach_px**2, self._centres
        return {
            self._group[frame]
            for i in (top - 1, top, top + 1)
            for j in (left - 1, left, left + 1)
            for frame in self._squares.get((i, j), ())
            if (centres[frame][0] - row) ** 2 + (centres[frame][1] - column) ** 2 <= reach2
        }

    def _square(self, row: int, column: int) -> tuple[int, int]:
        return int(row // self.reach_px), int(column // self.reach_px)
