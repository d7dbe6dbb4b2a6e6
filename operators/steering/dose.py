"""How many photons every pixel of the sample has got, counted by exposures that were triggered.

Policy and plan keep one each: the policy to plan within the limit, the plan to hold it whatever the policy
says. Pixels are counted exactly, so the limit holds on every one of them.
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
        self._brightest = float(self._illumination.max())
        self._peak = self._peak_before = 0.0  # of what is on the map, and of what was before a trial
        self._pending: list[Sequence[int]] = []  # exposures that are not on the map yet
        self._supposed: list[Sequence[int]] | None = None  # those of a trial, while there is one
        self._replaced: list[tuple[tuple[slice, slice], NDArray[np.float32]]] = []

    @property
    def peak(self) -> float:
        """The largest number of photons on one pixel."""
        self.settle()
        return self._peak

    @property
    def photons(self) -> NDArray[np.float32]:
        """Photons on each pixel, (row, col), from half a window before the area on; a copy."""
        self.settle()
        return self._map.copy()

    def fits(self, centre: Sequence[int]) -> bool:
        """Return whether an exposure at `centre` stays within the limit; never outside the area."""
        row, column = centre
        area = self.area
        if not (area.top <= row < area.bottom and area.left <= column < area.right):
            return False
        # Nearly always the brightest pixel has room for all of them, and the map need not be read.
        n_exposures = len(self._pending) + len(self._supposed or ()) + 1
        if self._peak + n_exposures * self._brightest <= self._most:
            return True
        self._catch_up()
        np.add(self._map[self._window(centre)], self._illumination, out=self._after)
        return bool(self._after.max() <= self._most)

    def add(self, centre: Sequence[int]) -> None:
        """Count an exposure; of one outside the area, what it puts on the map."""
        (self._pending if self._supposed is None else self._supposed).append(centre)

    def settle(self) -> None:
        """Bring the map up to date; `fits` does when it must, but here nobody waits for an answer."""
        for centre in self._pending:
            self._put(centre)
        self._pending = []

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Forget, to the last bit, the exposures that are added inside."""
        self._supposed = []
        try:
            yield
        finally:
            self._supposed = None
            for window, before in reversed(self._replaced):
                self._map[window] = before
            if self._replaced:
                self._peak, self._replaced = self._peak_before, []

    def _catch_up(self) -> None:
        """Put on the map what has been exposed, and for the time of a trial what it supposes."""
        self.settle()
        if not self._replaced:
            self._peak_before = self._peak
        for centre in self._supposed or ():
            window = self._window(centre)
            self._replaced.append((window, self._map[window].copy()))
            self._put(centre)
        if self._supposed is not None:
            self._supposed = []

    def _put(self, centre: Sequence[int]) -> None:
        here, light = self._map[self._window(centre)], self._illumination
        if here.shape != light.shape:  # partly or wholly off the map
            top, left = (max(low - int(at), 0) for at, low in zip(centre, self.area.origin, strict=True))
            light = light[top:, left:][: here.shape[0], : here.shape[1]]
        here += light
        self._peak = max(self._peak, float(here.max(initial=0)))

    def _window(self, centre: Sequence[int]) -> tuple[slice, slice]:
        """Return the part of the map under an exposure; the map begins half a window before the area."""
        n = self._illumination.shape[-1]
        top, left = int(centre[0]) - self.area.top, int(centre[1]) - self.area.left
        return slice(max(top, 0), max(top + n, 0)), slice(max(left, 0), max(left + n, 0))
