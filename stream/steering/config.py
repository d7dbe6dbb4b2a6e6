"""What a policy is told: the section of the configuration file, and its aims in the motors' own terms."""

import math
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator

from operators.geometry import METRES_PER_UNIT
from operators.section import Fraction
from operators.steering.routes import Travel
from stream.files.endpoint_section import EndpointSection
from stream.steering.motor_axes import Axes, Limits
from stream.wire import addresses

_NEEDS_LIMITS = "the policy needs `limits`: motor positions ((y_low, y_high), (x_low, x_high))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Aims:
    """What one policy aims at and what it must keep to; recorded with its decisions, which depend on it.

    Attributes
    ----------
    axes : Axes
    limits : ((float, float), (float, float))
        Lowest and highest motor position, y and x.
    motors : (str, str)
        Names of y and x in suggestions.
    region : limits or None
        Where measuring makes sense; everywhere within the limits when None.
    max_dose : float, photons per object pixel
        On any pixel.
    target_rad : float
        Standard uncertainty of the phase, on 95 % of what matters, at which the scan is done; 0 never.
    overlap : float
        Linear overlap of neighbours on ground that is refined.
    travel : Travel or None
        What moving costs.
    seed : int
    """

    axes: Axes
    limits: Limits
    motors: tuple[str, str]
    region: Limits | None
    max_dose: float
    target_rad: float
    overlap: float
    travel: Travel | None
    seed: int


class PolicyConfig(EndpointSection):
    """Advice on where to measure next, for plans that ask (launch.plans.adaptive)."""

    enabled: bool = False
    """whether a policy runs beside the pipeline"""
    address: str = addresses.POLICY
    """where plans ask: tcp://host:port, port * for a free one"""
    bind: Literal[True] = True
    """this side always owns the address"""
    limits: tuple[tuple[float, float], tuple[float, float]] | None = None
    """lowest and highest motor position of y and of x, in the unit of `positions`"""
    region: tuple[tuple[float, float], tuple[float, float]] | None = None
    """where measuring makes sense, as `limits`; everywhere within them when left out"""
    max_dose: PositiveFloat | None = None
    """photons that any object pixel may get; no limit when left out"""
    target_rad: NonNegativeFloat = 0.0
    """standard uncertainty of the phase at which a scan is done, rad; 0 never"""
    overlap: Fraction = 0.6
    """linear overlap of neighbours on ground that is refined, 0 to 1"""
    dwell_s: PositiveFloat | None = None
    """time of one exposure, s; with `speed`, where moving takes long the policy stays near"""
    speed: PositiveFloat | None = None
    """of the motors, in the unit of `positions` per second"""
    seed: NonNegativeInt = 0
    """of the survey and the candidates"""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.enabled and self.limits is None:
            raise ValueError(_NEEDS_LIMITS)
        if (self.dwell_s is None) != (self.speed is None):
            raise ValueError("the policy needs `dwell_s` and `speed` together, or neither")
        return self

    def aims(self, axes: Axes, motors: tuple[str, str] = ("y", "x")) -> Aims:
        """Returns the same for motors with these axes and names.

        Raises
        ------
        ValueError
            If limits are not known.
        """
        if self.limits is None:
            raise ValueError(_NEEDS_LIMITS)
        return Aims(
            axes=axes,
            limits=self.limits,
            motors=motors,
            region=self.region,
            max_dose=math.inf if self.max_dose is None else self.max_dose,
            target_rad=self.target_rad,
            overlap=self.overlap,
            travel=self._travel(axes),
            seed=self.seed,
        )

    def _travel(self, axes: Axes) -> Travel | None:
        if self.dwell_s is None or self.speed is None:
            return None
        speed_m_s = self.speed * METRES_PER_UNIT[axes.unit]
        return Travel(dwell_s=self.dwell_s, speed_px_s=speed_m_s / axes.geometry.object_pixel_m)
