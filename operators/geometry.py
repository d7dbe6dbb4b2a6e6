"""Where things are: metres at the sample, pixels of the object, and which pixels an array covers.

Positions cross this line exactly once, on arrival; behind it everything is pixels.
"""

import math
from dataclasses import dataclass

import numpy as np

from operators.arrays import Corners, Positions, array_module

PLANCK_TIMES_LIGHT_EV_M = 1.2398419843320026e-6  # h c, exact since the SI of 2019

METRES_PER_UNIT = {"m": 1.0, "mm": 1e-3, "um": 1e-6, "nm": 1e-9}


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """The far-field geometry that fixes the pixel of the object.

    Parameters
    ----------
    energy_ev : float
        Photon energy, eV.
    detector_distance_m : float
        Sample to detector, metres.
    detector_pixel_m : float
        Pitch of a pattern's pixel, metres: the detector's own pitch times the binning.
    n_pixels : int
        Side of a pattern after cropping and binning, pixels.

    Raises
    ------
    ValueError
        If a value is not finite and positive.
    """

    energy_ev: float
    detector_distance_m: float
    detector_pixel_m: float
    n_pixels: int

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"geometry: {name} must be finite and positive, got {value!r}")
        if int(self.n_pixels) != self.n_pixels:
            raise ValueError(f"geometry: n_pixels must be a whole number, got {self.n_pixels!r}")

    @property
    def wavelength_m(self) -> float:
        """The wavelength, metres."""
        return PLANCK_TIMES_LIGHT_EV_M / self.energy_ev

    @property
    def object_pixel_m(self) -> float:
        """The pixel of probe and object, wavelength x distance / width of the pattern, metres."""
        return self.wavelength_m * self.detector_distance_m / (self.n_pixels * self.detector_pixel_m)

    def to_pixels(self, positions_m: Positions) -> Positions:
        """Return positions in object pixels: the top-left corners of the probe windows, fractional."""
        return positions_m / self.object_pixel_m

    def to_metres(self, positions_px: Positions) -> Positions:
        """Return positions in metres; the inverse of `to_pixels`."""
        return positions_px * self.object_pixel_m


@dataclass(frozen=True, slots=True)
class Bounds:
    """The absolute object pixels that an array covers: rows top..bottom-1, columns left..right-1.

    Absolute pixels may be negative; a canvas that grows changes its bounds, never the meaning of a pixel.

    Raises
    ------
    ValueError
        If there is no pixel in them.
    """

    top: int
    left: int
    bottom: int
    right: int

    def __post_init__(self) -> None:
        if self.bottom <= self.top or self.right <= self.left:
            raise ValueError(f"bounds must contain at least one pixel, got {self}")

    @classmethod
    def of_windows(cls, corners: Corners, n_pixels: int) -> "Bounds":
        """Return the smallest bounds that contain every window of side `n_pixels` at `corners`.

        Corners are (frame, 2) int64; raises ValueError if there are none.
        """
        if len(corners) == 0:
            raise ValueError("bounds of no windows: expected at least one corner")
        top, left = (int(edge) for edge in corners.min(axis=0))
        last_top, last_left = (int(edge) for edge in corners.max(axis=0))
        return cls(top, left, last_top + n_pixels, last_left + n_pixels)

    @property
    def shape(self) -> tuple[int, int]:
        """The shape (row, col) of an array with these bounds."""
        return self.bottom - self.top, self.right - self.left

    @property
    def origin(self) -> tuple[int, int]:
        """The absolute pixel of element [0, 0]: `corners - bounds.origin` are corners in the array."""
        return self.top, self.left

    def union(self, other: "Bounds") -> "Bounds":
        """Return the smallest bounds that contain both."""
        return Bounds(
            min(self.top, other.top),
            min(self.left, other.left),
            max(self.bottom, other.bottom),
            max(self.right, other.right),
        )

    def intersection(self, other: "Bounds") -> "Bounds | None":
        """Return the bounds of the pixels in both, None if there are none."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        bottom, right = min(self.bottom, other.bottom), min(self.right, other.right)
        return Bounds(top, left, bottom, right) if top < bottom and left < right else None

    def padded(self, n_pixels: int) -> "Bounds":
        """Return bounds wider by `n_pixels` on every side."""
        return Bounds(
            self.top - n_pixels, self.left - n_pixels, self.bottom + n_pixels, self.right + n_pixels
        )

    def contains(self, other: "Bounds") -> bool:
        """Return whether every pixel of `other` is inside."""
        return (
            self.top <= other.top
            and self.left <= other.left
            and self.bottom >= other.bottom
            and self.right >= other.right
        )

    def slices_in(self, other: "Bounds") -> tuple[slice, slice]:
        """Return the slices that select these pixels in an array with the bounds `other`.

        Raises
        ------
        ValueError
            If `other` does not contain them all: a negative slice would select the wrong pixels silently.
        """
        if not other.contains(self):
            raise ValueError(f"{self} reaches outside {other}")
        rows = slice(self.top - other.top, self.bottom - other.top)
        columns = slice(self.left - other.left, self.right - other.left)
        return rows, columns


def lie_far_apart(corners: Corners, n_pixels: int) -> bool:
    """Return whether windows cover less than a quarter of the box around them, (frame, 2) int64 corners."""
    n_rows, n_columns = Bounds.of_windows(corners, n_pixels).shape
    return n_rows * n_columns > 4 * len(corners) * n_pixels**2


def window_corners(positions_px: Positions) -> Corners:
    """Return the pixel nearest to each position, int64; halves go up, so a common offset changes nothing.

    Parameters
    ----------
    positions_px : (frame, 2) float64, object pixels
        Top-left corners of the probe windows, (y, x).
    """
    xp = array_module(positions_px)
    return xp.floor(positions_px + 0.5).astype(xp.int64)


def probe_positions(raw: Positions, *, unit: str, signs: tuple[int, int] = (1, 1)) -> Positions:
    """Return where the probe was on the sample, metres, (y, x).

    Parameters
    ----------
    raw : (frame, 2) float, `unit`
        Positions as recorded, (y, x).
    unit : {"m", "mm", "um", "nm"}
        Unit of `raw`. There is no default: a guessed unit is a wrong picture.
    signs : (int, int)
        +1 or -1 for y and x: -1 where the recorded motor moves the sample instead of the probe.

    Raises
    ------
    ValueError
        If unit, signs or shape are not as described, or a position is not finite.
    """
    if unit not in METRES_PER_UNIT:
        raise ValueError(f"expected a unit of position among {', '.join(METRES_PER_UNIT)}, got {unit!r}")
    if any(sign not in (-1, 1) for sign in signs) or len(signs) != 2:
        raise ValueError(f"expected signs (y, x) of +1 or -1, got {signs!r}")
    xp = array_module(raw)
    positions = xp.asarray(raw, dtype=xp.float64)
    if positions.ndim != 2 or positions.shape[1] != 2:
        raise ValueError(f"expected positions of shape (frame, 2), got {positions.shape}")
    is_finite = xp.isfinite(positions).all(axis=1)
    if not is_finite.all():
        n_bad, first = int((~is_finite).sum()), int((~is_finite).argmax())
        raise ValueError(f"{n_bad} of {len(positions)} positions are not finite, the first at index {first}")
    return positions * (METRES_PER_UNIT[unit] * xp.asarray(signs, dtype=np.float64))
