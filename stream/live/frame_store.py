"""What is told of frames, with versions, so that a client gets only those that it does not have."""

from bisect import bisect_right
from typing import Any

import numpy as np
from numpy.typing import NDArray


class FrameStore:
    """A few values of each frame of one scan.

    Parameters
    ----------
    n_values : int
        Of each frame.

    Attributes
    ----------
    n_frames : int
    """

    def __init__(self, n_values: int) -> None:
        self._none = np.zeros((0, n_values), np.float32)
        self._versions: list[int] = []  # ascending, of each part
        self._numbers: list[NDArray[np.int32]] = []
        self._values: list[NDArray[np.float32]] = []
        self.n_frames = 0

    def put(self, numbers: NDArray[np.int64], values: NDArray[Any], version: int) -> None:
        """Adds frames that `version` is the first to tell of.

        Parameters
        ----------
        numbers : (frame,) int64
            None of them told of before.
        values : (frame, value) float
        version : int
            No lower than any before.
        """
        if numbers.size:
            self._versions.append(version)
            self._numbers.append(numbers.astype(np.int32))
            self._values.append(values.astype(np.float32))
            self.n_frames += len(numbers)

    def told_after(self, version: int) -> list[NDArray[Any]]:
        """Returns the buffers of an ObjectUpdate: numbers (frame,), values (frame, value), by number."""
        first = bisect_right(self._versions, version)
        numbers = np.concatenate([np.zeros(0, np.int32), *self._numbers[first:]])
        values = np.concatenate([self._none, *self._values[first:]])
        order = np.argsort(numbers)
        return [numbers[order], values[order]]
