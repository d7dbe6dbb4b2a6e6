"""From the sections of a configuration to what the policy aims at."""

from launch.config.config import Config
from stream.steering.config import Aims
from stream.steering.motor_axes import Axes


def policy_aims(config: Config) -> Aims:
    """Returns what the policy of a run aims at.

    Raises
    ------
    ValueError
        If limits or the unit of positions are not known.
    """
    positions = config.positions
    if positions.unit is None:
        raise ValueError("the policy needs `positions.unit`: one of m, mm, um, nm")
    axes = Axes(geometry=config.geometry.geometry(), unit=positions.unit, signs=positions.signs)
    return config.policy.aims(axes, motors=(positions.y or "y", positions.x or "x"))
