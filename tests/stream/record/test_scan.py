import errno
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.record.columns import DiskFullError
from stream.record.scan import COUNTERS, Scan, State, account, scans_in, time_to_image_s
from tests.helpers.building import FRAME_SHAPE, close, lose, make_scan, place, record, states


def test_a_scan_is_found_with_what_the_detector_announced(tmp_path):
    created = make_scan(tmp_path, "0007-siemens", reserve=10)
    (found,) = scans_in(tmp_path)
    assert found.header == created.header
    assert found.name == "0007-siemens"
    assert found.n_frames == 0


def test_scans_are_found_in_the_order_in_which_they_began(tmp_path):
    for name in ("0002-a", "0000-z", "0001-b"):
        make_scan(tmp_path, name)
    assert [scan.name for scan in scans_in(tmp_path)] == ["0000-z", "0001-b", "0002-a"]


def test_a_scan_for_which_there_is_no_room_leaves_nothing(tmp_path, monkeypatch):
    fallocate, n_left = os.posix_fallocate, [2]

    def fill_up(*args):
        n_left[0] -= 1
        if n_left[0] < 0:
            raise OSError(errno.ENOSPC, "full")
        fallocate(*args)

    monkeypatch.setattr(os, "posix_fallocate", fill_up)
    with pytest.raises(DiskFullError, match="column 'frames'"):
        make_scan(tmp_path, reserve=100_000)
    assert not list(tmp_path.iterdir())


def test_a_scan_is_never_created_over_another(tmp_path):
    scan = make_scan(tmp_path)
    record(scan, 0, np.full((1, *FRAME_SHAPE), 7))
    with pytest.raises(FileExistsError, match="holds a scan already"):
        make_scan(tmp_path)
    assert (Scan(scan.folder).column("frames").read(0) == 7).all()


def test_what_was_looked_at_first_can_be_written_after(tmp_path):
    before = make_scan(tmp_path)
    record(before, [0, 1])
    before.counters("stitcher", writable=True)["version"] = 3
    before.mark("stitcher", 0, State.DONE)
    after_restart = Scan(before.folder)
    assert after_restart.count("stitcher", "version") == 3
    assert after_restart.states("stitcher").tolist() == [State.DONE, State.PENDING]
    after_restart.counters("stitcher", writable=True)["version"] = 4
    after_restart.mark("stitcher", 1, State.DONE)
    assert before.count("stitcher", "version") == 4
    assert before.states("stitcher").tolist() == [State.DONE, State.DONE]


def test_counters_are_seen_by_others_and_begin_at_zero(tmp_path):
    scan = make_scan(tmp_path)
    reader = Scan(scan.folder)
    assert reader.count("positions", "conflicts") == 0
    counters = scan.counters("positions", writable=True)
    for value, name in enumerate(COUNTERS):
        counters[name] = value
    assert reader.counters("positions").as_dict() == {name: i for i, name in enumerate(COUNTERS)}
    with pytest.raises(ValueError, match="read-only"):
        reader.counters("positions")["head"] = 5


def test_every_stage_sees_every_frame_before_it_has_begun(tmp_path):
    scan = make_scan(tmp_path)
    assert states(scan, "inference").shape == (0,)
    record(scan, [4])
    assert states(scan, "inference").tolist() == [State.PENDING] * 5
    assert states(scan, "subscriber").tolist() == [State.PENDING] * 4 + [State.DONE]


def test_positions_ahead_of_the_frames_wait_for_them(tmp_path):
    scan = make_scan(tmp_path)
    place(scan, np.arange(700), np.zeros((700, 2)))
    assert account(scan, "positions").done == 0
    record(scan, np.arange(3))
    assert states(scan, "positions").tolist() == [State.DONE] * 3


def test_columns_exist_from_their_first_writer_on(tmp_path):
    scan = make_scan(tmp_path)
    assert not scan.has("positions_m")
    with pytest.raises(FileNotFoundError):
        scan.column("positions_m")
    place(scan, [0], [[1, 2]])
    assert scan.has("positions_m")


LEDGERS = st.lists(st.tuples(st.sampled_from(State), st.sampled_from(State)), max_size=60)


@settings(max_examples=60, deadline=None)
@given(LEDGERS, st.integers(-1, 80))
def test_every_frame_is_somewhere_at_all_times(ledgers, announced):
    with tempfile.TemporaryDirectory() as folder:
        scan = make_scan(Path(folder))
        counters = scan.counters("subscriber", writable=True)
        counters["announced"], counters["head"] = announced, len(ledgers)
        for number, (recorded, done) in enumerate(ledgers):
            scan.mark("subscriber", number, recorded)
            scan.mark("inference", number, done)
        for stage in ("subscriber", "inference", "refinement"):
            it = account(scan, stage)
            assert it.expected == max(len(ledgers), announced)
            assert it.recorded + it.lost + it.awaited == it.expected
            assert it.done + it.pending + sum(it.dropped.values()) == it.recorded
            assert it.is_complete == (it.done == it.expected)
            assert min(it.recorded, it.lost, it.awaited, it.done, it.pending) >= 0


def test_an_account_names_the_reasons(tmp_path):
    scan = make_scan(tmp_path)
    record(scan, [0, 1, 2, 3])
    lose(scan, [5])
    scan.mark("inference", [0, 5], State.DONE)
    scan.mark("inference", [1, 2], State.UNFINISHED)
    it = account(scan, "inference")
    assert (it.expected, it.recorded, it.lost, it.awaited) == (6, 4, 1, 1)
    assert (it.done, it.pending, it.dropped) == (1, 1, {"unfinished": 2})
    assert not it.is_complete


def test_a_complete_scan_is_complete(tmp_path):
    scan = make_scan(tmp_path)
    record(scan, np.arange(5))
    scan.mark("stitcher", np.arange(5), State.DONE)
    close(scan, "subscriber")
    assert account(scan, "stitcher").is_complete


def timed_scan(folder, exposed_s, received_s, published_s):
    scan = make_scan(folder)
    numbers = np.arange(len(received_s))
    record(scan, numbers)
    scan.column("exposed_s", writable=True).write(numbers, exposed_s)
    scan.column("received_s", writable=True).write(numbers, received_s)
    scan.column("mosaicked_s", writable=True).write(numbers, published_s)
    return scan


EXPOSED_S = np.arange(20) * 0.01


@pytest.mark.parametrize("offset_s", [0.0, 3600.0, -1e6])
def test_time_to_image_does_not_see_the_offset_of_two_clocks(tmp_path, offset_s):
    received_s = 5e6 + EXPOSED_S + 0.002
    scan = timed_scan(tmp_path, EXPOSED_S + offset_s, received_s, received_s + 0.03)
    np.testing.assert_allclose(time_to_image_s(scan), 0.03, atol=1e-6)


def test_time_to_image_sees_time_spent_in_a_queue_before_this_machine(tmp_path):
    queued_s = np.where(np.arange(20) >= 15, 0.5, 0.0)
    received_s = 5e3 + EXPOSED_S + queued_s
    scan = timed_scan(tmp_path, EXPOSED_S, received_s, received_s + 0.03)
    np.testing.assert_allclose(time_to_image_s(scan), 0.03 + queued_s, atol=1e-9)


def test_frames_without_an_image_have_no_time_to_it(tmp_path):
    received_s = 5e3 + EXPOSED_S
    scan = timed_scan(tmp_path, EXPOSED_S, received_s, np.where(np.arange(20) < 7, received_s + 0.1, 0.0))
    np.testing.assert_allclose(time_to_image_s(scan), [0.1] * 7)
    assert time_to_image_s(make_scan(tmp_path, "0001-empty")).shape == (0,)
