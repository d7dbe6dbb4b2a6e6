"""How a run stands, for everybody who looks on: one sentence, the stages' rows, and what is worth a note."""

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from launch.config.run_file import ResolvedRun
from launch.offline.orientation_watch import OrientationWatch
from launch.page.status import Status, verdict
from launch.results.summary import result_folder
from launch.run.processes import StageProcess
from launch.run.stage_states import NAMES, StageStates
from stream.record.account import Accounts, account, counted, incompleteness
from stream.record.events import EventLevel
from stream.record.handover import runs_of, was_handed_over
from stream.record.scan import Scan
from stream.wire.messages import FinishedScan, RunLevel, RunState, StageState

log = logging.getLogger(__name__)

STEERING = NAMES["policy"]
BESIDE = (
    "cluster",
    "finetune",
    "finisher",
    "gateway",
    NAMES["viewer"],
)  # the image follows the scan without them
TROUBLE = ("error", "warning")  # the worst first
MOST_FINISHED = 16  # scans that are told of to who joins late
MOST_SAID = 2  # troubles in one sentence; the rows have all

Note = Callable[[str, EventLevel, str, str], None]  # source, level, text, scan
OnNotice = Callable[[str, int, str], None]  # stage, logging level, text


def log_notice(stage: str, level: int, text: str) -> None:
    """Leaves what a stage has to tell in the log, where nobody else is to be told."""
    log.log(level, "%s: %s", stage, text)


class RunWatch:
    """Looks at a run again and again and says what it sees.

    Parameters
    ----------
    run : ResolvedRun
    note : callable
        Gets what happened, once: a scan begins or ends, a stage gets into trouble or out of it.
    clock : callable
        Monotonic seconds.
    announce : callable
        Gets the sentence for a person when a scan that was handed over is finished and its results written.
    """

    def __init__(
        self,
        run: ResolvedRun,
        note: Note,
        clock: Callable[[], float],
        announce: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._states, self._note, self._announce = StageStates(run, clock), note, announce
        # While one of several does its work, the stage that they share says how far it is.
        self._beside = {STEERING, *BESIDE, *(spec.name for spec in run.stages if spec.shares)}
        self._before: dict[str, StageState] = {}
        self._n_begun = 0
        self._seen: Sequence[Scan] = ()
        self._newest: tuple[Scan, Accounts] | None = None
        self._verdicts: dict[str, Status] = {}  # of the scans whose image is final
        self._recorded: set[str] = set()  # scans whose results are written
        self._finished: deque[FinishedScan] = deque(maxlen=MOST_FINISHED)
        self._results = result_folder(run.config.save)
        self._orientation = OrientationWatch() if run.config.results.orientation else None

    @property
    def may_say_why(self) -> bool:
        """Whether a scan is incomplete, and what its frames contradict is still being looked at."""
        is_asking = self._orientation is not None and self._orientation.is_asking
        return is_asking and any(map(incompleteness, self._seen))

    def close(self) -> None:
        """Ends what it has others look at."""
        if self._orientation is not None:
            self._orientation.close()

    def look(self, scans: Sequence[Scan], processes: Mapping[str, StageProcess]) -> RunState:
        """Returns how the run stands now."""
        rows = self._states.look(scans, processes)
        self._seen = scans[-1:]
        self._note_scans(scans)
        if self._orientation is not None:
            scan, doubts = self._orientation.look(scans)
            for sentence in doubts:
                self._note("positions", "warning", sentence, scan)
        died = {NAMES.get(name, name) for name, process in processes.items() if process.trouble}
        self._note_changes(rows, told=died)
        left = [scan for scan in scans if scan.name not in self._recorded]
        finishing = self._states.finishing(left, processes)
        level, text = self._sentence(scans, rows)
        return RunState(
            scan=scans[-1].name if scans else "",
            level=level,
            text=text[:2000],
            stages=tuple(rows[:32]),
            finishing=tuple(finishing[:64]),
            finished=tuple(self._finished),
        )

    def _sentence(self, scans: Sequence[Scan], rows: Sequence[StageState]) -> tuple[RunLevel, str]:
        said = self._troubles(rows)
        busy = [row for row in rows if row.level == "busy"]
        if not scans:
            starting = [row.name for row in busy]
            if said:
                return "stale", said
            return (
                "waiting",
                f"starting: {', '.join(starting)}" if starting else "waiting for the first frame",
            )
        newest = scans[-1]
        if (verdict := self._verdicts.get(newest.name)) is not None:
            writing = [row.text for row in busy if row.name == "recorder"]
            return verdict.level, "; ".join([verdict.text, *writing])
        if said:
            return "stale", said
        has_image = bool(newest.count("stitcher", "version"))
        if busy:
            return ("live" if has_image else "waiting"), "; ".join(row.text for row in busy[:MOST_SAID])
        if not has_image:
            return "waiting", self._why_no_image(scans, rows)
        if newest.count("subscriber", "closed"):
            return "live", "all frames have come, the image is being finished"
        return "live", "live"

    def _why_no_image(self, scans: Sequence[Scan], rows: Sequence[StageState]) -> str:
        newest = scans[-1]
        if self._newest is None or self._newest[0] is not newest:
            self._newest = newest, Accounts(newest)
        n_recorded = self._newest[1].of("subscriber").recorded
        if not n_recorded:
            return "waiting for the first frame"
        shown = self._states.scan_of("stitcher", scans)
        if shown is not None and shown is not newest:
            return f"{counted(n_recorded)} recorded, the last frames of {shown.name} come first"
        why = [f"{row.name} {row.text}" for row in rows if row.name in ("inference", "refinement")]
        return f"{counted(n_recorded)} recorded, no image yet: {'; '.join(why)}"

    def _note_scans(self, scans: Sequence[Scan]) -> None:
        for scan in scans[self._n_begun :]:
            self._note("scan", *_beginning(scan), scan.name)
        self._n_begun = len(scans)
        for scan in scans:
            if scan.name not in self._verdicts and scan.count("stitcher", "closed"):
                self._judge(scan)
            if scan.name not in self._recorded and scan.count("recorder", "closed"):
                self._recorded.add(scan.name)
                result = self._results / f"{scan.name}.cxi"
                where = f"{result}" if result.exists() else ""
                written = f"results of {scan.name} written" + f": {where}" * bool(where)
                self._note("recorder", "info", written, scan.name)
                if was_handed_over(scan):
                    text = self._verdicts[scan.name].text
                    self._announce(f"{scan.name} is finished: {text}" + f"; {where}" * bool(where))
                    self._finished.append(FinishedScan(name=scan.name, text=text[:500], result=where))

    def _judge(self, scan: Scan) -> None:
        of_stage = account(scan, "stitcher")
        status = verdict(
            of_stage.done, of_stage.expected, incompleteness(scan), of_stage.dropped.get("settling", 0)
        )
        self._verdicts[scan.name] = status
        level: EventLevel = "info" if status.level == "complete" else "warning"
        self._note("scan", level, f"{scan.name}: {status.text}", scan.name)

    def _note_changes(self, rows: Sequence[StageState], told: set[str]) -> None:
        """Note who got into trouble or out of it; `told` are processes that died: the run says so itself."""
        for row in rows:
            if row.name == STEERING:  # what persons say it tells itself
                continue
            before = self._before.get(row.name)
            was, is_now = before is not None and before.level in TROUBLE, row.level in TROUBLE
            if is_now and not was and row.name not in told:
                self._note(row.name, "error" if row.level == "error" else "warning", row.text, "")
            elif was and not is_now and row.level != "busy":
                self._note(row.name, "info", row.text, "")
            if not (was and row.level == "busy"):  # a process that starts again is not out of it yet
                self._before[row.name] = row

    def _troubles(self, rows: Sequence[StageState]) -> str:
        """Return the worst in one line, a person's word first: a hold explains a detector's silence."""
        troubles = sorted(
            (row for row in rows if row.level in TROUBLE and row.name not in self._beside),
            key=lambda row: TROUBLE.index(row.level),
        )
        words = [f"{row.name}: {row.text}" for row in troubles]
        for row in rows:
            if row.name == STEERING and row.level in TROUBLE:
                words = [row.text, *(word for word in words if not word.startswith("detector: silent"))]
        return "; ".join(words[:MOST_SAID])


def _beginning(scan: Scan) -> tuple[EventLevel, str]:
    n_announced, joined = (scan.count("subscriber", name) for name in ("announced", "joined"))
    if len(runs_of(scan)) > 1:
        n_recorded = account(scan, "subscriber").recorded
        return "info", f"{scan.name} goes on, {counted(n_recorded)} recorded by an earlier run"
    if joined:
        return "warning", f"{scan.name} has begun before: joined at frame {joined}"
    return "info", f"{scan.name} begins" + f", {n_announced} frames" * (n_announced > 0)
