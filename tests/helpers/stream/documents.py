"""What bluesky publishes beside a scan, one document at a time, so that tests can disturb it."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from event_model import compose_run

Documents = list[tuple[str, dict[str, Any]]]

FIELDS = ("stage-y", "stage-x")


class PositionRun:
    """The documents of one bluesky run.

    Parameters
    ----------
    series : str
        The detector's name of the series.
    positions_m : (frame, 2) float64, metres
        Published in micrometres, as motors have them.
    """

    def __init__(self, series: str, positions_m: np.ndarray) -> None:
        self._positions_um = positions_m * 1e6
        run = compose_run(metadata={"plan_name": "scan", "detector_series_id": series})
        key = {"source": "test", "dtype": "number", "shape": [], "units": "um"}
        descriptor = run.compose_descriptor(
            name="primary",
            data_keys={name: dict(key) for name in FIELDS},
            hints={"stage": {"fields": list(FIELDS)}},
        )
        self._descriptor = descriptor
        self.uid: str = run.start_doc["uid"]
        self.opening: Documents = [
            ("start", dict(run.start_doc)),
            ("descriptor", dict(descriptor.descriptor_doc)),
        ]
        self.closing: Documents = [("stop", dict(run.compose_stop()))]

    def events(self, numbers: Iterable[int] | None = None) -> Documents:
        """The event of each of these frames, all by default; a frame may be named twice."""
        numbers = range(len(self._positions_um)) if numbers is None else numbers
        return [("event", self._event(number, self._positions_um[number])) for number in numbers]

    def event_at(self, number: int, position_m: Sequence[float]) -> tuple[str, dict[str, Any]]:
        """The event of a frame at another position."""
        return "event", self._event(number, 1e6 * np.asarray(position_m))

    def documents(self) -> Documents:
        """All of them in order."""
        return [*self.opening, *self.events(), *self.closing]

    def _event(self, number: int, position_um: np.ndarray) -> dict[str, Any]:
        event = self._descriptor.compose_event(
            data=dict(zip(FIELDS, position_um.tolist(), strict=True)),
            timestamps=dict.fromkeys(FIELDS, 0.0),
            seq_num=int(number) + 1,
            validate=False,
        )
        return dict(event)
