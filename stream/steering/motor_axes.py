"""What motor positions mean: from a motor's own numbers to pixels of the object and back."""

from dataclasses import dataclass

import numpy as np

from operators.arrays import Corners, Positions
from operators.geometry import Bounds, Geometry, probe_positions
from stream.wire.messages import MotorAxes

Limits = tuple[tuple[float, float], tuple[float, float]]

_FARTHEST_PX = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """What motor positions mean.

    Attributes
    ----------
    geometry : Geometry
    unit : str
        Of the motor positions: m, mm, um or nm.
    signs : (int, int)
        -1 where a motor moves the sample, not the probe.
    """

    geometry: Geometry
    unit: str
    signs: tuple[int, int]

    def centres(self, positions: Positions) -> Corners:
        """Return the probe centres, (point, 2) int64 absolute object pixels, at motor positions (y, x).

        Raises
        ------
        ValueError
            If a position is not finite, or not on the sample by any measure.
        """
        raw = np.asarray(positions, np.float64).reshape(-1, 2)
        corners = self.geometry.to_pixels(probe_positions(raw, unit=self.unit, signs=self.signs))
        if corners.size and np.abs(corners).max() > _FARTHEST_PX:
            raise ValueError(
                f"a position is {np.abs(corners).max():.3g} object pixels away: is {self.unit} its unit?"
            )
        return np.floor(corners + 0.5).astype(np.int64) + self.geometry.n_pixels // 2

    def positions(self, centres: Corners) -> Positions:
        """Return the motor positions (point, 2) float64 that put the probe's centre on these pixels."""
        pixel = np.ones((1, 2))
        unit_m = probe_positions(pixel, unit=self.unit, signs=self.signs)
        corners = np.asarray(centres, np.float64).reshape(-1, 2) - self.geometry.n_pixels // 2
        return self.geometry.to_metres(corners) / unit_m

    @property
    def on_wire(self) -> MotorAxes:
        """The same for clients, who know no geometry."""
        origin, next_ = self.positions(np.array([[0, 0], [1, 1]])).tolist()
        return MotorAxes(
            unit=self.unit, origin=tuple(origin), pitch=(next_[0] - origin[0], next_[1] - origin[1])
        )

    def area(self, limits: Limits) -> Bounds:
        """Return the pixels that the probe's centre may be on while both motors stay within `limits`."""
        ends = np.array(limits, np.float64).T
        if not np.isfinite(ends).all() or (ends[0] >= ends[1]).any():
            raise ValueError(f"limits: expected ((y_low, y_high), (x_low, x_high)), got {limits}")
        corners = self.geometry.to_pixels(probe_positions(ends, unit=self.unit, signs=self.signs))
        low, high = np.ceil(corners.min(axis=0)), np.floor(corners.max(axis=0))
        half = self.geometry.n_pixels // 2
        top, left = (int(edge) + half for edge in low)
        bottom, right = (int(edge) + half + 1 for edge in high)
        return Bounds(top, left, bottom, right)
