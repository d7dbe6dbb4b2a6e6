"""How many photons every pixel of the sample has got, counted by exposures that were triggered.

Separate because policy and plan keep one each: the policy to plan within the limit, the plan to hold it
whatever the policy says. Pixels are counted exactly, so the limit holds on every one of them.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from operators.arrays import Array
from operators.geometry import Bounds

ROUNDING = 1e-4  # more than single precision can lose in a thousand exposures of one pixel


class DoseMap:
    """Photons per object pixel, and whether one more exposure stays below the limit.

    Parameters
    ----------
    area : Bounds
        Absolute object pixels where the centre of the probe may be.
    illumination : (y, x) float32, photons
        What one exposure puts on each pixel of its window: |P|^2 summed over modes.
    limit : float, photons per pixel
        No exposure `fits` that would put more on any pixel.

    Raises
    ------
    ValueError
        If the limit is not positive.
    """

    def __init__(self, area: Bounds, illumination: Array, limit: float = math.inf) -> None:
        if not limit > 0:
            raise ValueError(f"dose: expected a limit above zero photons per pixel, got {limit!r}")
        self.limit, self.area = limit, area
        self._most = limit * (1 - ROUNDING)
        self._illumination = np.asarray(illumination, np.float32)
        n = self._illumination.shape[-1]
        self._map = np.zeros((area.shape[0] + n - 1, area.shape[1] + n - 1), np.float32)
        self._after = np.zeros((n, n), np.float32)
        self._on_trial: list[tuple[tuple[slice, slice], NDArray[np.float32]]] | None = None

    @property
    def peak(self) -> float:
        """The largest number of photons on one pixel."""
        return float(self._map.max())

    def fits(self, centre: Sequence[int]) -> bool:
        """Return whether an exposure at `centre` stays within the limit; never outside the area."""
        row, column = centre
        area = self.area
        if not (area.top <= row < area.bottom and area.left <= column < area.right):
            return False
        if math.isinf(self.limit):
            return True
        np.add(self._map[self._window(centre)], self._illumination, out=self._after)
        return bool(self._after.max() <= self._most)

    def add(self, centre: Sequence[int]) -> None:
        """Count an exposure; of one outside the area, what it puts on the map."""
        window = rows, columns = self._window(centre)
        if self._on_trial is not None:
            if math.isinf(self.limit):
                return  # nobody will ask
            self._on_trial.append((window, self._map[window].copy()))
        n = self._illumination.shape[-1]
        top, left = (max(-(int(at) - low), 0) for at, low in zip(centre, self.area.origin, strict=True))
        here = self._map[rows, columns]
        here += self._illumination[top:n, left:n][: here.shape[0], : here.shape[1]]

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Forget, to the last bit, the exposures that are added inside."""
        self._on_trial = []
        try:
            yield
        finally:
            for window, before in reversed(self._on_trial):
                self._map[window] = before
            self._on_trial = None

    def _window(self, centre: Sequence[int]) -> tuple[slice, slice]:
        """Return the part of the map under an exposure; the map begins half a window before the area."""
        n = self._illumination.shape[-1]
        top, left = (int(at) - low for at, low in zip(centre, self.area.origin, strict=True))
        return slice(max(top, 0), max(top + n, 0)), slice(max(left, 0), max(left + n, 0))
