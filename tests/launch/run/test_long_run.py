"""A run of a shift: scan follows scan, in a folder that holds thousands."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from launch.results.finisher import Finisher
from launch.results.halves import LeftMeasurements
from launch.run.supervisor import Supervisor
from stream.documents.config import PositionsConfig
from stream.record.handover import hand_over
from stream.record.scan import Scan
from stream.stages.link import StageContext
from stream.stages.loop import WorkerLoop
from stream.stages.positions import Positions
from tests.helpers.held import Held, held_by
from tests.helpers.launch.runs import make_run
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.scans import close, make_scan, place, record
from tests.helpers.stream.workers import Steps

N_WARM, N_SERIES, N_FRAMES = 10, 70, 4
CLOSING = ("subscriber", "positions", "refinement", "stitcher", "recorder")
MOST_GROWTH_MB = 5.0


def recorded(scans: Path, number: int, run_id: str) -> Scan:
    scan = make_scan(scans, f"{number:04d}-s", run_id=run_id)
    record(scan, np.arange(N_FRAMES))
    place(scan, np.arange(N_FRAMES), np.zeros((N_FRAMES, 2)))
    return scan


def growth(scans: Path, play: Callable[[int], None]) -> Held:
    """What this process holds more after `N_SERIES` series than after `N_WARM`."""
    before = None
    for number in range(N_SERIES):
        play(number)
        if number == N_WARM:
            before = held_by(os.getpid(), scans)
    after = held_by(os.getpid(), scans)
    return Held(*(now - then for now, then in zip(after, before, strict=True)))


def finisher_of(scans: Path, clock: Clock, makers: dict[str, Callable[[], Steps]]) -> Finisher:
    context = StageContext(scans=scans, rendezvous=scans)
    measurements = LeftMeasurements(scans, scans.parent / "results", 60.0, clock)
    return Finisher(context, "oldest", lambda run_id: makers, measurements, clock)


def test_a_supervisor_holds_no_more_after_many_series_than_after_a_few(run_folder):
    clock = Clock()
    run = make_run(run_folder, "first")
    spec = run.stages[0].model_copy(update={"name": "recorder"})
    with Supervisor(run.model_copy(update={"stages": (spec,)}), clock=clock) as supervisor:

        def play(number: int) -> None:
            scan = recorded(run.scans, number, run.run_id)
            for writers in (CLOSING[:-1], CLOSING[-1:]):
                clock.now += 1
                supervisor.poll(0.0)
                close(scan, *writers)
            supervisor.wait_for_series(number + 1)

        grown = growth(run_folder, play)
        assert len(supervisor.scans()) == N_SERIES
    assert grown.descriptors <= 0
    assert grown.maps <= 0
    assert grown.memory_mb < MOST_GROWTH_MB


def test_a_stage_holds_nothing_of_scans_that_it_has_left(tmp_path):
    clock, stage = Clock(), Steps()
    loop = WorkerLoop(stage, tmp_path, clock)

    def play(number: int) -> None:
        close(recorded(tmp_path, number, ""), "subscriber", "positions", "refinement")
        while len(stage.calls) < 2 * (number + 1):
            loop.turn()
            clock.now += 1

    grown = growth(tmp_path, play)
    assert (grown.descriptors, grown.maps) == (0, 0)
    assert grown.memory_mb < MOST_GROWTH_MB


def test_a_finisher_holds_nothing_of_scans_that_it_has_finished_or_that_wait(tmp_path):
    clock, stage = Clock(), Steps()
    finisher = finisher_of(tmp_path, clock, {"stitcher": lambda: stage})
    n_wait = 5

    def play(number: int) -> None:
        scan = recorded(tmp_path, number, "")
        hand_over(scan, "stitcher")
        close(scan, "subscriber", "positions", "refinement")
        stage.slices_left = 0 if number >= n_wait else 10**6  # the first takes long, the next ones wait
        for _ in range(1 if number < n_wait else 100):
            finisher.turn()
            clock.now += 1

    grown = growth(tmp_path, play)
    assert (grown.descriptors, grown.maps) == (0, 0)
    assert grown.memory_mb < MOST_GROWTH_MB


def test_a_turn_does_not_look_through_a_folder_of_many_scans_in_which_nothing_began(run_folder, monkeypatch):
    run = make_run(run_folder, "first")
    for number in range(20):
        close(recorded(run.scans, number, "earlier"), *CLOSING, "first")
    os.utime(run.scans, (0, 0))  # some time has passed
    clock = Clock()
    with Supervisor(run, clock=clock) as supervisor:
        os.utime(run.scans, (0, 0))
        positions = Positions(PositionsConfig(unit="um"), run.scans)
        turns = {
            "supervisor": lambda: supervisor.poll(0.0),
            "worker": WorkerLoop(Steps(), run.scans, clock).turn,
            "finisher": finisher_of(run.scans, clock, {}).turn,
            "positions": lambda: positions.idle(clock()),
        }

        looked_through, listed = [], os.listdir
        monkeypatch.setattr(os, "listdir", lambda path: looked_through.append(path) or listed(path))

        def who_looks_through() -> set[str]:
            names = set()
            for name, turn in turns.items():
                looked_through.clear()
                clock.now += 1
                turn()
                names |= {name} if looked_through else set()
            return names

        who_looks_through()
        assert who_looks_through() == set()
        begun = recorded(run.scans, 20, run.run_id)
        assert who_looks_through() == set(turns)
        assert [scan.name for scan in supervisor.scans()] == [begun.name]
