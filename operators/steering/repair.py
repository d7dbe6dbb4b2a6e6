"""Which exposures never reached the image, so that they are made again while the stage is near."""

from collections.abc import Iterable

import numpy as np
from scipy.spatial import cKDTree

from operators.arrays import Array, Corners

REPAIR_LAG = 64  # exposures after which a frame that is not in the image is taken for lost

Centre = tuple[int, int]


class Repairs:
    """Exposures that an image has passed by; each is asked for once.

    Parameters
    ----------
    radius_px : float
        Within it a frame of the image is that of an exposure.
    """

    def __init__(self, radius_px: float) -> None:
        self._radius_px = radius_px
        self._done: set[Centre] = set()
        self.forget_image()

    def forget_image(self) -> None:
        """Take nothing for shown any more; what was made again stays done."""
        self._shown: cKDTree | None = None
        self._is_seen = np.zeros(0, bool)

    def look(self, path: Array) -> None:
        """Take the frames of the newest image, (frame, 2) absolute object pixels of the probe's centre."""
        self._shown = cKDTree(path) if len(path) else None

    def lost(self, centres: Corners) -> list[Centre]:
        """Return which of all exposures so far, (point, 2) in order, are missing and not yet made again."""
        is_new = np.zeros(len(centres) - len(self._is_seen), bool)
        self._is_seen = np.concatenate([self._is_seen, is_new])
        unseen = np.flatnonzero(~self._is_seen)
        if self._shown is not None and unseen.size:
            self._is_seen[unseen] = self._shown.query(centres[unseen])[0] <= self._radius_px
        if not self._is_seen.any():
            return []
        overdue = ~self._is_seen[: max(int(np.flatnonzero(self._is_seen)[-1]) - REPAIR_LAG, 0)]
        found = ((int(row), int(column)) for row, column in centres[: len(overdue)][overdue])
        return [centre for centre in found if centre not in self._done]

    def done(self, centres: Iterable[Centre]) -> None:
        """Do not ask for these again."""
        self._done.update(centres)
