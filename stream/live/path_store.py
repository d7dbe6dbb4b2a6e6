"""The frames of the published picture with versions, so that a client gets only those it does not have."""

from bisect import bisect_right
from typing import Any

import numpy as np
from numpy.typing import NDArray


class PathStore:
    """The frames of one scan that are shown, and where their probes were.

    Attributes
    ----------
    n_frames : int
    """

    def __init__(self) -> None:
        self._versions: list[int] = []  # ascending, of each part
        self._numbers: list[NDArray[np.int32]] = []
        self._centres_px: list[NDArray[np.float32]] = []
        self.n_frames = 0

    def put(self, numbers: NDArray[np.int64], centres_px: NDArray[Any], version: int) -> None:
        """Adds frames that `version` is the first to show.

        Parameters
        ----------
        numbers : (frame,) int64
            None of them shown before.
        centres_px : (frame, 2) float, absolute object pixels (y, x)
        version : int
            No lower than any before.
        """
        if numbers.size:
            self._versions.append(version)
            self._numbers.append(numbers.astype(np.int32))
            self._centres_px.append(centres_px.astype(np.float32))
            self.n_frames += len(numbers)

    def shown_after(self, version: int) -> list[NDArray[Any]]:
        """Returns the buffers of an ObjectUpdate: numbers (frame,), probe centres (frame, 2), by number."""
        first = bisect_right(self._versions, version)
        numbers = np.concatenate([np.zeros(0, np.int32), *self._numbers[first:]])
        centres_px = np.concatenate([np.zeros((0, 2), np.float32), *self._centres_px[first:]])
        order = np.argsort(numbers)
        return [numbers[order], centres_px[order]]
