"""What a policy is told."""

import math
from dataclasses import dataclass

from operators.steering.routes import Travel
from stream.steering.motor_axes import Axes, Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig:
    """What the policy aims at and what it must keep to.

    Attributes
    ----------
    axes : Axes
    limits : ((float, float), (float, float))
        Lowest and highest motor position, y and x.
    motors : (str, str)
        Names of y and x in suggestions.
    region : limits or None
        Where measuring makes sense; everywhere within the limits unless given.
    max_dose : float, photons per object pixel
        On any pixel.
    target_rad : float
        Standard uncertainty of the phase, on 95 % of what matters, at which the scan is done; 0 never.
    overlap : float
        Linear overlap of neighbours on ground that is refined.
    batch : int
        Points of a suggestion when the caller does not say.
    expires_s : float
        How long a recommendation is worth following.
    travel : Travel or None
        What moving costs.
    seed : int
    """

    axes: Axes
    limits: Limits
    motors: tuple[str, str] = ("y", "x")
    region: Limits | None = None
    max_dose: float = math.inf
    target_rad: float = 0.0
    overlap: float = 0.6
    batch: int = 32
    expires_s: float = 60.0
    travel: Travel | None = None
    seed: int = 0
