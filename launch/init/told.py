"""Settings of a beamline as they are told one after another, and by whom."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from launch.config.reading import Key
from operators.geometry import Geometry
from operators.optics.sampling import Judgement, judge_geometry

_SAME = 0.01  # share by which two who tell a number may differ
_GEOMETRY = ("energy_ev", "detector_distance_m", "detector_pixel_m", "n_pixels")


@dataclass(slots=True)
class Told:
    """What is told of a beamline; who speaks first is believed.

    Attributes
    ----------
    values : dict of (section, key) to value
    sources : dict of (section, key) to str
        Who said it.
    offers : dict of (section, key) to value
        Shown as a comment: what could stand there as well.
    notes : list of str
        What a user should know of it.
    """

    values: dict[Key, Any] = field(default_factory=dict)
    sources: dict[Key, str] = field(default_factory=dict)
    offers: dict[Key, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, source: str, said: Mapping[Key, Any]) -> None:
        """Takes what `source` says; None is nothing, and what contradicts an earlier one becomes a note."""
        for key, value in said.items():
            if value is None:
                continue
            if key not in self.values:
                self.values[key], self.sources[key] = value, source
            elif not _are_same(self.values[key], value):
                self.notes.append(
                    f"{'.'.join(key)} is {self.values[key]} by {self.sources[key]} and {value} by {source}: "
                    "the first is written"
                )

    def source_of(self, key: Key) -> str:
        """Returns who told a setting, or one of a section; "" for nobody."""
        return next((source for place, source in self.sources.items() if place[: len(key)] == key[:2]), "")

    def settings(self) -> dict[str, dict[str, Any]]:
        """Returns the values by section."""
        sections: dict[str, dict[str, Any]] = {}
        for (section, key), value in self.values.items():
            sections.setdefault(section, {})[key] = value
        return sections

    def doubts(self) -> list[Judgement]:
        """Returns what of the geometry is rare or cannot be, once all of it is told."""
        if not all(("geometry", name) in self.values for name in _GEOMETRY):
            return []
        told = {name: self.values["geometry", name] for name in _GEOMETRY}
        told["detector_pixel_m"] *= self.values.get(("geometry", "binning"), 1)
        said = {name: f"geometry.{name}: " for name in told}
        return [judged for judged in judge_geometry(Geometry(**told), said) if judged.verdict != "plausible"]


def _are_same(one: Any, other: Any) -> bool:
    if isinstance(one, float | int) and isinstance(other, float | int):
        return bool(np.isclose(one, other, rtol=_SAME, atol=0.0))
    return bool(one == other)
