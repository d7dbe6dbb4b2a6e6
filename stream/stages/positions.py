"""The position stage: bluesky documents or a file in, `positions_m` of each scan out.

Every document of a run is also recorded in the scan's folder as it comes, for the store and for a restart
of this stage.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from operators.arrays import Positions as PositionArray
from stream.atomic import DiskFullError
from stream.documents.codec import (
    PARENT_OF,
    Document,
    DocumentError,
    append_records,
    as_record,
    decode_document,
    read_documents,
    repair_record,
)
from stream.documents.config import PositionsConfig
from stream.documents.pairing import RunPairing
from stream.documents.position_file import load_positions
from stream.documents.position_reader import PositionReader, Rows
from stream.documents.position_writer import STAGE, PositionWriter
from stream.documents.stream_files import StreamFiles
from stream.record.scan import NewScans, Numbers, Scan
from stream.stages.refusals import Complaints, in_words
from stream.stages.stage import Inlet
from stream.wire.codec import Buffer
from stream.wire.foreign import in_short
from stream.wire.sockets import MAX_REQUEST_BYTES

log = logging.getLogger(__name__)

Placed = tuple[Numbers, PositionArray]  # frame numbers and positions, metres

KEPT_RUNS = 8  # runs that have ended and may still be named by a series or get a late document
KEPT_STRANGERS = 64  # open runs without positions and without a series
LOOK_S, PIECES_AT_ONCE = 0.1, 8  # between two looks into the files of a run; of one look
PATIENCE_S = 2.0  # until a file that cannot be read yet is named


@dataclass(slots=True)
class _Run:
    uid: str
    reader: PositionReader
    series: str = ""  # which its start names
    is_over: bool = False
    over_at: float | None = None
    is_ours: bool = False  # it has positions
    is_joined: bool = False  # its start was missed
    records: list[bytes] = field(default_factory=list)  # documents that are not on disk yet
    rows: list[Rows] = field(default_factory=list)  # not written yet
    looks_at: float = float("-inf")  # into its files, again
    waits_since: float | None = None  # for them


@dataclass(slots=True)
class _Series:
    writer: PositionWriter
    detector_closed_at: float | None = None


class Positions:
    """Source: brings positions to their frames.

    It takes up the documents of scans that an earlier process left open.

    Parameters
    ----------
    config : PositionsConfig
    scans : Path
        Folder of scans.
    config_hash : str
        Of the run: a file of positions is that of scans with the same.

    Raises
    ------
    ValueError
        If the file of positions cannot be used.
    """

    def __init__(self, config: PositionsConfig, scans: Path, *, config_hash: str = "") -> None:
        self.config, self._config_hash = config, config_hash
        self.inlet: Inlet | None = None
        if config.source == "documents":
            self.inlet = Inlet("SUB", (config.endpoint(),), config.queue, MAX_REQUEST_BYTES)
        self._files = StreamFiles(config.folders, config.root_map)
        self._new = NewScans(scans)
        self._without_room: list[Scan] = []  # scans that cannot be begun with
        self._series: dict[str, _Series] = {}
        self._runs: dict[str, _Run] = {}
        self._owner: dict[str, str] = {}  # uid of a descriptor or resource: uid of its run
        self._pairing = RunPairing()
        self._table = self._read_table()
        self._current: PositionWriter | None = None
        self._complaints = Complaints(log, "documents")
        self._positions_complaints = Complaints(log, "positions")
        self._n_refused = 0
        self._look_for_unfinished()

    def handle(self, messages: Sequence[Sequence[Buffer]]) -> None:
        """Takes documents in the order of arrival; what is none is counted and named, never fatal."""
        self._look_for_series()
        for parts in messages:
            try:
                self._take(*decode_document(parts[0] if len(parts) == 1 else b"".join(parts)))
            except DocumentError as error:
                self._refuse(error)
        self._write_out()

    def idle(self, now: float) -> None:
        """Looks for new series and ends those for which no more positions will come."""
        self._look_for_series()
        for run in self._runs.values():
            self._look_into_files(run, now)
        self._write_out()
        for name, series in list(self._series.items()):
            if not series.writer.is_closed and self._is_due(name, series, now):
                self._write_out(name)
                self._say_what_is_missing(name)
                self._pairing.give_up(name)
                series.writer.close()
        self._give_up_runs(now)
        self._say(now)
        self._forget()

    def close(self) -> None:
        """Writes what has come and ends every scan."""
        self._look_for_series()
        while any(self._take_from_files(run) for run in self._runs.values()):
            self._write_out()
        self._write_out()
        for name, series in self._series.items():
            self._write_out(name)
            self._say_what_is_missing(name)
            series.writer.close()
        self._say(0.0, force=True)

    def progress(self) -> tuple[str, dict[str, int]]:
        """Returns the newest scan and what became of its positions."""
        if self._current is None:
            return "", {"refused": self._n_refused}
        return self._current.scan.name, {**self._current.counts(), "refused": self._n_refused}

    def _read_table(self) -> Placed | None:
        """Return frame numbers and positions of the file, None if documents bring them."""
        if self.config.source != "file" or self.config.path is None:
            return None
        positions_m = load_positions(self.config.path, self.config)
        return np.arange(len(positions_m)), positions_m

    def _look_for_unfinished(self) -> None:
        found = self._new.look()
        for scan in found:
            # The newest may lack only the end of its documents.
            if scan is found[-1] or not scan.count(STAGE, "closed"):
                self._resume(scan)
            else:
                scan.close()  # there may be more than a process may have open

    def _look_for_series(self) -> None:
        waiting, self._without_room = self._without_room, []
        for scan in [*waiting, *self._new.look()]:
            try:
                self._open(scan)
            except DiskFullError as error:
                self._without_room.append(scan)
                if scan not in waiting:
                    log.warning("positions of %s wait for room on the disk: %s", scan.name, in_words(error))

    def _open(self, scan: Scan) -> None:
        config = self.config
        self._current = PositionWriter(
            scan,
            config.field_m,
            settling_frames=config.settling_frames,
            line_frames=config.line_frames,
        )
        self._series[scan.name] = _Series(self._current)
        if self._table is not None:
            if not self._current.is_closed and scan.header.config_hash == self._config_hash:
                self._current.write(*self._table)
        else:
            self._pairing.add_series(scan.name, (scan.header.series_uid, str(scan.header.series_id)))

    def _resume(self, scan: Scan) -> None:
        if damage := repair_record(scan.folder):
            log.warning("documents of %s are used up to where they are damaged, %s", scan.name, damage)
        documents = read_documents(scan.folder)
        if documents and documents[0][0] == "start":
            self._pairing.pair(str(documents[0][1].get("uid")), scan.name)
        self._open(scan)
        for name, document in documents:
            try:
                run = self._take(name, document)
            except DocumentError as error:
                self._refuse(error)
                continue
            _restore(self._series[scan.name].writer, run)
        for run in self._runs.values():
            if self._pairing.scan_of(run.uid) == scan.name:
                while self._take_from_files(run):
                    _restore(self._series[scan.name].writer, run)
            run.records.clear()

    def _look_into_files(self, run: _Run, now: float) -> None:
        """Take positions of a run that its files hold by now."""
        if now < run.looks_at or not run.reader.flown.is_waiting:
            return
        run.looks_at = now if all(self._take_from_files(run) for _ in range(PIECES_AT_ONCE)) else now + LOOK_S
        if not run.reader.flown.waits_for:
            run.waits_since = None
        elif run.waits_since is None:
            run.waits_since = now
        elif now - run.waits_since >= PATIENCE_S:
            run.waits_since = float("inf")  # said
            log.warning("positions wait: %s", run.reader.flown.waits_for)

    def _take_from_files(self, run: _Run) -> bool:
        """Take one look at the files of a run that has a scan; say whether another may find more at once."""
        series = self._series.get(self._pairing.scan_of(run.uid) or "")
        if series is None or series.writer.is_closed:
            return False
        try:
            rows = run.reader.read_files()
        except DocumentError as error:
            self._refuse(error)
            return True
        if not len(rows.numbers):
            return False
        run.rows.append(rows)
        run.waits_since = None
        return True

    def _say_what_is_missing(self, name: str) -> None:
        run = self._runs.get(self._pairing.run_of(name) or "")
        if run is not None and run.reader.flown.waits_for:
            run.waits_since = float("inf")  # said
            log.warning("positions of %s are not all there: %s", name, run.reader.flown.waits_for)

    def _take(self, name: str, document: Document) -> _Run:
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

    def _is_ours(self, run: _Run) -> None:
        """Take note of a run's positions: it follows those before, whose end may have been lost."""
        for earlier in self._runs.values():
            earlier.is_over = earlier.is_over or earlier is not run
        run.is_ours = True
        self._pairing.note_positions(run.uid)

    def _start(self, document: Document) -> _Run:
        uid = document.get("uid")
        if not (isinstance(uid, str) and uid):
            raise DocumentError(f"start document with uid {in_short(uid)}: wanted a text")
        if uid in self._runs:
            raise DocumentError(f"run {in_short(uid)} started twice")
        series = document.get(self.config.series_key)
        series = "" if series is None else series
        if not isinstance(series, str | int) or isinstance(series, bool):
            key = self.config.series_key
            raise DocumentError(f"start document with {key} {in_short(series)}: wanted a text or a number")
        self._runs[uid] = run = _Run(uid, PositionReader(self.config, self._files), str(series))
        self._owner[uid] = uid
        self._pairing.start_run(uid, run.series)
        return run

    def _owner_of(self, name: str, document: Document) -> _Run:
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
        open_runs = [run for run in self._runs.values() if run.is_ours and not run.is_over]
        if name == "stop" and open_runs and open_runs[-1].is_joined:
            return open_runs[-1].uid
        if open_runs or name not in ("event", "event_page"):
            return None
        reader = PositionReader(self.config, self._files)
        reader.join(document)
        self._runs[parent], self._owner[parent] = _Run(parent, reader, is_joined=True), parent
        self._pairing.start_run(parent)
        return parent

    def _write_out(self, ending: str = "") -> None:
        """Write what has come of runs that have a scan: of strangers, which have it by order, at its end."""
        for run in self._runs.values():
            name = self._pairing.scan_of(run.uid) or ""
            series = self._series.get(name)
            if series is None or not (run.records or run.rows):
                continue
            if not (run.is_ours or run.series or name == ending):
                continue
            # Recorded first: what a crash keeps from the columns is in the documents.
            try:
                append_records(series.writer.scan.folder, run.records)
            except DiskFullError as error:
                reason = f"documents of {name} are not recorded, their positions are: {in_words(error)}"
                self._n_refused += len(run.records)
                self._complaints.add(reason, len(run.records))
            for rows in run.rows:
                _write(series.writer, run.reader, rows)
            run.records.clear()
            run.rows.clear()

    def _is_due(self, name: str, series: _Series, now: float) -> bool:
        if not series.writer.scan.count("subscriber", "closed"):
            return False
        if series.detector_closed_at is None:
            series.detector_closed_at = now
        run = self._runs.get(self._pairing.run_of(name) or "")
        is_over = run is not None and run.is_over and not run.reader.flown.is_waiting
        is_all_here = self._table is not None or is_over
        return is_all_here or now - series.detector_closed_at >= self.config.late_s

    def _give_up_runs(self, now: float) -> None:
        for run in self._runs.values():
            if run.is_over and run.over_at is None:
                run.over_at = now
            if run.over_at is not None and now - run.over_at >= self.config.late_s:
                self._pairing.give_up_run(run.uid)

    def _say(self, now: float, *, force: bool = False) -> None:
        for series in self._series.values():
            for n, sentence in series.writer.refused:
                self._positions_complaints.add(sentence, n)
            series.writer.refused.clear()
        for complaints in (self._complaints, self._positions_complaints):
            complaints.say(now, force=force)

    def _refuse(self, error: DocumentError) -> None:
        self._n_refused += 1
        self._complaints.add(str(error))

    def _forget(self) -> None:
        over = [run.uid for run in self._runs.values() if run.is_over]
        strangers = [
            run.uid
            for run in self._runs.values()
            if not (run.is_over or run.is_ours or self._pairing.scan_of(run.uid))
        ]
        for uid in [
            *over[: max(len(over) - KEPT_RUNS, 0)],
            *strangers[: max(len(strangers) - KEPT_STRANGERS, 0)],
        ]:
            del self._runs[uid]
            self._pairing.forget_run(uid)
            self._owner = {child: owner for child, owner in self._owner.items() if owner != uid}
        for name, series in list(self._series.items()):
            if series.writer.is_closed and self._pairing.run_of(name) not in self._runs:
                del self._series[name]
                self._pairing.forget_series(name)
                series.writer.scan.close()


def _in_metres(reader: PositionReader, rows: Rows) -> Placed:
    """Return those that are numbers, of frames whose probe was at rest."""
    is_number = np.isfinite(rows.raw).all(axis=1) & ~rows.is_settling
    return rows.numbers[is_number], reader.to_metres(rows.raw[is_number])


def _restore(writer: PositionWriter, run: _Run) -> None:
    for rows in run.rows:
        writer.leave_out(rows.numbers[rows.is_settling])
        writer.restore(*_in_metres(run.reader, rows))
    run.rows.clear()


def _write(writer: PositionWriter, reader: PositionReader, rows: Rows) -> None:
    numbers, positions_m = _in_metres(reader, rows)
    writer.leave_out(rows.numbers[rows.is_settling])
    writer.reject(len(rows.numbers) - int(rows.is_settling.sum()) - len(numbers))
    writer.write(numbers, positions_m)
