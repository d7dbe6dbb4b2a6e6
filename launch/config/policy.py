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
    return config.policy.aims(axes_of(config), motors=(positions.y or "y", positions.x or "x"))


def axes_of(config: Config) -> Axes:
    """Returns what motor positions mean; a file that carries its own unit is read in metres."""
    positions = config.positions
    unit, signs = (positions.unit, positions.signs) if positions.unit else ("m", (1, 1))
    return Axes(geometry=config.geometry.geometry(), unit=unit, signs=signs)
