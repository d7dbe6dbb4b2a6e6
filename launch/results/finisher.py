"""Process: brings scans to their end while the next one is scanned: closing epochs, final stitch, resolution.

The live stages hand a scan over when its last frame is in the image and the next scan has begun
(`stream.record.handover`). Here their own code goes on with it, stage after stage, one scan at a time, in a
process that gives way to everything else. The queue is the folder of scans: a finisher that dies, or whose
run ends, leaves each scan as it last wrote it, and the next one goes on from there. Results and store are the
recorder's, which waits for the scan to be closed, whoever closes it. What the recorder had no time for, the
resolution, is measured when no scan waits.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Literal

from launch.results.halves import LeftMeasurements
from launch.results.retention import Retention
from operators.arrays import release_memory
from stream.record.handover import FINISHED_LATER, awaits_finishing, has_left, have_closed, is_left_behind
from stream.record.scan import NewScans, Scan, order_of
from stream.stages.cursor import ScanCursor
from stream.stages.link import Link, StageContext
from stream.stages.refusals import in_words
from stream.stages.stage import Worker

log = logging.getLogger(__name__)

SOURCES = ("subscriber", "positions")
LOOK_S = 0.2  # between two looks for a scan that was handed over


class Finisher:
    """Service: closes the scans of a folder that were handed over.

    Parameters
    ----------
    context : StageContext
        Whose run's scans go first; those that an earlier run has left unfinished follow.
    order : str
        Which of them goes first.
    stages_of : callable
        Takes the id of the run that recorded a scan, returns by name, in their order, what makes each stage
        that closes it. A stage is made when there is work for it, so that a run without any loads nothing.
    measurements : LeftMeasurements
    clock : callable
        Monotonic seconds.
    live : collection of str
        The stages of this run, which may be on a scan themselves.
    retention : Retention, optional
        What removes finished scans.
    """

    def __init__(
        self,
        context: StageContext,
        order: Literal["oldest", "newest"],
        stages_of: Callable[[str], Mapping[str, Callable[[], Worker]]],
        measurements: LeftMeasurements,
        clock: Callable[[], float] = time.monotonic,
        *,
        live: Collection[str] = (),
        retention: Retention | None = None,
    ) -> None:
        self._context, self._order, self._clock = context, order, clock
        self._stages_of, self._measurements, self._live = stages_of, measurements, live
        self._retention = retention
        self._cursor: ScanCursor | None = None
        self._new = NewScans(context.scans)
        self._waiting: dict[str, Scan] = {}  # those that may come to need it
        self._makers: dict[str, Mapping[str, Callable[[], Worker]]] = {}  # by run
        self._stages: dict[tuple[str, str], Worker] = {}  # by run and name

    def run(self, link: Link) -> None:
        """Closes what is handed over until it is told to stop; what it is at then is closed as it is."""
        link.ready()
        while not link.is_stopped:
            link.wait(self.turn())
            if self._retention is not None:
                self._retention.turn(link.notice)
            link.report(*self.progress(), self._clock())
        self.finish()

    def turn(self) -> float:
        """Does one piece of work; returns how long it is safe to sleep."""
        if self._cursor is None and (cursor := self._next()) is not None:
            self._measurements.make_way()
            self._cursor = cursor
        if self._cursor is None:
            self._measurements.turn()
            return LOOK_S
        pause_s = self._cursor.turn()
        if pause_s is None:
            self._close(self._cursor)
            return 0.0
        return pause_s

    def finish(self) -> None:
        """Closes the scan in hand with what it has come to; others stay handed over, for the next run.

        So does one of an earlier run: nobody has asked that this run gives it up.
        """
        self._measurements.make_way()
        while self._cursor is not None:
            if self._cursor.scan.header.run_id != self._context.run_id:
                self._cursor.work.hand_over()
                return
            self._close(self._cursor)

    def progress(self) -> tuple[str, dict[str, int]]:
        """Returns the name of the scan in hand and the figures of its stage."""
        if self._cursor is not None:
            return self._cursor.scan.name, self._cursor.work.counts()
        measured = self._measurements.scan
        return (measured.name, {"measuring": 1}) if measured is not None else ("", {})

    def _close(self, cursor: ScanCursor) -> None:
        cursor.close()
        scan = cursor.scan
        del cursor
        self._cursor = None  # its frames are given up before the next stage reads its own
        release_memory()
        self._cursor = self._cursor_in(scan)
        if self._cursor is None:
            scan.close()

    def _next(self) -> ScanCursor | None:
        self._waiting |= {scan.name: scan for scan in self._new.look()}
        waiting = []
        for name, scan in list(self._waiting.items()):
            if awaits_finishing(scan) or self._is_left_behind(scan):
                waiting.append(scan)
            elif scan.count(FINISHED_LATER[-1], "closed"):
                scan.close()  # there may be more than a process may have open
                del self._waiting[name]
        waiting.sort(key=lambda scan: order_of(scan.name), reverse=self._order == "newest")
        waiting.sort(key=lambda scan: scan.header.run_id != self._context.run_id)
        cursor = next(filter(None, map(self._cursor_in, waiting)), None)
        for scan in waiting:  # there may be many, and what is looked at is open
            if cursor is None or scan is not cursor.scan:
                scan.close()
        return cursor

    def _is_left_behind(self, scan: Scan) -> bool:
        """Whether an earlier run has ended in the middle of the scan, of which no more comes."""
        is_so = is_left_behind(scan, self._context.run_id, self._context.config_hash)
        return is_so and not scan.count(FINISHED_LATER[-1], "closed")

    def _cursor_in(self, scan: Scan) -> ScanCursor | None:
        """Return what is to be done next in a scan, None where a live stage is still on it or all is done."""
        run_id = scan.header.run_id
        try:
            stage = self._next_stage(scan, run_id)
        except (ValueError, ImportError, OSError, RuntimeError) as error:
            log.warning("scans of run %s stay unfinished: %s", run_id, in_words(error))
            self._makers[run_id], stage = {}, None
        if not self._makers[run_id]:
            self._waiting.pop(scan.name, None)
        return ScanCursor(stage, scan, self._clock) if stage else None

    def _next_stage(self, scan: Scan, run_id: str) -> Worker | None:
        if run_id not in self._makers:
            self._makers[run_id] = self._stages_of(run_id)
        makers = self._makers[run_id]
        if not have_closed(scan, SOURCES) or not all(self._is_free(scan, name) for name in makers):
            return None
        for name, make in makers.items():
            if not scan.count(name, "closed"):
                key = run_id, name
                self._stages[key] = stage = self._stages.get(key) or make()
                return stage
        return None

    def _is_free(self, scan: Scan, stage: str) -> bool:
        """Whether no live process is at work on the scan as `stage`, or will be."""
        is_of_this_run = scan.header.run_id == self._context.run_id
        has_process = is_of_this_run or (stage in self._live and scan.has_stage(stage))
        return has_left(scan, stage) or not has_process
