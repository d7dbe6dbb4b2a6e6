"""Points with names, as the protocols of bluesky-adaptive 1.0 (formerly blop) have them.

`Optimizer`, `SupportsStoppingCriteria` and `TrialFaultAware` over what a policy says in arrays: here, or in
another process (`stream.steering.remote_policy`).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from operators.arrays import Positions

BATCH = 32  # points of a suggestion when the caller does not say


class NamedPoints(ABC):
    """Suggests points and takes those that were measured, or failed, by name.

    Attributes
    ----------
    motors : (str, str)
        Names of y and x.
    measured : (point, 2) float64
        Motor positions of all exposures so far.
    failed : (point, 2) float64
        Motor positions whose exposure failed, as often as it did.
    """

    motors: tuple[str, str]
    measured: Positions
    failed: Positions

    def __init__(self, motors: tuple[str, str]) -> None:
        self.motors = motors
        self._offered: dict[str, list[float]] = {}  # suggestions by their `_id`

    @abstractmethod
    def next_points(self, n_points: int) -> tuple[int, Positions]:
        """Return the number of a recommendation, and its points; none when it is enough."""

    @abstractmethod
    def should_stop(self) -> tuple[bool, str]:
        """Return whether what matters is known well enough, or a person has said stop, and why."""

    @abstractmethod
    def known(self) -> dict[str, float]:
        """Return what is known of the sample by what has been measured."""

    @abstractmethod
    def count(self, measured: Positions) -> None:
        """Take the motor positions (point, 2) of all exposures so far."""

    @abstractmethod
    def give_up(self, failed: Positions) -> None:
        """Take the motor positions (point, 2) of all exposures that failed so far."""

    def suggest(self, num_points: int | None = None) -> list[dict[str, Any]]:
        """Return the next points: motor name to position, with a unique `_id`; none when it is enough."""
        number, points = self.next_points(num_points or BATCH)
        offered = {f"{number}.{index}": point for index, point in enumerate(points.tolist())}
        self._offered |= offered
        return [
            {"_id": name, **dict(zip(self.motors, point, strict=True))} for name, point in offered.items()
        ]

    def ingest(self, points: Sequence[Mapping[str, Any]]) -> None:
        """Take measured points, each with the positions of both motors or the `_id` of a suggestion.

        Raises
        ------
        ValueError
            If a point has neither.
        """
        self.count(np.concatenate([self.measured, self._positions(points)]))

    def register_failures(self, suggestions: Sequence[Mapping[str, Any]]) -> None:
        """Take suggestions whose exposure failed: each is tried once more, later, and then left out.

        Raises
        ------
        ValueError
            As for `ingest`.
        """
        self.give_up(np.concatenate([self.failed, self._positions(suggestions)]))

    def get_best_points(self) -> list[tuple[str, dict[str, float], dict[str, float]]]:
        """Return the state reached: the last point measured and what is known of the sample by it."""
        if not len(self.measured):
            return []
        where = dict(zip(self.motors, map(float, self.measured[-1]), strict=True))
        return [(str(len(self.measured) - 1), where, self.known())]

    def _positions(self, points: Sequence[Mapping[str, Any]]) -> Positions:
        return np.array([self._position(point) for point in points], np.float64).reshape(-1, 2)

    def _position(self, point: Mapping[str, Any]) -> list[float]:
        first, second = self.motors
        if first in point and second in point:
            return [float(point[first]), float(point[second])]
        if point.get("_id") in self._offered:
            return self._offered[point["_id"]]
        raise ValueError(
            f"a point: expected the positions of {first!r} and {second!r}, or the `_id` of a suggestion, "
            f"got {dict(point)!r}"
        )
