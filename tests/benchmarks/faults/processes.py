"""Processes of a run that are killed or stopped in the middle of a scan."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from launch.beamline.simulation import Simulation, simulate_scan
from launch.run.supervisor import Supervisor
from stream.record.account import account, frames_in_words
from stream.record.events import events_of
from stream.record.scan import Scan, State, scans_in
from tests.benchmarks.faults.stamped_network import frame_of
from tests.benchmarks.figures import Figures
from tests.benchmarks.kilohertz.live import LiveRun, run_live
from tests.benchmarks.kilohertz.scan import RepeatingScan, stamped
from tests.benchmarks.kilohertz.transport import SETTINGS
from tests.benchmarks.network.untrained import SHAPE_32, SHAPE_128, save_untrained
from tests.helpers.launch.ray_nodes import ray_nodes
from tests.helpers.letter import sample_of, scan_sample
from tests.helpers.on_ray import scan_on_ray
from tests.helpers.other_machine import lent_scan, shared_scan
from tests.helpers.pipeline import Pipeline
from tests.helpers.stream.documents import PositionRun

KILLED = ("inference", "stitcher", "viewer", "finisher", "recorder")
MOST_STALL_S = 2.0
AT_ONCE = 512  # frames that are compared at a time
FROZEN, FROZEN_AT = ("refinement", "stitcher"), 50
MOST_ALARM_S, MOST_LOST, MOST_TO_RESUME_S = 0.2, 64, 0.5


class Kills:
    """Kills each of these stages once, when its share of the frames is recorded.

    Attributes
    ----------
    back_s : dict of float
        How long after that all stages were ready again, by stage.
    """

    def __init__(self, stages: tuple[str, ...], n_frames: int) -> None:
        n = n_frames // (len(stages) + 1)
        self._due = {(index + 1) * n: stage for index, stage in enumerate(stages)}
        self._dead: tuple[str, float] | None = None
        self.back_s: dict[str, float] = {}

    def __call__(self, supervisor: Supervisor, scans: list[Scan]) -> None:
        """Look at the ledger, and kill who is due."""
        if self._dead is not None:
            stage, since = self._dead
            if supervisor.n_restarts > len(self.back_s) and supervisor.is_ready:
                self.back_s[stage], self._dead = time.monotonic() - since, None
        elif scans and self._due and account(scans[0], "subscriber").recorded >= min(self._due):
            stage = self._due.pop(min(self._due))
            os.kill(supervisor.pid(stage), signal.SIGKILL)
            self._dead = stage, time.monotonic()


def killed(folder: Path, in_full: bool) -> Figures:
    """Kill -9 of every stage but the detector's and the positions', each once, while frames come.

    Positions are not among them: bluesky publishes them once, to whoever listens.
    """
    rate_hz, n_pixels, shape = (1000.0, 128, SHAPE_128) if in_full else (100.0, 32, SHAPE_32)
    scan = RepeatingScan(
        n_frames=round(60 * rate_hz) if in_full else 1200, n_pixels=n_pixels, is_stamped=True
    )
    folder.mkdir(parents=True, exist_ok=True)
    run = LiveRun(
        scan=scan,
        rate_hz=rate_hz,
        weights=save_untrained(folder / "untrained.safetensors", shape),
        settings=SETTINGS,
        builders={"inference": "tests.benchmarks.faults.stamped_network:inference"},
        patience_s=300.0,
    )
    kills = Kills(KILLED, scan.n_frames)
    figures = run_live(run, folder / "run", kills)
    if figures["why"]:
        raise RuntimeError(figures["why"])
    (recorded,) = scans_in(folder / "run" / "recordings" / "scans")
    n_wrong = wrong_frames(recorded, scan)
    stall_s = max(_stall_s(recorded, column) for column in ("inferred_s", "mosaicked_s"))
    lost, pending = figures["frames_lost"], figures["frames_pending"]
    return {
        "passed": len(kills.back_s) == len(KILLED)
        and lost == pending == n_wrong == 0
        and stall_s < MOST_STALL_S,
        "frames": scan.n_frames,
        "rate_hz": figures["sent_hz"],
        "frames_lost": lost,
        "frames_pending": pending,
        "frames_wrong": n_wrong,
        "restarts": figures["restarts"],
        "worst_stall_s": stall_s,
        **{f"back_s_{stage}": seconds for stage, seconds in kills.back_s.items()},
        "found": f"{len(kills.back_s)} killed, {lost} of {scan.n_frames} frames lost, {n_wrong} wrong pairs, "
        f"worst stall {stall_s:.2f} s",
    }


def wrong_frames(recorded: Scan, scan: RepeatingScan) -> int:
    """Return how many frames have pixels, a position or a patch of another one."""
    frames, of, positions_m = scan.frames(), scan.numbers(), scan.positions_m()
    n_wrong = 0
    for first in range(0, scan.n_frames, AT_ONCE):
        numbers = np.arange(first, min(first + AT_ONCE, scan.n_frames))
        expected = stamped(frames[of[numbers]], numbers)
        is_own = (recorded.column("frames").read(numbers) == expected).all(axis=(1, 2))
        is_own &= frame_of(recorded.column("patches").read(numbers)) == numbers
        placed = recorded.column("positions_m").read(numbers)
        is_own &= np.isclose(placed, positions_m[numbers], rtol=0, atol=1e-12).all(axis=1)
        n_wrong += int(np.count_nonzero(~is_own))
    return n_wrong


def _stall_s(scan: Scan, column: str) -> float:
    """Return the longest time without anything new in a column of times, while frames came."""
    numbers = np.arange(scan.n_frames)
    at_s, end_s = scan.column(column).read(numbers), float(scan.column("received_s").read(numbers).max())
    at_s = np.unique(at_s[(at_s > 0) & (at_s <= end_s)])
    return float(np.diff(np.append(at_s, end_s)).max(initial=0.0))


def frozen(folder: Path, in_full: bool) -> Figures:
    """SIGSTOP of stages in a scan: the run says so; after SIGCONT they go on as if nothing had been."""
    sample, said_s = scan_sample(), 0.0
    with Pipeline(folder, sample) as pipeline:
        supervisor = pipeline.supervisor

        def rows() -> dict[str, str]:
            return {
                row.name: row.text for row in supervisor.state.stages if row.level in ("warning", "error")
            }

        def frames() -> Iterator[np.ndarray]:
            nonlocal said_s
            for number, frame in enumerate(sample.frames):
                if number == FROZEN_AT:
                    pipeline.until(lambda: pipeline.is_shown("frozen"))
                    began = time.monotonic()
                    for stage in FROZEN:
                        os.kill(supervisor.pid(stage), signal.SIGSTOP)
                elif number == FROZEN_AT + 20:  # of which none gets any further
                    pipeline.until(lambda: set(FROZEN) <= rows().keys())
                    said_s = time.monotonic() - began
                    for stage in FROZEN:
                        os.kill(supervisor.pid(stage), signal.SIGCONT)
                    pipeline.until(lambda: not set(FROZEN) & rows().keys())
                yield frame

        pipeline.publish(PositionRun("frozen", sample.positions_m).documents())
        pipeline.play_frames(frames(), "frozen", len(sample))
        outcome = pipeline.outcome("frozen")
        n_restarts = supervisor.n_restarts
    outcome.assert_accounted(recorded=len(sample))
    outcome.assert_recorded_as(sample)
    return {
        "passed": n_restarts == 0 and outcome.figures["is_complete"],
        "said_after_s": said_s,
        "restarts": n_restarts,
        "found": f"{' and '.join(FROZEN)} named after {said_s:.1f} s, 0 of {len(sample)} frames lost",
    }


def subscriber_frozen(folder: Path, in_full: bool) -> Figures:
    """SIGSTOP of the detector's process for a second, while frames come: an alarm, and no frame is lost."""
    sample, stopped_s = scan_sample(), list[float]()
    with Pipeline(folder, sample) as pipeline:
        pid = pipeline.supervisor.pid("subscriber")

        def on_turn() -> None:
            if not stopped_s and pipeline.recorded("frozen") >= FROZEN_AT:
                stopped_s.append(time.time())
                os.kill(pid, signal.SIGSTOP)
            elif len(stopped_s) == 1 and time.time() - stopped_s[0] >= 1.0:
                stopped_s.append(time.time())
                os.kill(pid, signal.SIGCONT)

        pipeline.on_turn = on_turn
        pipeline.publish(PositionRun("frozen", sample.positions_m).documents())
        pipeline.play(sample, "frozen", rate_hz=40.0)
        outcome = pipeline.outcome("frozen")
        alarms = [event for event in events_of(outcome.scan) if "does not move" in event.text]
    outcome.assert_accounted(recorded=len(sample))
    outcome.assert_recorded_as(sample)
    alarm_s = alarms[0].time_s - stopped_s[0]
    return {
        "passed": alarm_s < MOST_ALARM_S and outcome.figures["is_complete"],
        "alarm_s": alarm_s,
        "frames_lost": 0,
        "found": f"alarm after {alarm_s:.2f} s, 0 of {len(sample)} frames lost",
    }


def one_of_two_killed(folder: Path, in_full: bool) -> Figures:
    """Kill -9 of one of two processes that take the frames of a detector: what it had in hand is named."""
    n_side, rate_hz = (40, 500.0) if in_full else (10, 50.0)
    sample = sample_of(simulate_scan(Simulation(n_rows=n_side, n_columns=n_side, seed=5)))
    at = len(sample) // 2
    with Pipeline(folder, sample, "detector.subscribers=2") as pipeline:
        killed_at: list[int] = []

        def on_turn() -> None:
            if not killed_at and (n := pipeline.recorded("halved")) >= at:
                killed_at.append(n)
                os.kill(pipeline.supervisor.pid("subscriber-2"), signal.SIGKILL)

        pipeline.on_turn = on_turn
        pipeline.publish(PositionRun("halved", sample.positions_m).documents())
        pipeline.play(sample, "halved", rate_hz=rate_hz)
        outcome = pipeline.outcome("halved")
    lost = np.flatnonzero(outcome.scan.states("subscriber") == State.LOST)
    outcome.assert_accounted(recorded=len(sample) - len(lost), lost=len(lost))
    outcome.assert_recorded_as(sample)
    is_named = not lost.size or f"lost {frames_in_words(lost)}" in outcome.figures["incomplete"]
    return {
        "passed": bool(killed_at) and len(lost) <= MOST_LOST and is_named,
        "frames": len(sample),
        "rate_hz": rate_hz,
        "frames_lost": len(lost),
        "found": f"{len(lost)} of {len(sample)} frames lost, each {'named' if is_named else 'not named'}",
    }


def other_machine(folder: Path, in_full: bool) -> Figures:
    """The line to a worker on another machine is cut for two seconds; later that machine disappears."""
    sample = sample_of(simulate_scan(Simulation(n_rows=14, n_columns=14, family="siemens", seed=5)))
    outcome, trouble, n_restarts = shared_scan(folder, sample)
    resumed_s = trouble.resumed_s
    outcome.assert_accounted(recorded=len(sample))
    return {
        "passed": resumed_s < MOST_TO_RESUME_S and n_restarts == 0 and outcome.figures["is_complete"],
        "frames_missing": 0,
        "resumed_s": resumed_s,
        "found": f"0 of {len(sample)} frames missing, the line carries frames again after {resumed_s:.2f} s",
    }


def refining_machine(folder: Path, in_full: bool) -> Figures:
    """The line to a worker that refines is cut for two seconds; later that worker is killed."""
    sample = sample_of(simulate_scan(Simulation(n_rows=14, n_columns=14, family="siemens", seed=5)))
    outcome, trouble, n_restarts = lent_scan(folder, sample)
    outcome.assert_accounted(recorded=len(sample))
    is_complete = n_restarts == 0 and outcome.figures["is_complete"]
    return {
        "passed": trouble.resumed_s < MOST_TO_RESUME_S and is_complete,
        "frames_missing": 0,
        "resumed_s": trouble.resumed_s,
        "found": f"0 of {len(sample)} frames missing, {trouble.n_at_death} refined there; the object has "
        f"more {trouble.resumed_s:.2f} s after the line is whole",
    }


def ray_node(folder: Path, in_full: bool) -> Figures:
    """A node of a Ray cluster that infers alone is killed, and started again later in the scan."""
    sample = sample_of(simulate_scan(Simulation(n_rows=14, n_columns=14, family="siemens", seed=5)))
    with ray_nodes() as nodes:
        outcome, missed_s, back_s, n_restarts, n_left = scan_on_ray(folder, sample, nodes)
    outcome.assert_accounted(recorded=len(sample))
    return {
        "passed": n_restarts == n_left == 0 and outcome.figures["is_complete"],
        "frames_missing": 0,
        "missed_s": missed_s,
        "back_s": back_s,
        "found": f"0 of {len(sample)} frames missing; missed after {missed_s:.1f} s, at work again "
        f"{back_s:.1f} s after its start",
    }
