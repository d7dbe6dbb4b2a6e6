"""From the sections of a configuration to what the policy is told."""

import math

from launch.config.config import Config
from launch.config.stages import PolicySection
from operators.geometry import METRES_PER_UNIT, Geometry
from operators.steering.routes import Travel
from stream.steering.motor_axes import Axes
from stream.steering.policy import PolicyConfig


def policy_config(config: Config) -> PolicyConfig:
    """Returns what the policy is told.

    Raises
    ------
    ValueError
        If limits or the unit of positions are not known.
    """
    section, positions = config.policy, config.positions
    if section.limits is None or positions.unit is None:
        raise ValueError("policy: needs `policy.limits` and `positions.unit`")
    return PolicyConfig(
        axes=Axes(geometry=config.geometry.geometry(), unit=positions.unit, signs=positions.signs),
        limits=section.limits,
        motors=(positions.y or "y", positions.x or "x"),
        region=section.region,
        max_dose=math.inf if section.max_dose is None else section.max_dose,
        target_rad=section.target_rad,
        overlap=section.overlap,
        travel=_travel(section, config.geometry.geometry(), positions.unit),
        seed=section.seed,
    )


def _travel(section: PolicySection, geometry: Geometry, unit: str) -> Travel | None:
    if section.dwell_s is None or section.speed is None:
        return None
    speed_m_s = section.speed * METRES_PER_UNIT[unit]
    return Travel(dwell_s=section.dwell_s, speed_px_s=speed_m_s / geometry.object_pixel_m)
