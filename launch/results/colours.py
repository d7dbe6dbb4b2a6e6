"""Colour maps of everything that is drawn: the live page, pictures of results and the report.

Maps are curves in OKLab (B. Ottosson, 2020) walked in equal steps, so equal differences look equally large.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

N_LEVELS = 256
PERCENTILES = 0.5, 99.5  # of the lit values: what fills a colour range
OF_MAP = {
    "amplitude": "grey",
    "phase": "blue-yellow",
    "wrapped phase": "cyclic",
    "sigma": "red-yellow",
    "photons": "blue-cyan",
    "source": "source",
    "intensity": "grey",
    "dpc": "blue-yellow",
    "dark_field": "violet-yellow",
    "gradient_y": "blue-red",
    "gradient_x": "blue-red",
}

_FINE = 8192  # points on a curve, whose distances are summed
_Channels = tuple[NDArray[np.float64], ...]
_Curve = Callable[[NDArray[np.float64]], _Channels]  # 0..1 -> (lightness, a, b)


def drawn_phase(low: float, high: float) -> tuple[str, float, float]:
    """Returns the map of a phase, and its range in rad: beyond half a turn it is wrapped, and cyclic.

    Parameters
    ----------
    low, high : float, rad
        What its lit values span.
    """
    if high - low <= np.pi:
        return OF_MAP["phase"], low, high
    return OF_MAP["wrapped phase"], -np.pi, np.pi


@cache
def tables() -> dict[str, NDArray[np.uint8]]:
    """Returns every colour map by name, (256, 3) uint8, sRGB, from the lowest value to the highest.

    "source" has one entry instead for each value of `stream.live.image.LiveImage.source`.
    """
    warm, cold = _half_turn(0.115, 0.1), _half_turn(-0.01, -0.15)
    halves = _even(lambda t: cold(1 - t)), _even(warm)
    grey = np.arange(N_LEVELS)
    found = {
        "grey": np.stack([grey, grey, grey], axis=1),
        "blue-yellow": _even(_sequential(285, 105, 0.092)),
        "red-yellow": _even(_sequential(15, 95, 0.15)),
        "blue-cyan": _even(_sequential(275, 195, 0.09)),
        "violet-yellow": _even(_sequential(310, 100, 0.11)),
        "blue-red": np.concatenate([_even(_arm(255), N_LEVELS // 2)[::-1], _even(_arm(30), N_LEVELS // 2)]),
        "cyclic": np.concatenate(halves)[::2],
        "source": np.array([[0, 0, 0], [0xC9, 0x8F, 0x45], [0x45, 0xA8, 0xA8]]),
    }
    return {name: np.rint(table).astype(np.uint8) for name, table in found.items()}


def _sequential(from_hue: float, to_hue: float, chroma: float) -> _Curve:
    """Return a curve whose lightness rises evenly while its hue turns, degrees."""

    def curve(t: NDArray[np.float64]) -> _Channels:
        hue, c = np.radians(from_hue + (to_hue - from_hue) * t), chroma * np.sin(np.pi * (0.12 + 0.8 * t))
        return 0.2 + 0.74 * t, c * np.cos(hue), c * np.sin(hue)

    return curve


def _half_turn(a: float, b: float) -> _Curve:
    """Return a curve from bright at phase zero to dark at half a turn, tinted between."""
    return lambda t: (0.6 + 0.32 * np.cos(np.pi * t), a * np.sin(np.pi * t), b * np.sin(np.pi * t))


def _arm(hue: float) -> _Curve:
    """Return a curve from almost white to a dark colour of `hue`, degrees."""
    a, b = 0.14 * np.cos(np.radians(hue)), 0.14 * np.sin(np.radians(hue))
    return lambda t: (0.97 - 0.55 * t, a * np.sin(np.pi / 2 * t), b * np.sin(np.pi / 2 * t))


def _even(curve: _Curve, n: int = N_LEVELS) -> NDArray[np.float64]:
    """Return `n` colours in equal steps along a curve, (n, 3), 0 to 255."""
    colours = np.stack(curve(np.linspace(0, 1, _FINE)), axis=1)
    rgb = _srgb(colours)
    way = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(colours, axis=0), axis=1))])
    steps = np.linspace(0, way[-1], n)
    return np.stack([np.interp(steps, way, channel) for channel in rgb.T], axis=1)


def _srgb(oklab: NDArray[np.float64]) -> NDArray[np.float64]:
    lightness, a, b = oklab.T
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3
    linear = np.stack(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.707614701 * short,
        ],
        axis=1,
    ).clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
