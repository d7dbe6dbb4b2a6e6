"""Bluesky runs that are open or have just ended: whose a document is, and which series each has."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

from stream.documents.codec import PARENT_OF, Document, DocumentError, as_record
from stream.documents.config import PositionsConfig
from stream.documents.pairing import RunPairing
from stream.documents.position_reader import PositionReader, Rows
from stream.documents.stream_files import StreamFiles
from stream.documents.waiting import Waiting
from stream.wire.foreign import in_short

log = logging.getLogger(__name__)

KEPT_RUNS = 8  # that have ended and may still be named by a series or get a late document
KEPT_STRANGERS = 64  # open runs without positions and without a series


@dataclass(slots=True)
class Run:
    """One run, and what has come of it that is not written yet."""

    uid: str
    reader: PositionReader
    series: str = ""  # which its start names
    is_over: bool = False
    over_at: float | None = None
    is_ours: bool = False  # it has positions
    is_joined: bool = False  # its start was missed
    records: list[bytes] = field(default_factory=list)  # documents that are not on disk yet
    rows: list[Rows] = field(default_factory=list)
    looks_at: float = float("-inf")  # into its files, again
    waiting: Waiting = field(default_factory=Waiting)  # for them


class Runs:
    """Takes documents of several runs as they come.

    Parameters
    ----------
    config : PositionsConfig
    pairing : RunPairing
        Hears of the runs.
    """

    def __init__(self, config: PositionsConfig, pairing: RunPairing) -> None:
        self._series_key, self._fields, self._pairing = config.series_key, config.meaning(), pairing
        self._files = StreamFiles(config.folders, config.root_map)
        self._runs: dict[str, Run] = {}
        self._owner: dict[str, str] = {}  # uid of a descriptor or resource: uid of its run

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs.values())

    def __len__(self) -> int:
        return len(self._runs)

    def of_scan(self, name: str) -> Run | None:
        """Returns the run of a scan, None while it has none."""
        return self._runs.get(self._pairing.run_of(name) or "")

    def take(self, name: str, document: Document) -> Run:
        """Takes one document; returns its run, with what it says.

        Raises
        ------
        DocumentError
            If it belongs to no run that is known, or does not say what it should.
        """
        record = as_record(name, document)
        run = self._start(document) if name == "start" else self._owner_of(name, document)
        run.records.append(record)
        if name in ("descriptor", "resource", "stream_resource"):
            self._owner[str(document.get("uid"))] = run.uid
        if name == "stop":
            run.is_over = True
            self._pairing.stop_run(run.uid)
        rows = run.reader.read(name, document)
        if run.reader.has_positions and not run.is_ours:
            self._is_ours(run)
        if len(rows.numbers):
            run.rows.append(rows)
        return run

    def give_up(self, now: float, late_s: float) -> None:
        """Lets runs that have been over for `late_s` seconds get no series any more by their order."""
        for run in self:
            if run.is_over and run.over_at is None:
                run.over_at = now
            if run.over_at is not None and now - run.over_at >= late_s:
                self._pairing.give_up_run(run.uid)

    def close_paired(self) -> None:
        """Lets no other series take a run that has one for a run that goes on."""
        for run in self:
            if self._pairing.scan_of(run.uid):
                self._pairing.stop_run(run.uid)

    def forget(self) -> None:
        """Forgets the oldest of those that are over, and of strangers."""
        over = [run.uid for run in self if run.is_over]
        strangers = [
            run.uid for run in self if not (run.is_over or run.is_ours or self._pairing.scan_of(run.uid))
        ]
        for uid in [
            *over[: max(len(over) - KEPT_RUNS, 0)],
            *strangers[: max(len(strangers) - KEPT_STRANGERS, 0)],
        ]:
            del self._runs[uid]
            self._pairing.forget_run(uid)
            self._owner = {child: owner for child, owner in self._owner.items() if owner != uid}

    def _is_ours(self, run: Run) -> None:
        """Take note of a run's positions: it follows those before, whose end may have been lost."""
        for earlier in self:
            earlier.is_over = earlier.is_over or earlier is not run
        run.is_ours = True
        self._pairing.note_positions(run.uid)

    def _start(self, document: Document) -> Run:
        uid = document.get("uid")
        if not (isinstance(uid, str) and uid):
            raise DocumentError(f"start document with uid {in_short(uid)}: wanted a text")
        if uid in self._runs:
            raise DocumentError(f"run {in_short(uid)} started twice")
        series = document.get(self._series_key)
        series = "" if series is None else series
        if not isinstance(series, str | int) or isinstance(series, bool):
            key = self._series_key
            raise DocumentError(f"start document with {key} {in_short(series)}: wanted a text or a number")
        self._runs[uid] = run = Run(uid, PositionReader(self._fields, self._files), str(series))
        self._owner[uid] = uid
        self._pairing.start_run(uid, run.series)
        return run

    def _owner_of(self, name: str, document: Document) -> Run:
        parent = str(document.get(PARENT_OF[name]))
        uid = self._owner.get(parent) or self._joined(name, parent, document)
        if uid is None:
            raise DocumentError(
                f"{name} document of unknown {PARENT_OF[name]} {in_short(parent)}: was its start lost?"
            )
        return self._runs[uid]

    def _joined(self, name: str, parent: str, document: Document) -> str | None:
        """Return the run of a document whose start was missed, None while another run is open.

        The uid of such a run is unknown: it goes by that of the descriptor of its events.
        """
        open_runs = [run for run in self if run.is_ours and not run.is_over]
        if name == "stop" and open_runs and open_runs[-1].is_joined:
            return open_runs[-1].uid
        if open_runs or name not in ("event", "event_page"):
            return None
        reader = PositionReader(self._fields, self._files)
        reader.join(document)
        self._runs[parent], self._owner[parent] = Run(parent, reader, is_joined=True), parent
        self._pairing.start_run(parent)
        return parent
