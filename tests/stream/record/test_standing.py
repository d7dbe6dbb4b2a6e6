"""Where every frame is, as of one moment: counts that are those of everybody else, with the numbers."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.atomic import DiskFullError
from stream.documents.position_reader import Placed
from stream.documents.position_writer import PositionWriter
from stream.record.account import account, time_to_image_s
from stream.record.columns import DamagedScanError
from stream.record.scan import Scan, State
from stream.record.standing import n_in, stages_of, standings
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.scans import close, lose, make_scan, place, raise_head, record

STAGES = ("subscriber", "positions", "inference", "refinement", "stitcher")
BYTES = st.sampled_from(State)
LEDGERS = st.lists(st.tuples(*[BYTES] * len(STAGES)), max_size=40)


@settings(max_examples=30, deadline=None)
@given(LEDGERS, st.integers(-1, 60), st.integers(0, 10), st.booleans())
def test_the_counts_are_those_of_the_account_and_the_numbers_are_as_many(ledgers, announced, joined, closed):
    with tempfile.TemporaryDirectory() as folder:
        scan = make_scan(Path(folder), stages=STAGES)
        numbers = np.arange(len(ledgers))
        for stage, states in zip(STAGES, zip(*ledgers, strict=True), strict=False):
            never = State.LOST if closed else State.PENDING
            scan.ledger(stage, writable=True).write(numbers, np.where(numbers < joined, never, states))
        raise_head(scan, len(ledgers))
        counters = scan.counters("subscriber", writable=True)
        counters["announced"], counters["joined"], counters["closed"] = announced, joined, closed
        found = standings(Scan(scan.folder))
        assert tuple(found) == STAGES
        for stage, standing in found.items():
            it, n_not_done = standing.account, {what: n_in(r) for what, r in standing.not_done.items()}
            assert it == account(scan, stage)
            if stage == "subscriber":
                assert n_not_done.pop("awaited", 0) == it.awaited
                assert sum(n_not_done.values()) == it.lost
            else:
                assert n_not_done.pop("pending", 0) == it.pending
                assert n_not_done == it.dropped


def test_frames_that_are_not_done_are_ranges_by_what_became_of_them(tmp_path):
    scan = make_scan(tmp_path, stages=("subscriber", "positions", "stitcher"))
    record(scan, [10, 11, 12, 13, 20])
    lose(scan, [14, 15, 16])
    lose(scan, [18], State.BAD)
    place(scan, [10, 11], np.zeros((2, 2)))
    scan.mark("positions", [13], State.NO_POSITION)
    scan.mark("stitcher", [10], State.DONE)
    counters = scan.counters("subscriber", writable=True)
    counters["joined"], counters["announced"] = 10, 30
    found = standings(scan)
    assert found["subscriber"].not_done == {
        "not_received": [(0, 9)],
        "lost": [(14, 16)],
        "bad": [(18, 18)],
        "awaited": [(17, 17), (19, 19), (21, 29)],
    }
    assert found["positions"].not_done == {"pending": [(12, 12), (20, 20)], "no_position": [(13, 13)]}
    assert found["stitcher"].not_done == {"pending": [(11, 13), (20, 20)]}


def test_times_are_from_the_end_of_exposure_until_the_stage_was_done(tmp_path):
    scan, numbers, clock = make_scan(tmp_path, stages=STAGES), np.arange(10), Clock(101.0)
    record(scan, numbers)
    received_s = 100.0 + 0.01 * numbers
    scan.column("exposed_s", writable=True).write(numbers, 0.01 * numbers)
    scan.column("received_s", writable=True).write(numbers, received_s)
    scan.column("mosaicked_s", writable=True).write(numbers, received_s + 0.25)
    scan.mark("stitcher", numbers, State.DONE)
    writer = PositionWriter(scan, clock=clock)
    clock.now = 100.0
    writer.write(Placed(numbers[:5], np.zeros((5, 2))))
    clock.now = 100.5
    writer.write(Placed(numbers[5:], np.zeros((5, 2))))
    found = standings(scan)
    assert found["subscriber"].times_ms == pytest.approx((0.0, 0.0), abs=1e-6)
    p50_ms, p99_ms = found["positions"].times_ms
    assert p50_ms == pytest.approx(205.0), (
        "half of them were there before their frames, which waited for none"
    )
    assert p99_ms == pytest.approx(450.0, abs=2.0)
    assert found["stitcher"].times_ms == pytest.approx((250.0, 250.0))
    assert found["stitcher"].times_ms[0] == pytest.approx(1e3 * np.median(time_to_image_s(scan)))
    assert found["inference"].times_ms is None


def test_a_scan_of_an_earlier_version_has_no_times_of_its_positions(tmp_path):
    scan = make_scan(tmp_path)
    record(scan, [0, 1])
    place(scan, [0, 1], np.zeros((2, 2)))
    scan.counters("stitcher", writable=True)
    found = standings(scan)
    assert stages_of(scan) == ["subscriber", "positions", "stitcher"]
    assert found["positions"].account.done == 2
    assert found["positions"].times_ms is None
    assert found["stitcher"].account.pending == 2


def test_a_scan_of_which_nothing_came_stands_at_nothing(tmp_path):
    scan = make_scan(tmp_path)
    close(scan, "subscriber")
    assert [standing.not_done for standing in standings(scan).values()] == [{}, {}]


def test_a_ledger_that_no_stage_has_written_is_named(tmp_path):
    scan = make_scan(tmp_path)
    record(scan, np.arange(5))
    scan.ledger("positions", writable=True).write([3], 200)
    with pytest.raises(
        DamagedScanError, match=r"ledger/positions has the byte 200 for frame 3, wanted 0 to 7"
    ):
        standings(scan)
    raise_head(scan, 10**15)
    with pytest.raises(DamagedScanError, match=r"counters/subscriber is damaged: 10{15} frames, .* for 4096"):
        standings(scan)


def test_a_position_without_room_for_its_time_is_a_position_all_the_same(tmp_path, monkeypatch):
    scan = make_scan(tmp_path)
    record(scan, [0, 1])
    writer = PositionWriter(scan)
    times = scan.column("placed_s", writable=True)

    def is_full(*arguments):
        raise DiskFullError

    monkeypatch.setattr(times, "write", is_full)
    writer.write(Placed(np.arange(2), np.zeros((2, 2))))
    assert scan.done("positions").tolist() == [0, 1]
    assert standings(scan)["positions"].times_ms is None
