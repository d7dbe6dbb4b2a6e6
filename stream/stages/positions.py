"""The position stage: positions from their source in, `positions_m` of each scan out.

Every document of a run is also recorded in the scan's folder as it comes, for the store and for a restart
of this stage.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stream.atomic import DiskFullError
from stream.detector.files.series import name_in
from stream.documents.codec import DocumentError, append_records, read_documents, repair_record
from stream.documents.config import PositionsConfig
from stream.documents.pairing import RunPairing
from stream.documents.position_file import load_positions
from stream.documents.position_reader import Placed
from stream.documents.position_writer import STAGE, PositionWriter
from stream.documents.runs import Run, Runs
from stream.documents.sources.choice import source_of
from stream.documents.sources.protocol import PolledSource, Said, WireSource
from stream.documents.waiting import Waiting
from stream.record.scan import NewScans, Scan
from stream.stages.refusals import Complaints, in_words
from stream.stages.stage import Inlet
from stream.wire.codec import Buffer
from stream.wire.sockets import MAX_REQUEST_BYTES

log = logging.getLogger(__name__)

LOOK_S, PIECES_AT_ONCE = 0.1, 8  # between two looks into the files of a run; of one look
MOST_ROUNDS = 1000  # of what a source still has at the end


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
        self._source = source_of(config, scans)
        if isinstance(self._source, WireSource):
            endpoint = config.endpoint()
            self.inlet = Inlet(self._source.pattern, (endpoint,), config.queue, MAX_REQUEST_BYTES)
        self._source_waiting, self._news_at = Waiting(), float("-inf")
        self._new = NewScans(scans)
        self._without_room: list[Scan] = []  # scans that cannot be begun with
        self._series: dict[str, _Series] = {}
        self._pairing = RunPairing()
        self._runs = Runs(config, self._pairing)
        self._table = self._read_table()
        self._current: PositionWriter | None = None
        self._complaints = Complaints(log, "documents refused")
        self._doubts = Complaints(log, "runs in doubt")
        self._positions_complaints = Complaints(log, "positions refused")
        self._n_refused = 0
        self._look_for_unfinished()

    def handle(self, messages: Sequence[Sequence[Buffer]]) -> None:
        """Takes messages in the order of arrival; what cannot be read is counted and named, never fatal."""
        self._look_for_series()
        for parts in messages:
            if isinstance(self._source, WireSource):
                self._take(self._source.decode, parts)
        self._write_out()

    def idle(self, now: float) -> None:
        """Looks for what has come and for new series, and ends those that get no more positions."""
        self._look_for_series()
        if isinstance(self._source, PolledSource):
            if self._take(self._source.receive):
                self._news_at = now
            self._end_stray(now)
            if missing := self._source_waiting.look(now, self._source.waits_for):
                log.warning("positions wait: %s", missing)
        for run in self._runs:
            self._look_into_files(run, now)
        self._write_out()
        for name, series in list(self._series.items()):
            if not series.writer.is_closed and self._is_due(name, series, now):
                self._end(name, series)
                self._pairing.give_up(name)
        self._runs.give_up(now, self.config.late_s)
        self._say(now)
        self._forget()

    def close(self) -> None:
        """Writes what has come and ends every scan."""
        self._look_for_series()
        for _ in range(MOST_ROUNDS):
            if not (isinstance(self._source, PolledSource) and self._take(self._source.receive)):
                break
        while any(self._take_from_files(run) for run in self._runs):
            self._write_out()
        self._write_out()
        for name, series in self._series.items():
            self._end(name, series)
        if self._source is not None:
            self._source.close()
        self._say(0.0, force=True)

    def progress(self) -> tuple[str, dict[str, int]]:
        """Returns the newest scan and what became of its positions."""
        if self._current is None:
            return "", {"refused": self._n_refused}
        return self._current.scan.name, {**self._current.counts(), "refused": self._n_refused}

    def _read_table(self) -> Placed | None:
        """Return the positions of the file, None where they come from a source."""
        if self._source is not None or self.config.path is None:
            return None
        positions_m = load_positions(self.config.path, self.config)
        return Placed(np.arange(len(positions_m)), positions_m)

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
                self._current.write(self._table)
        else:
            if self._source is not None and not self._source.hears_ends:
                self._runs.close_paired()  # the next series is of a run that is still to begin
            uid = scan.header.series_uid
            self._pairing.add_series(scan.name, (uid, str(scan.header.series_id), name_in(uid)))

    def _resume(self, scan: Scan) -> None:
        if damage := repair_record(scan.folder):
            log.warning("documents of %s are used up to where they are damaged, %s", scan.name, damage)
        documents = read_documents(scan.folder)
        if documents and documents[0][0] == "start":
            self._pairing.pair(str(documents[0][1].get("uid")), scan.name)
        self._open(scan)
        writer = self._series[scan.name].writer
        for name, document in documents:
            try:
                run = self._runs.take(name, document)
            except DocumentError as error:
                self._refuse(error)
                continue
            if self._source is not None:
                self._source.resume(name, document)
            _restore(writer, run)
        for run in self._runs:
            if self._pairing.scan_of(run.uid) == scan.name:
                while self._take_from_files(run):
                    _restore(writer, run)
            run.records.clear()

    def _take(self, said: Callable[..., Sequence[Said]], *message: Sequence[Buffer]) -> bool:
        """Take the documents that a source makes of something; say whether there are any."""
        try:
            documents = said(*message)
        except DocumentError as error:
            self._refuse(error)
            return True
        for name, document in documents:
            try:
                self._runs.take(name, document)
            except DocumentError as error:
                self._refuse(error)
        return bool(documents)

    def _end_stray(self, now: float) -> None:
        """End the run of a source that hears of no end, when it is silent and no series came for it."""
        if self._source is None or self._source.hears_ends or self.config.take_existing:
            return
        stray = [
            run for run in self._runs if not (run.is_over or run.series or self._pairing.scan_of(run.uid))
        ]
        if stray and now - self._news_at >= self.config.late_s:
            log.warning("positions came, and for %g s no series that they could be of", self.config.late_s)
            self._take(self._source.finish)

    def _end(self, name: str, series: _Series) -> None:
        """Write what has come for a series, and end it."""
        run = self._runs.of_scan(name)
        if self._source is not None and run is not None and not run.is_over:
            self._take(self._source.finish)
        self._write_out(name)
        if run is not None and run.reader.flown.waits_for:
            run.waiting.is_told()
            log.warning("positions of %s are not all there: %s", name, run.reader.flown.waits_for)
        series.writer.close()

    def _look_into_files(self, run: Run, now: float) -> None:
        """Take positions of a run that its files hold by now."""
        if now < run.looks_at or not run.reader.flown.is_waiting:
            return
        run.looks_at = now if all(self._take_from_files(run) for _ in range(PIECES_AT_ONCE)) else now + LOOK_S
        if missing := run.waiting.look(now, run.reader.flown.waits_for):
            log.warning("positions wait: %s", missing)

    def _take_from_files(self, run: Run) -> bool:
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
        run.waiting.is_over()
        return True

    def _write_out(self, ending: str = "") -> None:
        """Write what has come of runs that have a scan: of strangers, which have it by order, at its end."""
        for run in self._runs:
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
                series.writer.write(run.reader.placed(rows))
            run.records.clear()
            run.rows.clear()

    def _is_due(self, name: str, series: _Series, now: float) -> bool:
        if not series.writer.scan.count("subscriber", "closed"):
            return False
        if series.detector_closed_at is None:
            series.detector_closed_at = now
        run = self._runs.of_scan(name)
        is_over = run is not None and run.is_over and not run.reader.flown.is_waiting
        if self._source is not None and not self._source.hears_ends:
            is_over = is_over or series.writer.is_complete
        is_all_here = self._table is not None or is_over
        return is_all_here or now - series.detector_closed_at >= self.config.late_s

    def _say(self, now: float, *, force: bool = False) -> None:
        for series in self._series.values():
            for n, sentence in series.writer.refused:
                self._positions_complaints.add(sentence, n)
            series.writer.refused.clear()
        for run in self._runs:
            for doubt in run.reader.doubts:
                self._doubts.add(doubt)
            run.reader.doubts.clear()
        for complaints in (self._complaints, self._doubts, self._positions_complaints):
            complaints.say(now, force=force)

    def _refuse(self, error: DocumentError) -> None:
        self._n_refused += 1
        self._complaints.add(str(error))

    def _forget(self) -> None:
        self._runs.forget()
        for name, series in list(self._series.items()):
            if series.writer.is_closed and self._runs.of_scan(name) is None:
                del self._series[name]
                self._pairing.forget_series(name)
                series.writer.scan.close()


def _restore(writer: PositionWriter, run: Run) -> None:
    for rows in run.rows:
        writer.restore(run.reader.placed(rows))
    run.rows.clear()
