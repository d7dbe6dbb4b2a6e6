import shutil

import numpy as np
import pytest

from launch.page.metrics.tally import FRESH_S, RunTally
from launch.page.metrics.times import BOUNDS_S, Times
from stream.record.account import account, frame_counts
from stream.record.handover import take_up
from stream.record.scan import Scan, State
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.scans import close, lose, make_scan, place, record

STAGES = ("subscriber", "positions", "inference", "refinement", "stitcher", "recorder", "viewer")


class Run:
    """Scans of a run as they grow, and its tally."""

    def __init__(self, folder):
        self.folder, self.clock = folder / "scans", Clock()
        self.folder.mkdir()
        self.tally = RunTally(self.folder, "r", STAGES, self.clock)

    def begin(self, name, run_id="r"):
        return make_scan(self.folder, name, run_id=run_id, stages=STAGES)

    def reading(self):
        self.clock.now += 2 * FRESH_S
        return self.tally.reading()


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def show(scan, numbers, *, after_s=0.03):
    """What makes an image of frames, as of the time `after_s` after they were received."""
    numbers = np.atleast_1d(numbers)
    place(scan, numbers, np.zeros((len(numbers), 2)))
    received_s = scan.column("received_s").read(numbers)
    for stage, column in (("inference", "inferred_s"), ("stitcher", "mosaicked_s")):
        scan.column(column, writable=True).write(numbers, received_s + after_s)
        scan.mark(stage, numbers, State.DONE)


def end(scan):
    close(scan, *STAGES[:-1])


def test_the_counts_of_a_run_are_those_of_its_scans_together(run):
    first, second = run.begin("0000-a"), run.begin("0001-b")
    record(first, np.arange(10))
    lose(first, [10, 11])
    show(first, np.arange(6))
    first.mark("positions", [6, 7], State.NO_POSITION)
    record(second, np.arange(4))
    show(second, [0])
    reading = run.reading()
    for stage in ("subscriber", "positions", "inference", "stitcher"):
        of_both = [account(Scan(scan.folder), stage) for scan in (first, second)]
        for name in ("expected", "recorded", "lost", "awaited", "done", "pending"):
            assert getattr(reading.accounts[stage], name) == sum(getattr(it, name) for it in of_both)
    assert reading.accounts["positions"].dropped == {"no_position": 2}
    assert reading.waiting == {"positions": 5, "inference": 7, "refinement": 7, "stitcher": 0}
    assert (reading.scan, reading.counts) == ("0001-b", frame_counts(Scan(second.folder)))
    assert (reading.n_begun, reading.n_over, reading.n_receiving) == (2, 0, 2)


def test_before_the_first_scan_every_count_is_there_and_zero(run):
    reading = run.reading()
    assert list(reading.accounts) == ["subscriber", "positions", "inference", "refinement", "stitcher"]
    assert {it.expected for it in reading.accounts.values()} == {0}
    assert (reading.scan, reading.counts, reading.rates) == ("", {}, {})


def test_counts_never_fall_from_scan_to_scan(run):
    seen = []
    for index in range(3):
        scan = run.begin(f"000{index}-s")
        for number in range(4):
            record(scan, number)
            show(scan, number)
            seen.append(run.reading())
        end(scan)
        seen.append(run.reading())
    for name in ("recorded", "done", "expected"):
        counts = [getattr(reading.accounts["stitcher"], name) for reading in seen]
        assert counts == sorted(counts) and counts[-1] == 12
    assert [seen[-1].n_begun, seen[-1].n_over, seen[-1].n_receiving] == [3, 3, 0]
    assert (seen[-1].scan, seen[-1].counts["mosaicked"]) == ("0002-s", 4), "the last scan is still told of"


def test_frames_before_a_series_was_joined_are_lost_and_one_that_comes_late_does_not_make_them_fewer(run):
    scan = run.begin("0000-a")
    counters = scan.counters("subscriber", writable=True)
    counters["joined"] = 100
    record(scan, [100, 101])
    assert run.reading().accounts["subscriber"].lost == 100
    counters["joined"] = 99
    record(scan, [99])
    reading = run.reading()
    assert (reading.accounts["subscriber"].lost, reading.accounts["subscriber"].recorded) == (100, 3)


def test_scans_of_other_runs_are_left_out_but_those_that_this_one_goes_on_with(run):
    record(run.begin("0000-old", run_id="before"), np.arange(3))
    taken_up = run.begin("0001-left", run_id="before")
    record(taken_up, np.arange(5))
    take_up(taken_up, "r")
    assert run.reading().accounts["subscriber"].recorded == 5


def test_a_scan_whose_folder_is_removed_stays_in_the_counts_and_is_not_waited_for(run):
    scan = run.begin("0000-a")
    record(scan, np.arange(8))
    assert run.reading().accounts["subscriber"].recorded == 8
    shutil.rmtree(scan.folder)
    run.reading()
    record(run.begin("0001-b"), np.arange(2))
    reading = run.reading()
    assert reading.accounts["subscriber"].recorded == 10
    assert (reading.n_receiving, reading.waiting["inference"]) == (1, 2)


def test_times_are_from_the_end_of_the_exposure_and_do_not_see_the_offset_of_clocks(run):
    scan = run.begin("0000-a")
    record(scan, np.arange(100), received_s=500.0)  # exposed at 0 on a clock of its own
    show(scan, np.arange(90), after_s=0.03)
    show(scan, np.arange(90, 100), after_s=0.7)
    times = run.reading().times
    assert times["subscriber"].up_to()["0.005"] == 100, "the fastest frame is the zero"
    up_to = times["stitcher"].up_to()
    assert (up_to["0.025"], up_to["0.05"], up_to["0.5"], up_to["1.0"], up_to["+Inf"]) == (0, 90, 90, 100, 100)
    assert times["stitcher"].total_s == pytest.approx(90 * 0.03 + 10 * 0.7)
    assert times["refinement"].up_to()["+Inf"] == 0


def test_a_bound_belongs_to_its_class_and_a_clock_that_was_set_back_takes_nothing_away():
    times = Times().plus(np.array([BOUNDS_S[0], -3.0, 1e9]))
    assert list(times.up_to().values()) == [2] * len(BOUNDS_S) + [3]
    assert times.total_s == pytest.approx(1e9 + BOUNDS_S[0])


def test_who_asks_too_often_gets_the_same_again(run):
    scan = run.begin("0000-a")
    record(scan, [0])
    assert run.reading().accounts["subscriber"].recorded == 1
    record(scan, [1])
    run.clock.now += FRESH_S / 2
    assert run.tally.reading().accounts["subscriber"].recorded == 1
    run.clock.now += FRESH_S
    assert run.tally.reading().accounts["subscriber"].recorded == 2


def test_frames_of_several_workers_are_counted_for_each_over_all_scans(run):
    for name, workers in (("0000-a", [1, 2, 2]), ("0001-b", [2, 3, 0])):
        scan = run.begin(name)
        record(scan, np.arange(4))
        scan.column("worker", writable=True).write(np.arange(3), workers)
        show(scan, np.arange(3))
        end(scan)
        reading = run.reading()
    assert reading.by_worker == {1: 1, 2: 3, 3: 1}, "and one by the finisher"


def test_rates_are_of_the_newest_scan(run):
    scan = run.begin("0000-a")
    for n_frames in (100, 200, 300):
        record(scan, np.arange(n_frames - 100, n_frames))
        scan.counters("stitcher", writable=True)["version"] = n_frames // 50
        reading = run.reading()
    assert reading.rates["recorded"] == pytest.approx(100 / (2 * FRESH_S))
    assert reading.rates["images"] == pytest.approx(2 / (2 * FRESH_S))
    record(run.begin("0001-b"), [0])
    assert run.reading().rates == {}


def test_a_look_costs_what_is_new_however_long_the_scan_is(run, monkeypatch):
    n_read, states = [0], Scan.states

    def counting(scan, stage, numbers=None):
        n_read[0] += scan.n_frames if numbers is None else len(numbers)
        return states(scan, stage, numbers)

    monkeypatch.setattr(Scan, "states", counting)
    scan = run.begin("0000-long")
    scan.ledger("subscriber", writable=True).write(np.arange(100_000), int(State.DONE))
    for column in ("exposed_s", "received_s"):
        scan.column(column, writable=True).write(np.arange(100_000), 1.0)
    scan.counters("subscriber", writable=True)["head"] = 100_000
    for stage in ("positions", "inference", "refinement", "stitcher"):
        scan.ledger(stage, writable=True).write(np.arange(100_000), int(State.DONE))
    for column in ("inferred_s", "refined_s", "mosaicked_s"):
        scan.column(column, writable=True).write(np.arange(100_000), 1.1)
    assert run.reading().accounts["stitcher"].done == 100_000
    assert n_read[0] > 100_000
    n_read[0] = 0
    scan.column("frames", writable=True, shape=(16, 16))
    record(scan, np.arange(100_000, 100_010))
    assert run.reading().accounts["stitcher"].pending == 10
    assert 0 < n_read[0] < 1000
