"""Which frames overlap enough to be refined together.

Separate because it is the rule that keeps adaptive scanning ptychography: a frame that shares no ground with
others has no constraint but itself, and the network's patch is all that is known there. Called by the
selector after every batch.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from operators.arrays import Corners


class OverlapGraph:
    """Frames as they come, joined where they are at most `reach_px` apart.

    Parameters
    ----------
    reach_px : float
        Largest distance of two frames that overlap enough: (1 - overlap) x diameter of the probe.
    n_least : int
        Frames a connected group needs before it can be refined.
    """

    def __init__(self, reach_px: float, n_least: int = 9) -> None:
        self.reach_px, self.n_least = reach_px, n_least
        self._centres = np.zeros((64, 2))
        self._group = np.zeros(64, np.int64)
        self._n = 0

    def __len__(self) -> int:
        return self._n

    @property
    def centres(self) -> Corners:
        """Centres of all frames, (frame, 2)."""
        return self._centres[: self._n]

    @property
    def is_refinable(self) -> NDArray[np.bool_]:
        """Which frames belong to a group that is large enough, (frame,)."""
        if not self._n:
            return np.zeros(0, bool)
        groups = self._group[: self._n]
        return np.bincount(groups, minlength=self._n)[groups] >= self.n_least

    def add(self, centre: Sequence[int]) -> None:
        """Join one more frame with those it overlaps."""
        if self._n == len(self._centres):
            self._centres = np.resize(self._centres, (2 * self._n, 2))
            self._group = np.resize(self._group, 2 * self._n)
        distance2 = ((self.centres - centre) ** 2).sum(axis=1)
        joined = np.unique(self._group[: self._n][distance2 <= self.reach_px**2])
        self._centres[self._n], self._group[self._n] = centre, self._n
        self._n += 1
        groups = self._group[: self._n]
        for group in joined[1:]:
            groups[groups == group] = joined[0]
        if joined.size:
            groups[-1] = joined[0]
