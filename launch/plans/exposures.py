"""What a steered scan has triggered, what it still wants as planned, and what it may measure at all.

It holds no device and knows no policy.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from launch.extras import missing_extra
from operators.arrays import Array, Positions, abs2
from operators.steering.dose import DoseMap
from stream.steering.motor_axes import Axes, Limits

SAME_PLACE = 0.25  # of the distance of neighbours in the planned pattern: nearer, a point is measured
_ENOUGH_FOR_SPACING = 512  # points


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxDose:
    """The most photons any object pixel may get, and what an exposure puts there.

    Attributes
    ----------
    photons_per_pixel : float
    illumination : (y, x) float32, photons
        Of one exposure, on each pixel of its window: |P|^2 summed over modes.
    axes : Axes
        What motor positions mean.
    """

    photons_per_pixel: float
    illumination: Array
    axes: Axes


def max_dose_of(limit: MaxDose | str | None) -> MaxDose | None:
    """Returns a limit; that of a configuration file, or of a run file, when it is a string.

    Raises
    ------
    ValueError
        If the file sets no `policy.max_dose`, or not all that it takes to count photons.
    TypeError
        If the limit is something else.
    ImportError
        If the pipeline, which reads such files, is not installed.
    """
    if limit is None or isinstance(limit, MaxDose):
        return limit
    if not isinstance(limit, str):
        raise TypeError(f"max_dose: expected a MaxDose or the path of a configuration, got {limit!r}")
    try:
        from launch.config.file import load_config
        from launch.config.policy import policy_aims
        from launch.config.probe import known_probe
        from launch.config.run_file import ResolvedRun
    except ImportError as error:
        raise ImportError(f"a dose limit that stands in a file {missing_extra(error) or error}") from error

    path = Path(limit)
    config = ResolvedRun.read(path).config if path.suffix == ".json" else load_config(limit)
    told, probe = policy_aims(config), known_probe(config.probe, config.geometry.n_pixels)
    if math.isinf(told.max_dose) or probe is None:
        raise ValueError(f"{limit}: wanted `policy.max_dose` and a known probe to count the dose with")
    return MaxDose(photons_per_pixel=told.max_dose, illumination=abs2(probe).sum(axis=0), axes=told.axes)


class Exposures:
    """What has been triggered, what the plan still wants, and what may be measured at all.

    Parameters
    ----------
    fallback : (point, 2) float, motor positions (y, x)
        The planned pattern, in order.
    limits : ((float, float), (float, float))
        Lowest and highest position of y and x.
    max_dose : MaxDose or None
    max_points : int or None
        Exposures in all; the planned pattern's number unless given.

    Raises
    ------
    ValueError
        If the planned pattern is empty or leaves the limits, or there is no room for a point.
    """

    def __init__(
        self, fallback: Positions, limits: Limits, max_dose: MaxDose | None, max_points: int | None
    ) -> None:
        self.planned = np.asarray(fallback, np.float64).reshape(-1, 2)
        self.limits = np.array(limits, np.float64)
        self.n_most = len(self.planned) if max_points is None else max_points
        self.measured: Positions = np.zeros((0, 2))
        self.skipped: list[int] = []  # planned points that the dose forbids
        if not len(self.planned) or self.n_most < 1:
            raise ValueError(
                f"expected planned points and room for them, got {len(self.planned)}, {max_points}"
            )
        outside = np.flatnonzero(~self.is_inside(self.planned))
        if outside.size:
            where = self.planned[outside[0]].tolist()
            raise ValueError(f"planned point {outside[0]} at {where} is outside the limits {limits}")
        self._near = SAME_PLACE * _spacing(self.planned)
        self._is_left = np.ones(len(self.planned), bool)
        self._region = self.limits
        self._max_dose = max_dose
        if max_dose is not None:
            area = max_dose.axes.area(limits)
            self._dose = DoseMap(area, max_dose.illumination, max_dose.photons_per_pixel)

    @property
    def n_left(self) -> int:
        """Exposures that may still be made."""
        return self.n_most - len(self.measured)

    @property
    def dose_peak(self) -> float:
        """Most photons on a pixel so far, 0 without a limit."""
        return self._dose.peak if self._max_dose else 0.0

    @property
    def is_complete(self) -> bool:
        """Whether no planned point is left."""
        return not self._is_left.any()

    def restrict(self, region: Limits | None) -> None:
        """Measures nothing outside `region` from now on; everything within the limits again when None."""
        self._region = self.limits if region is None else np.array(region, np.float64)

    def is_inside(self, points: Positions) -> Array:
        """Returns which points are finite and within the limits, (point,) bool."""
        return _is_within(points, self.limits)

    def allowed(self, points: Positions, n_most: int) -> tuple[Positions, str]:
        """Returns those of the first points that may be measured together, and what was wrong with others."""
        possible = self.is_inside(points)
        inside = possible & _is_within(points, self._region)
        fitting = self._within_dose(points[inside][: min(n_most, self.n_left)])
        n_outside, n_dose = int((~possible).sum()), int((~fitting).sum())
        wrong = [f"{n_outside} points out of limits or not finite"] if n_outside else []
        if n_elsewhere := int((possible & ~inside).sum()):
            wrong.append(f"{n_elsewhere} points outside the region")
        wrong += [f"{n_dose} points over the dose"] if n_dose else []
        return points[inside][: len(fitting)][fitting], ", ".join(wrong)

    def next_planned(self, n_points: int) -> Positions:
        """Returns the next planned points that are neither measured nor forbidden by the dose."""
        wanted = _is_within(self.planned, self._region)
        left = np.flatnonzero(self._is_left & wanted)[: min(n_points, self.n_left)]
        while left.size and not (fitting := self._within_dose(self.planned[left])).all():
            self.skipped.extend(left[~fitting].tolist())
            self._is_left[left[~fitting]] = False
            left = np.flatnonzero(self._is_left & wanted)[: min(n_points, self.n_left)]
        return self.planned[left]

    def triggered(self, points: Positions) -> None:
        """Counts exposures."""
        points = np.asarray(points, np.float64).reshape(-1, 2)
        self.measured = np.concatenate([self.measured, points])
        for point in points:
            self._is_left &= np.hypot(*(self.planned - point).T) > self._near
            if self._max_dose:
                self._dose.add(self._max_dose.axes.centres(point)[0].tolist())

    def _within_dose(self, points: Positions) -> Array:
        fits = np.ones(len(points), bool)
        if self._max_dose:
            with self._dose.trial():
                for index, centre in enumerate(self._max_dose.axes.centres(points).tolist()):
                    fits[index] = self._dose.fits(centre)
                    if fits[index]:
                        self._dose.add(centre)
        return fits


def _is_within(points: Positions, box: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return ((points >= box[:, 0]) & (points <= box[:, 1])).all(axis=1)


def _spacing(points: Positions) -> float:
    """Return the median distance of a point, one of at most some hundred, from its nearest neighbour."""
    n_points = len(points)
    if n_points < 2:
        return 0.0
    some = np.unique(np.linspace(0, n_points - 1, min(n_points, _ENOUGH_FOR_SPACING)).astype(int))
    return float(np.median([_nearest(points, index) for index in some]))


def _nearest(points: Positions, index: int) -> float:
    distances = np.hypot(*(points - points[index]).T)
    distances[index] = np.inf  # of the point from itself
    return float(distances.min())
