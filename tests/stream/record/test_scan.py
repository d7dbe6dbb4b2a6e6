import errno
import os
import shutil
import time

import numpy as np
import pytest

from stream.atomic import DiskFullError
from stream.record import scan as scan_module
from stream.record.account import account
from stream.record.handover import has_successor, note_finished
from stream.record.scan import COUNTERS, NewScans, Scan, State, names_of_scans, new_scan_name, scans_in
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.scans import FRAME_SHAPE, make_scan, place, record, states


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


def test_scans_of_five_digits_come_after_those_of_four(tmp_path):
    new = NewScans(tmp_path)
    names = ["0009-b", "9999-b", "10000-a", "10001-a"]
    scans = [make_scan(tmp_path, name) for name in reversed(names)]
    assert list(names_of_scans(tmp_path)) == [scan.name for scan in new.look()] == names
    assert list(names_of_scans(tmp_path, newest_first=True)) == names[::-1]
    assert list(names_of_scans(tmp_path, after="9999-b")) == names[2:]
    assert [has_successor(scan) for scan in reversed(scans)] == [True, True, True, False]
    assert new_scan_name("a", [tmp_path]) == "10002-a"


def test_a_folder_is_looked_through_again_until_nothing_can_be_missed(tmp_path, monkeypatch):
    listed, listdir = [], os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(path) or listdir(path))

    def looks(new):
        listed.clear()
        return [scan.name for scan in new.look()], bool(listed)

    make_scan(tmp_path, "0000-a")
    changed_s = tmp_path.stat().st_mtime
    clock = Clock(changed_s)
    new = NewScans(tmp_path, clock)
    assert looks(new) == (["0000-a"], True)
    assert looks(new) == ([], True), "another may have begun within the same tick of the clock"
    clock.now = changed_s + 10
    assert looks(new) == ([], True)
    assert looks(new) == ([], False)
    (tmp_path / "0001-b").mkdir()
    os.utime(tmp_path, (changed_s + 1, changed_s + 1))
    assert looks(new) == ([], True)
    assert looks(new) == ([], False)
    make_scan(tmp_path, "0001-b")
    os.utime(tmp_path, (changed_s + 1, changed_s + 1))
    assert looks(new) == (["0001-b"], False), "it may begin at any time"
    assert looks(new) == ([], False)


def test_thousands_of_scans_are_not_listed_at_every_look_while_more_are_made(tmp_path, monkeypatch):
    monkeypatch.setattr(scan_module, "FEW", 2)
    monkeypatch.setattr(scan_module, "PAUSE_S", 0.1)
    clock = Clock(time.time())
    new = NewScans(tmp_path, clock)
    for index in range(3):
        make_scan(tmp_path, f"{index:04d}-a")
    assert len(new.look()) == 3
    make_scan(tmp_path, "0003-a")
    clock.now += 0.2
    assert new.look() == []
    clock.now += 0.2
    assert [scan.name for scan in new.look()] == ["0003-a"]
    make_scan(tmp_path, "0004-a")
    clock.now -= 3600
    assert [scan.name for scan in new.look()] == ["0004-a"], "a clock that is set back costs nothing"


def test_finished_scans_are_left_out_but_for_the_newest_which_late_frames_may_name(tmp_path):
    scans, names = tmp_path / "scans", [f"{index:04d}-a" for index in range(20)]
    for name in names:
        make_scan(scans, name)
    note_finished(scans, names[:3])
    note_finished(scans, [*names[3:], "0020-that-is-gone"])
    assert (tmp_path / "finished").read_text().split() == names[:4]
    assert NewScans(scans).names() == names[4:]
    assert list(names_of_scans(scans)) == names
    shutil.rmtree(scans / names[0])
    note_finished(scans, [])
    assert make_scan(scans, names[0]).name in NewScans(scans).names(), "another scan of a name that was free"


def test_a_scan_that_was_let_go_of_is_read_and_written_on(tmp_path):
    scan = make_scan(tmp_path)
    record(scan, [0, 1], np.full((2, *FRAME_SHAPE), 7))
    counters, ledger = scan.counters("subscriber", writable=True), scan.ledger("subscriber", writable=True)
    scan.close()
    counters["late"] = 3
    ledger.write([2], int(State.LOST))
    record(scan, 3, np.full((1, *FRAME_SHAPE), 9))
    assert scan.count("subscriber", "late") == 3
    assert states(scan, "subscriber").tolist() == [State.DONE, State.DONE, State.LOST, State.DONE]
    assert (scan.column("frames").read([0, 3])[:, 0, 0] == [7, 9]).all()


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
