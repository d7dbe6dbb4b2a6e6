from functools import partial

import numpy as np
import pytest

from operators.arrays import abs2
from operators.optics.probe import zone_plate_probe
from stream.record.ground_order import OLDEST, GroundOrder
from stream.record.scan import State
from stream.stages.inputs import read_corners
from stream.stages.loop import WorkerLoop
from stream.stages.stage import ScanWork
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.scans import GEOMETRY, N_PIXELS, close, make_scan, place, record, states

LIGHT = abs2(zone_plate_probe(N_PIXELS, 3.0, 4.0)[None]).sum(axis=0)  # about as wide as 10 pixels
STEP_PX = 2


@pytest.fixture
def scan(tmp_path):
    return make_scan(tmp_path)


def row(numbers):
    return np.stack([np.zeros_like(numbers), STEP_PX * np.asarray(numbers)], axis=1)


def order_of(scan, light=LIGHT):
    return GroundOrder(scan, "inference", partial(read_corners, scan, GEOMETRY), lambda: light)


def test_who_is_behind_covers_what_was_scanned_before_it_fills_in(scan):
    numbers = np.arange(40)
    record(scan, numbers)
    place(scan, numbers, row(numbers))
    first = order_of(scan).first_of(numbers, 7)
    assert first[0] == 0
    assert np.diff(first).min() >= 4, f"beside each other, not on each other: {first}"


def test_what_was_taken_before_counts_as_shown_whenever_its_position_comes(scan):
    numbers = np.arange(20)
    record(scan, numbers)
    order = order_of(scan)
    order.take(np.arange(4, 8))
    place(scan, numbers, row(numbers))
    (number,) = order.first_of(np.setdiff1d(numbers, np.arange(4, 8)), 1)
    assert number == 12, "the first whose light none of them has touched"


def test_frames_without_a_position_go_by_age_after_those_that_show_something(scan):
    numbers = np.arange(6)
    record(scan, numbers)
    place(scan, [4, 5], row([4, 5]))
    order = order_of(scan)
    assert order.first_of(numbers, 3).tolist() == [0, 4, 5]
    assert order_of(scan, light=None).first_of(numbers, 3).tolist() == [0, 1, 2], "nor without a probe"


def test_before_the_first_position_the_oldest_go_first(scan):
    numbers = np.arange(20)
    record(scan, numbers)
    assert not scan.has("positions_m")
    assert order_of(scan).first_of(numbers, 4).tolist() == [0, 1, 2, 3]


def test_a_position_that_comes_late_lets_its_frame_go_first(scan):
    numbers = np.arange(30)
    record(scan, numbers)
    place(scan, numbers[:20], np.zeros((20, 2)))
    order = order_of(scan)
    taken = order.first_of(numbers, 2)
    order.take(taken)
    left = np.setdiff1d(numbers, taken)
    place(scan, [29], row([29]))
    assert 29 in order.first_of(left, 2)


def test_a_frame_that_is_ready_later_than_younger_ones_is_seen(scan):
    late, others = 2, np.array([0, 1, *range(3, 20)])
    record(scan, np.arange(20))
    place(scan, others, np.zeros((len(others), 2)))
    order = order_of(scan)
    taken = order.first_of(others, 2)
    order.take(taken)
    place(scan, [late], row([late + 20]))
    ready = np.setdiff1d(np.arange(20), taken)
    assert late in order.first_of(ready, 2)


def test_a_frame_that_was_taken_before_it_was_asked_for_is_not_missed_among_those_that_are_ready(scan):
    numbers = np.arange(30)
    record(scan, numbers)
    place(scan, numbers, np.where(numbers[:, None] == 29, row(numbers), 0))
    order = order_of(scan)
    order.take(order.first_of(numbers[:20], 2))
    order.take(np.array([21, 22]))  # came and were taken at once
    assert 29 in order.first_of(np.setdiff1d(numbers, [0, 1, 21, 22]), 2)


class Slow(ScanWork):
    """Does what it is given and remembers the order."""

    def __init__(self, scan, taken):
        self._scan, self._order, self._taken = scan, order_of(scan), taken

    def first_of(self, ready, n_most):
        return self._order.first_of(ready, n_most)

    def handle(self, numbers):
        self._order.take(numbers)
        self._taken.append(numbers.tolist())
        self._scan.mark("inference", numbers, State.DONE)


class SlowStage:
    name, inputs, waits_for, batch_size, deadline_s = "inference", ("subscriber",), (), 4, 0.1

    def __init__(self):
        self.taken = []

    def open(self, scan):
        return Slow(scan, self.taken)


def run(folder, *, restarts=()):
    """Return the batches of a stage that does four frames for every ten that come; it may begin again."""
    scan, stage, n_turns = make_scan(folder), SlowStage(), 20
    loop = WorkerLoop(stage, folder, Clock())
    for turn in range(n_turns):
        numbers = np.arange(10 * turn, 10 * turn + 10)
        record(scan, numbers)
        place(scan, numbers, row(numbers))
        if turn in restarts:
            loop = WorkerLoop(stage, folder, Clock())
        loop.turn()
    close(scan, "subscriber")
    for _ in range(10 * n_turns):
        loop.turn()
    assert (states(scan, "inference") == State.DONE).all()
    return stage.taken


def test_a_stage_that_begins_again_goes_on_in_the_same_order(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    assert run(tmp_path / "one") == run(tmp_path / "two", restarts=(5, 11))


def test_no_frame_waits_for_the_end_while_frames_with_new_ground_keep_coming(tmp_path):
    batches = run(tmp_path)
    n_before_the_end = 4 * 20
    done = [number for batch in batches for number in batch][:n_before_the_end]
    oldest = n_before_the_end // OLDEST
    assert set(range(oldest)) <= set(done)
    assert max(done) > 190, "and the newest ground is there"
