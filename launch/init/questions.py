"""What nobody has told is asked for, one question for each setting, with units as people write them."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from launch.config.config import Config
from launch.config.reading import Key, fields_at
from launch.init.told import Told
from operators.geometry import METRES_PER_UNIT

_EV = {"eV": 1.0, "keV": 1e3}
_M = {**METRES_PER_UNIT, "cm": 1e-2, "µm": 1e-6, "μm": 1e-6}
_QUANTITY = re.compile(r"\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*([^\s\d]*)\s*")


def quantity(units: dict[str, float]) -> Callable[[str], float]:
    """Returns what reads a number with one of these units, or without: then it is in the first of them."""

    def read(answer: str) -> float:
        found = _QUANTITY.fullmatch(answer)
        unit = found[2] or next(iter(units)) if found else ""
        if found is None or unit not in units:
            raise ValueError(f"wanted a number in {', '.join(units)}, got {answer!r}")
        value = float(found[1]) * units[unit]
        if not value > 0:
            raise ValueError(f"wanted more than 0, got {answer!r}")
        return float(f"{value:.12g}")

    return read


def whole(answer: str) -> int:
    """Returns a whole number; raises ValueError."""
    if not answer.strip().isdigit() or int(answer) == 0:
        raise ValueError(f"wanted a whole number, got {answer!r}")
    return int(answer)


def one_of(*choices: str) -> Callable[[str], str]:
    """Returns what takes one of some words."""

    def read(answer: str) -> str:
        if answer.strip() not in choices:
            raise ValueError(f"wanted one of {', '.join(choices)}, got {answer!r}")
        return answer.strip()

    return read


@dataclass(frozen=True, slots=True)
class Question:
    """One setting that has to be known.

    Attributes
    ----------
    key : (section, key)
    read : callable
        Turns the answer into the value; raises ValueError with what was wanted.
    example : str
        What an answer may look like.
    default : str
        The answer of who presses Return, "" where there is none.
    """

    key: Key
    read: Callable[[str], Any] = field(repr=False)
    example: str = ""
    default: str = ""

    @property
    def text(self) -> str:
        """The question: what the setting means."""
        meaning = fields_at(Config, self.key[:1])[self.key[1]]
        return f"{'.'.join(self.key)}: {meaning}{f' (such as {self.example})' if self.example else ''}"


QUESTIONS = (
    Question(("geometry", "energy_ev"), quantity(_EV), "8.8 keV"),
    Question(("geometry", "detector_distance_m"), quantity(_M), "1.92 m"),
    Question(("geometry", "detector_pixel_m"), quantity(_M), "75 um"),
    Question(("geometry", "n_pixels"), whole, default="256"),
    Question(("positions", "unit"), one_of(*METRES_PER_UNIT), "um"),
)


def left_open(told: Told) -> Iterator[Question]:
    """Yields the questions to which nobody has told the answer."""
    for question in QUESTIONS:
        if question.key not in told.values:
            yield question


def missing(told: Told) -> str:
    """Returns a line for each setting that nobody has told."""
    lines = [
        f"{question.text}: give it as --set {'.'.join(question.key)}=..." for question in left_open(told)
    ]
    return "\n".join(lines)
