"""The documents of a bluesky run, made of numbered captures of positions."""

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stream.documents.captures import FlownAxes, Frames, Piece, Values
from stream.documents.codec import Document
from stream.documents.config import PositionsConfig, field_name
from stream.documents.sources.protocol import Said
from stream.documents.values import MAX_SEQ_NUM, is_whole

SOURCE_KEY = "positions_source"  # of start documents that are made here: which source


class RunDocuments:
    """Makes the documents of one run after the other.

    Captures may come axis by axis, in any order and again; a frame is an event, which comes when all its
    captures are there: event n is frame n - 1, with its captures in a row.

    Parameters
    ----------
    kind : str
        What `positions.source` calls the source.
    config : PositionsConfig
        Names of the axes and of a flag `settled`, captures of a frame, and under which key a start document
        names the detector's series.
    clock : callable
        Wall clock, seconds; documents say when they were made.

    Attributes
    ----------
    names, axes : tuple of str
        What y, x and the flag are called in the configuration, and as fields of the documents.
    """

    def __init__(
        self,
        kind: str,
        config: PositionsConfig,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._kind, self._series_key, self._clock = kind, config.series_key, clock
        settled = (config.settled,) if config.settled else ()
        self.names = (config.y or "y", config.x or "x", *settled)
        self.axes = tuple(map(field_name, self.names))
        self.captures_per_frame = config.captures_per_frame or 1
        self._start: Document = {}
        self._descriptor = ""
        self._held = FlownAxes(len(self.axes))
        self._n_frames = 0
        self._ready: list[Said] = []  # pages that nobody has asked for yet

    @property
    def is_open(self) -> bool:
        """Whether a run has begun and is not over."""
        return bool(self._start)

    @property
    def told(self) -> Document:
        """What the start of the open run says, empty where none is open."""
        return self._start

    @property
    def n_captures(self) -> int:
        """How many captures there are up to the last frame that has got its position in this run."""
        return self._n_frames * self.captures_per_frame

    def start(
        self, *, series: str = "", units: Sequence[str | None] = (), sources: Sequence[str] = (), **told: Any
    ) -> list[Said]:
        """Returns the beginning of a run; one that is open is ended first.

        Parameters
        ----------
        series : str
            What the detector calls the series, empty where that is not known.
        units : sequence of str or None
            Of each axis, where the source says them.
        sources : sequence of str
            Where the values of each axis come from, for people.
        **told
            What else the start document says.
        """
        ended = self.stop("fail", "another run began") if self.is_open else []
        now, named = self._clock(), {self._series_key: series} if series else {}
        self._start = {"uid": str(uuid.uuid4()), "time": now, SOURCE_KEY: self._kind, **told, **named}
        self._descriptor, self._held, self._n_frames = str(uuid.uuid4()), FlownAxes(len(self.axes)), 0
        n_captures = self.captures_per_frame
        shape: list[int] = [n_captures] if n_captures > 1 else []
        data_keys: Document = {
            axis: {"dtype": "array" if shape else "number", "shape": shape, "source": self._kind}
            for axis in self.axes
        }
        for axis, source in zip(self.axes, sources, strict=False):
            data_keys[axis]["source"] = source
        for axis, unit in zip(self.axes[:2], units, strict=False):
            if unit:
                data_keys[axis]["units"] = unit
        descriptor = {
            "uid": self._descriptor,
            "run_start": self._start["uid"],
            "time": now,
            "name": "primary",
            "data_keys": data_keys,
            "hints": {axis: {"fields": [axis]} for axis in self.axes[:2]},
        }
        return [*ended, ("start", self._start), ("descriptor", descriptor)]

    def add(self, axis: int, first: int, values: ArrayLike) -> None:
        """Takes captures of one axis (capture,), the first of which is number `first` of the run."""
        captures = np.array(values, np.float64).reshape(-1)
        if captures.size:
            stop = first + captures.size
            self._held.add(axis, Piece(first, stop, 0, self.captures_per_frame, 1, Values(captures)))

    def add_rows(self, numbers: NDArray[np.int64], rows: NDArray[np.float64]) -> None:
        """Takes captures of all axes (capture, axis) by their numbers (capture,), in any order."""
        gaps = np.flatnonzero(np.diff(numbers) != 1) + 1
        for part in np.split(np.arange(len(numbers)), gaps):
            if part.size:
                for axis, values in enumerate(rows[part].T):
                    self.add(axis, int(numbers[part[0]]), values)
            # Part by part: of pieces that stay alone the oldest are dropped.
            self._ready += self._whole_frames()

    def add_numbered(self, rows: NDArray[np.float64], first: int) -> None:
        """Takes captures of all axes (capture, axis + 1); the last column numbers them, from `first` on.

        Those whose number cannot be one are left out.
        """
        told = rows[:, -1] - first
        is_number = (told >= 0) & (told <= MAX_SEQ_NUM)
        self.add_rows(np.rint(told[is_number]).astype(np.int64), rows[is_number, :-1])

    def pages(self) -> list[Said]:
        """Returns the frames that have all their captures by now and were not given before."""
        ready, self._ready = self._ready, []
        return [*ready, *self._whole_frames()]

    def _whole_frames(self) -> list[Said]:
        pages = []
        while (frames := self._held.read()) is not None:
            pages.append(self._page(frames))
        return pages

    def stop(self, status: str = "success", reason: str = "") -> list[Said]:
        """Returns the end of the run that is open, nothing where none is."""
        if not self.is_open:
            return []
        document = {
            "uid": str(uuid.uuid4()),
            "run_start": self._start["uid"],
            "time": self._clock(),
            "exit_status": status,
            "reason": reason,
        }
        pages, self._start = self.pages(), {}
        return [*pages, ("stop", document)]

    def resume(self, name: str, document: Document) -> None:
        """Goes on with the run of the same kind that a process before this one has left open."""
        if name == "start":
            self._start = document if document.get(SOURCE_KEY) == self._kind else {}
            self._n_frames, self._held = 0, FlownAxes(len(self.axes))
        elif self.is_open and name == "descriptor":
            self._descriptor = str(document.get("uid"))
        elif self.is_open and name == "event_page" and document.get("descriptor") == self._descriptor:
            numbers = document.get("seq_num")
            whole = [int(number) for number in numbers or () if is_whole(number, 1)]
            self._n_frames = max([self._n_frames, *whole])
        elif name == "stop" and document.get("run_start") == self._start.get("uid"):
            self._start = {}

    def _page(self, frames: Frames) -> Said:
        numbers = (frames.numbers + 1).tolist()
        self._n_frames = max(self._n_frames, numbers[-1])
        n_captures, now = self.captures_per_frame, self._clock()
        data = {
            axis: values if n_captures > 1 else values.reshape(-1)
            for axis, values in zip(self.axes, frames.captures, strict=True)
        }
        return "event_page", {
            "descriptor": self._descriptor,
            "uid": [f"{self._descriptor}/{number}" for number in numbers],
            "seq_num": numbers,
            "time": [now] * len(numbers),
            "timestamps": {axis: [now] * len(numbers) for axis in self.axes},
            "data": data,
        }
