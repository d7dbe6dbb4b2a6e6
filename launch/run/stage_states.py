"""What every stage of a run is seen to do, in words: from its ledger and counters, and from its process.

Nothing is taken for granted: a detector that sends nothing while its scan is open is silent, a stage that has
frames in hand and does none is stalled, however alive its process is.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np

from launch.config.run_file import ResolvedRun
from launch.results.halves import MEASURING
from launch.run.processes import DEAF_S, StageProcess
from operators.engine.config import CLOSING
from stream.record.account import account, counted, frames_in_words, inputs_of
from stream.record.forerunner import forerunner_of
from stream.record.handover import awaits_finishing, has_left, have_closed, was_handed_over
from stream.record.passage import Passage
from stream.record.scan import Numbers, Scan, State
from stream.wire.messages import FinishingScan, Progress, StageLevel, StageState

SILENT_S = 3.0  # without a frame
STALLED_S = 5.0  # with work and without a step
SLOW = 5.0  # of its own intervals: what is slow by nature may take longer
NAMES = {
    "subscriber": "detector",
    "subscriber-2": "detector, second process",
    "policy": "steering",
    "viewer": "page",
}
"""What the rows of these processes are called."""

Words = tuple[str, StageLevel]

_FIRST, _NEXT = "waiting for the first frame", "waiting for the next scan"


class Pace:
    """How long a count has stood still, against how fast it went before.

    Parameters
    ----------
    least_s : float
        No shorter stillness is worth a word.

    Attributes
    ----------
    still_s : float
        Since it moved last, or since there is something to do.
    """

    def __init__(self, least_s: float) -> None:
        self._least_s = least_s
        self._key: Hashable = None
        self._began, self._n, self._moved_at = (0, 0.0), 0, 0.0
        self.still_s = 0.0

    def look(self, key: Hashable, n: int, now: float) -> None:
        """Takes the count at the time `now`; another `key` begins anew."""
        if key != self._key:
            self._key, self._began, self._n, self._moved_at = key, (n, now), n, now
        elif n != self._n:
            self._n, self._moved_at = n, now
        self.still_s = now - self._moved_at

    def rest(self, now: float) -> None:
        """Takes note that nothing can move at the time `now`: nobody is there to move it."""
        self._moved_at, self.still_s = now, 0.0

    @property
    def is_late(self) -> bool:
        """Whether it has stood still for longer than is usual."""
        n_began, began_at = self._began
        n_steps = self._n - n_began
        interval_s = (self._moved_at - began_at) / n_steps if n_steps > 0 else 0.0
        return self.still_s > max(self._least_s, SLOW * interval_s)


class StageStates:
    """The rows of a run, one for every stage, in the order of the way of the data.

    Parameters
    ----------
    run : ResolvedRun
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, run: ResolvedRun, clock: Callable[[], float]) -> None:
        self._config, self._run_id, self._clock = run.config, run.run_id, clock
        self._stages = [spec.name for spec in run.stages]
        self._n_left = dict.fromkeys(self._stages, 0)  # scans that a stage is through with
        self._paces = {name: Pace(STALLED_S) for name in (*self._stages, "search")}
        self._paces |= {name: Pace(SILENT_S) for name in ("subscriber", "positions")}
        self._since: dict[str, tuple[Hashable, float]] = {}
        self._passages: dict[tuple[str, ...], tuple[Scan, Passage]] = {}
        self._placed: tuple[Scan, Numbers] | None = None  # frames of the last scan that have no position
        self._now = clock()
        self._inputs = inputs_of(self._stages)
        self._words: dict[str, Callable[[Sequence[Scan], StageProcess], Words | None]] = {
            "subscriber": self._detector,
            "positions": self._positions,
            "probe": self._probe,
            "inference": self._inference,
            "refinement": self._refinement,
            "stitcher": self._stitcher,
            "finisher": self._finisher,
            "recorder": self._recorder,
        }

    def look(self, scans: Sequence[Scan], processes: Mapping[str, StageProcess]) -> list[StageState]:
        """Returns what every stage does now."""
        self._now = self._clock()
        rows = []
        for stage in self._stages:
            if stage == "refinement" and self._refinement_finds_probe:
                rows.append(_row("probe", *self._search(scans, stage)))
            words = self._of_process(stage, scans, processes[stage])
            if words is not None:
                rows.append(_row(NAMES.get(stage, stage), *words))
        return rows

    def scan_of(self, stage: str, scans: Sequence[Scan]) -> Scan | None:
        """Returns the scan that `stage` is on, None when it is through with all of them."""
        n = self._n_left[stage]
        while n < len(scans) and has_left(scans[n], stage):
            n = self._n_left[stage] = n + 1
        if stage == "recorder":  # it takes what is over, in whatever order that is
            left = [scan for scan in scans[n:] if not scan.count(stage, "closed")]
            return next(filter(self._is_over, left), left[-1] if left else None)
        return scans[n] if n < len(scans) else None

    def finishing(self, scans: Sequence[Scan], processes: Mapping[str, StageProcess]) -> list[FinishingScan]:
        """Returns how far those of `scans` are that were handed over and have no results yet."""
        in_hand = processes["finisher"].progress if "finisher" in processes else None
        return [
            FinishingScan(name=scan.name, text=self._how_far(scan, in_hand))
            for scan in scans
            if was_handed_over(scan)
        ]

    def _how_far(self, scan: Scan, in_hand: Progress | None) -> str:
        if not awaits_finishing(scan):
            return "writing results"
        if self._has(scan, "inference") and not scan.count("inference", "closed"):
            return f"{counted(account(scan, 'inference').pending)} to go through the network"
        if self._has(scan, "refinement") and not scan.count("refinement", "closed"):
            milli, is_in_hand = scan.count("refinement", "epochs_milli"), False
            if in_hand is not None and in_hand.scan == scan.name:
                milli, is_in_hand = in_hand.counts.get("epoch_milli", milli), True
            is_own = scan.header.run_id in ("", self._run_id)
            of = f" of {self._config.refinement.epochs:g}" if is_own else ""
            epoch = f"epoch {milli / 1000:.1f}{of}"
            return epoch if is_in_hand else f"waiting, {epoch}"
        return "stitching the final image"

    def _has(self, scan: Scan, stage: str) -> bool:
        """Whether the run that began the scan, which may be an earlier one, has `stage`."""
        return stage in (scan.header.stages or self._stages)

    @property
    def _refinement_finds_probe(self) -> bool:
        return self._config.probe.source == "data" and "probe" not in self._stages

    def _of_process(self, stage: str, scans: Sequence[Scan], process: StageProcess) -> Words | None:
        if process.trouble is not None:
            self._paces[stage].rest(self._now)
            return process.trouble
        is_deaf = process.silence_s > DEAF_S
        deaf: Words = f"no sign of life for {process.silence_s:.0f} s", "warning"
        if stage not in self._words:
            told = process.progress and process.progress.state
            if told and not is_deaf:
                return told.text, told.level
            return deaf if is_deaf else None
        words = self._words[stage](scans, process)
        if is_deaf and (words is None or words[1] == "ok"):
            return deaf
        if words is None:
            return None
        text, level = words
        scan = self.scan_of(stage, scans) if stage != "finisher" else None
        is_behind = scan is not None and scan is not scans[-1]
        return (f"{text} ({scan.name})" if scan is not None and is_behind else text), level

    def _since_s(self, stage: str, what: Hashable) -> float:
        """Return for how long `what` has been so."""
        if stage not in self._since or self._since[stage][0] != what:
            self._since[stage] = what, self._now
        return self._now - self._since[stage][1]

    def _look_at_work(self, stage: str, scan: Scan) -> tuple[int, int, Pace]:
        """Return how many frames `stage` has done, how many it has in hand, and its pace with them."""
        passage = self._passage(scan, *self._inputs[stage], stage)
        n_done, n_in_hand = int(passage.n_by_state()[State.DONE]), len(passage.pending())
        pace = self._paces[stage]
        can_work = n_in_hand > 0 and not self._lacks_probe(scan)
        pace.look((scan.name, can_work), n_done, self._now)
        return n_done, n_in_hand, pace

    def _passage(self, scan: Scan, *stages: str) -> Passage:
        """Return where the frames of `scan` are on their way through `stages` now."""
        held = self._passages.get(stages)
        if held is None or held[0] is not scan:
            held = self._passages[stages] = scan, Passage(scan, stages)
        held[1].look()
        return held[1]

    def _lacks_probe(self, scan: Scan) -> bool:
        return "probe" in self._stages and not scan.count("probe", "version")

    def _detector(self, scans: Sequence[Scan], process: StageProcess) -> Words:
        if not scans:
            return _FIRST, "ok"
        scan = scans[-1]
        if scan.count("subscriber", "closed"):
            return _NEXT, "ok"
        passage = self._passage(scan, "subscriber")
        n_came = int(passage.n_by_state()[State.PENDING + 1 :].sum())
        n_recorded = int(passage.n_by_state()[State.DONE])
        n_announced = scan.count("subscriber", "announced")
        pace = self._paces["subscriber"]
        pace.look(scan.name, n_came, self._now)
        if not n_came:
            return _FIRST, "ok"
        if n_announced > 0 and n_came >= max(n_announced, passage.n_frames):
            return f"all {n_came} frames have come", "ok"
        here = f"{n_recorded} of {n_announced} frames" if n_announced > 0 else counted(n_recorded)
        if joined := scan.count("subscriber", "joined"):
            here += f" since it was joined at frame {joined},"
        if pace.is_late:
            return f"silent for {pace.still_s:.0f} s, {here} have come", "warning"
        return f"receiving, {here} have come", "ok"

    def _positions(self, scans: Sequence[Scan], process: StageProcess) -> Words:
        scan = self.scan_of("positions", scans)
        if scan is None:
            return self._positions_of_last(scans)
        passage = self._passage(scan, "subscriber", "positions")
        n_recorded = int(passage.n_by_state(0)[State.DONE])
        n_known = int(passage.n_by_state(1)[State.PENDING + 1 :].sum())  # also those left out
        n_missing = n_recorded - n_known
        pace = self._paces["positions"]
        pace.look((scan.name, n_missing > 0), n_known, self._now)
        if n_missing and pace.is_late:
            return f"missing for {counted(n_missing)}, none has come for {pace.still_s:.0f} s", "warning"
        if n_missing:
            return f"arriving, {counted(n_missing)} without one yet", "ok"
        return "arriving" if n_recorded else _FIRST, "ok"

    def _positions_of_last(self, scans: Sequence[Scan]) -> Words:
        if not scans:
            return _FIRST, "ok"
        if self._placed is None or self._placed[0] is not scans[-1]:  # that is over: it stays as it is
            self._placed = scans[-1], _without_position(scans[-1])
        without = self._placed[1]
        return (f"missing for {frames_in_words(without)}", "warning") if without.size else (_NEXT, "ok")

    def _probe(self, scans: Sequence[Scan], process: StageProcess) -> Words:
        return self._search(scans, "probe")

    def _search(self, scans: Sequence[Scan], stage: str) -> Words:
        """Return how far `stage` is with finding the probe."""
        if not scans:
            return _FIRST, "ok"
        scan = self.scan_of(stage, scans) or scans[-1]
        if earlier := forerunner_of(scan):
            return f"taken from {earlier}", "done"
        if scan.count(stage, "version"):  # of refinement: an object, which takes a probe
            return "found", "done"
        if scan.count(stage, "closed"):
            return "not found: no image was made with it", "error"
        wanted = scan.count(stage, "wanted") or self._config.refinement.first_frames
        step, n_steps = scan.count(stage, "step"), scan.count(stage, "steps")
        search_s = self._since_s("search", (scan.name, wanted, step > 0))
        if step:
            pace = self._paces["search"]
            pace.look((scan.name, wanted), step, self._now)
            stuck = f", this step for {pace.still_s:.0f} s" if pace.is_late else ""
            text = f"finding the probe: step {step} of at most {n_steps}, {search_s:.0f} s{stuck}"
            return text, "warning" if stuck and pace.still_s > SLOW * STALLED_S else "busy"
        passage = self._passage(scan, "subscriber", "positions")
        n_recorded, n_here = (int(passage.n_by_state(index)[State.DONE]) for index in (0, 1))
        again = stage == "probe" and wanted > self._config.probe.n_frames
        if again:
            text = f"finding the probe: fewer frames did not tell it, {n_here} of {wanted} frames are here"
            return text, "warning"
        return f"finding the probe: {n_here} of {wanted} frames are here", "busy" if n_recorded else "ok"

    def _inference(self, scans: Sequence[Scan], process: StageProcess) -> Words:
        scan = self.scan_of("inference", scans)
        if scan is None:
            return (_NEXT if scans else _FIRST), "ok"
        _, n_in_hand, pace = self._look_at_work("inference", scan)
        if n_in_hand and self._lacks_probe(scan):
            return f"waiting for the probe, {counted(n_in_hand)} pending", "ok"
        return _at_work(n_in_hand, pace)

    def _refinement(self, scans: Sequence[Scan], process: StageProcess) -> Words:
        scan = self.scan_of("refinement", scans)
        if scan is None:
            return (_NEXT if scans else _FIRST), "ok"
        n_done, n_in_hand, _ = self._look_at_work("refinement", scan)
        epochs, config = scan.count("refinement", "epochs_milli") / 1000, self._config.refinement
        if self._refinement_finds_probe and not scan.count("refinement", "version"):
            return f"waiting for the probe, {counted(n_done + n_in_hand)} pending", "ok"
        has_all = all(scan.count(stage, "closed") for stage in self._inputs["refinement"])
        if not n_done:
            if not n_in_hand:
                return "waiting for frames", "ok"
            if self._lacks_probe(scan):
                return f"waiting for the probe, {counted(n_in_hand)} pending", "ok"
            if n_in_hand < config.first_frames and not has_all:
                return f"waiting for frames: {n_in_hand} of the first {config.first_frames} are here", "ok"
        share = 1.0 if has_all else 1 - CLOSING
        wants_more = epochs < share * config.epochs
        counts = process.progress.counts if process.progress else {}
        updates, where = counts.get("updates", 0), ", on another machine" * bool(counts.get("elsewhere"))
        pace = self._paces["refinement"]
        pace.look((scan.name, has_all, wants_more or n_in_hand > 0), updates + int(1000 * epochs), self._now)
        how_far = f"epoch {epochs:.1f} of {config.epochs:g}{_from_earlier(scan)}{where}"
        if (wants_more or n_in_hand) and pace.is_late:
            return f"stalled: {how_far}, no step for {pace.still_s:.0f} s", "warning"
        if has_all:
            return f"finishing: {how_far}", "busy"
        return (how_far if wants_more else f"{how_far}, the last ones when all frames are here"), "ok"

    def _stitcher(self, scans: Sequence[Scan], process: StageProcess) -> Words:
        scan = self.scan_of("stitcher", scans)
        if scan is None:
            return ("image complete", "done") if scans else (_FIRST, "ok")
        _, n_in_hand, pace = self._look_at_work("stitcher", scan)
        if n_in_hand and pace.is_late:
            return _at_work(n_in_hand, pace)
        version = scan.count("stitcher", "version")
        return (f"version {version} of the image" if version else "no image yet"), "ok"

    def _finisher(self, scans: Sequence[Scan], process: StageProcess) -> Words | None:
        """Return what it finishes, None where it is nothing: the row would tell nobody anything."""
        progress = process.progress
        if progress is None or not progress.scan:
            return None
        pace = self._paces["finisher"]
        pace.look(progress.scan, sum(progress.counts.values()), self._now)
        scan = next((scan for scan in scans if scan.name == progress.scan), None)
        if "measuring" in progress.counts:
            measuring_s = self._since_s("finisher", progress.scan)
            return f"measuring the resolution, {measuring_s:.0f} s ({progress.scan})", "ok"
        how_far = "of an earlier run" if scan is None else self._how_far(scan, progress)
        text = f"{how_far} ({progress.scan})"
        if pace.is_late:
            return f"stalled: {text}, no step for {pace.still_s:.0f} s", "warning"
        return text, "ok"

    def _is_over(self, scan: Scan) -> bool:
        return have_closed(scan, (stage for stage in self._inputs if self._has(scan, stage)))

    def _recorder(self, scans: Sequence[Scan], process: StageProcess) -> Words:
        scan = self.scan_of("recorder", scans)
        if scan is None:
            return ("results written", "done") if scans else ("waiting for the end of a scan", "ok")
        is_writing = self._is_over(scan)
        step = scan.count("recorder", "step")
        writing_s = self._since_s("recorder", (scan.name, is_writing, step))
        if step:
            what = "measuring the resolution" if step == MEASURING else "entering them in the store"
            return f"results written, {what}, {writing_s:.0f} s", "busy"
        if is_writing:
            return f"writing results, {writing_s:.0f} s", "busy"
        return "waiting for the end of the scan", "ok"


def _from_earlier(scan: Scan) -> str:
    """Return what of which earlier scan the refinement of `scan` started from, "" if nothing."""
    earlier, has_object = forerunner_of(scan), scan.count("refinement", "reused") > 0
    return f", started from the probe{' and object' * has_object} of {earlier}" if earlier else ""


def _without_position(scan: Scan) -> Numbers:
    without = np.flatnonzero(scan.states("positions") == State.NO_POSITION)
    return without[scan.states("subscriber", without) == State.DONE]


def _row(name: str, text: str, level: StageLevel) -> StageState:
    return StageState(name=name, text=text[:500], level=level)


def _at_work(n_in_hand: int, pace: Pace) -> Words:
    if not n_in_hand:
        return "keeps up", "ok"
    if pace.is_late:
        return f"stalled: {counted(n_in_hand)} pending, none done for {pace.still_s:.0f} s", "warning"
    return f"working, {counted(n_in_hand)} pending", "ok"
