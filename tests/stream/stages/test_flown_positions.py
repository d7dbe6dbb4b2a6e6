"""Positions that lie in a file beside the documents, read while it grows."""

import fcntl
import logging

import h5py
import numpy as np
import pytest

from stream.record.scan import State
from tests.helpers.stream.flown import FIELDS, FlownRun
from tests.helpers.stream.position_stage import TRUTH_M, Detector, N, assert_all_positions, stage, wire

Y, X = FIELDS


@pytest.fixture
def run(tmp_path):
    (tmp_path / "files").mkdir()
    return FlownRun(tmp_path / "files" / "panda.h5", TRUTH_M[:N] * 1e6)


def flown_stage(scans, run, **changes):
    return stage(scans, **{"folders": (run.path.parent,), "late_s": 5.0, **changes})


def messages(documents):
    return [wire(*document) for document in documents]


def done(detector):
    return np.flatnonzero(detector.states() == State.DONE).tolist()


def test_the_file_is_read_as_far_as_documents_say_and_it_is_written(scans, run):
    it, detector = flown_stage(scans, run), Detector(scans, "a")
    run.write(30)
    it.handle(messages([*run.opening, *run.datums(0, 20)]))
    it.idle(0.0)
    assert done(detector) == list(range(20))
    it.handle(messages(run.datums(20, N)))
    it.idle(1.0)
    assert done(detector) == list(range(30))
    run.write(N)
    it.idle(1.01)  # looked a moment ago
    assert done(detector) == list(range(30))
    it.idle(1.11)
    assert done(detector) == list(range(N))
    it.handle(messages(run.closing))
    detector.close()
    it.idle(2.0)
    assert_all_positions(detector)
    assert detector.counter("duplicates") == 0


def test_a_stop_document_ends_no_scan_whose_file_is_not_flushed_yet(scans, run):
    it, detector = flown_stage(scans, run), Detector(scans, "a")
    it.handle(messages([*run.opening, *run.datums(0, N), *run.closing]))
    detector.close()
    it.idle(0.0)
    run.write(10)
    it.idle(1.0)
    assert detector.counter("closed") == 0
    run.write(N)
    it.idle(4.9)
    it.idle(4.91)
    assert_all_positions(detector)


def test_rows_that_never_come_leave_their_frames_without_position_and_are_named(scans, run, caplog):
    it, detector = flown_stage(scans, run), Detector(scans, "a")
    run.write(N - 2)
    it.handle(messages([*run.opening, *run.datums(0, N), *run.closing]))
    detector.close()
    with caplog.at_level(logging.WARNING):
        for now in (0.0, 0.1, 4.9):
            it.idle(now)
        assert detector.counter("closed") == 0
        it.idle(5.0)
    assert detector.counter("closed") == 1
    assert np.flatnonzero(detector.states() == State.NO_POSITION).tolist() == [N - 2, N - 1]
    assert f"panda.h5, dataset /{Y} ends before frame {N - 2}" in caplog.text
    assert f"documents promise up to {N - 1}" in caplog.text
    caplog.clear()
    it.idle(60.0)
    assert not caplog.records, "what is over is said once"


def test_a_stage_that_is_closed_reads_what_is_written_by_then(scans, run):
    it, detector = flown_stage(scans, run), Detector(scans, "a")
    run.write(N)
    it.handle(messages([*run.opening, *run.datums(0, N)]))
    detector.close()
    it.close()
    assert_all_positions(detector)


def test_a_file_whose_writer_does_not_share_it_is_read_when_it_is_closed(scans, run, caplog):
    it, detector = flown_stage(scans, run), Detector(scans, "a")
    run.write(N)
    it.handle(messages([*run.opening, *run.datums(0, N)]))
    with caplog.at_level(logging.WARNING), run.path.open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)  # as HDF5 has it while it writes without SWMR
        it.idle(0.0)
        it.idle(2.0)
        assert done(detector) == []
        assert "panda.h5: another program has it open to write" in caplog.text
    it.idle(3.0)
    assert done(detector) == list(range(N))


def test_a_file_that_is_not_there_is_named_while_the_scan_goes_on(scans, run, caplog):
    it, _ = flown_stage(scans, run), Detector(scans, "a")
    it.handle(messages([*run.opening, *run.datums(0, 5)]))
    with caplog.at_level(logging.WARNING):
        for now in (0.0, 1.9):
            it.idle(now)
        assert not caplog.records
        for now in (2.0, 3.0, 4.0):
            it.idle(now)
    assert [record.message for record in caplog.records] == [f"positions wait: there is no file {run.path}"]


def test_ranges_out_of_order_repeated_and_of_one_axis_first_give_each_frame_its_own_position(scans, run):
    it, detector = flown_stage(scans, run), Detector(scans, "a")
    run.write(20)
    it.handle(messages([*run.opening, *run.datums(30, N, (Y,)), *run.datums(30, N, (X,))]))
    it.idle(-1.0)
    assert done(detector) == []
    run.write(N)
    it.handle(messages([*run.datums(30, N, (Y,)), *run.datums(0, 10)]))
    it.idle(0.0)
    assert done(detector) == [*range(10), *range(30, N)]
    it.handle(messages([*run.datums(5, 15), *run.datums(20, 30, (X,)), *run.datums(15, 30, (Y,))]))
    it.handle(messages([*run.datums(15, 20, (X,)), *run.closing]))
    detector.close()
    for now in (1.0, 1.1, 1.2, 1.3, 1.4):
        it.idle(now)
    assert_all_positions(detector)
    assert (detector.counter("duplicates"), detector.counter("conflicts")) == (5, 0)


@pytest.mark.parametrize("is_in_descriptor", [True, False])
def test_a_frame_of_several_captures_lies_at_their_mean_once_all_are_there(scans, tmp_path, is_in_descriptor):
    spread_um = np.array([-0.3, 0.0, 0.1, 0.2])[:, None]
    values = (TRUTH_M[:N, None] * 1e6 + spread_um).reshape(-1, 2)
    run = FlownRun(tmp_path / "panda.h5", values, shape=(4,) if is_in_descriptor else (1,))
    changes = {} if is_in_descriptor else {"captures_per_frame": 4}
    it, detector = flown_stage(scans, run, **changes), Detector(scans, "a")
    per_index = 1 if is_in_descriptor else 4
    run.write(4 * N)
    first = 10 * per_index + (0 if is_in_descriptor else 2)  # in the middle of a frame
    it.handle(messages([*run.opening, *run.datums(0, first)]))
    it.idle(0.0)
    assert done(detector) == list(range(10))
    it.handle(messages([*run.datums(first, N * per_index), *run.closing]))
    detector.close()
    it.idle(1.0)
    it.idle(1.1)
    assert_all_positions(detector)


def test_a_position_may_be_shared_by_the_frames_of_an_event(scans, tmp_path):
    run = FlownRun(tmp_path / "panda.h5", TRUTH_M[:N:4] * 1e6)
    it, detector = flown_stage(scans, run, frames_per_event=4), Detector(scans, "a")
    run.write(N // 4)
    it.handle(messages([*run.opening, *run.datums(0, 3), *run.datums(3, N // 4), *run.closing]))
    it.idle(0.0)
    np.testing.assert_allclose(detector.positions_m(), np.repeat(TRUTH_M[:N:4], 4, axis=0), atol=1e-15)


def test_one_axis_comes_in_events_the_other_in_a_file(scans, run):
    it, detector = flown_stage(scans, run), Detector(scans, "a")
    del run.opening[1][1]["data_keys"][Y]["external"]
    events = [
        ("event", {"descriptor": "fly-d", "seq_num": n + 1, "data": {Y: run.values[n, 0]}}) for n in range(N)
    ]
    it.handle(messages([*run.opening, *run.datums(0, 20, (X,)), *events, *run.datums(20, N, (X,))]))
    it.idle(0.0)
    assert done(detector) == []
    run.write(N, (X,))
    it.handle(messages(run.closing))
    detector.close()
    for now in (1.0, 1.1, 1.2):
        it.idle(now)
    assert_all_positions(detector)


def test_frames_of_the_detector_in_files_elsewhere_disturb_nothing(scans, run):
    it, detector = flown_stage(scans, run), Detector(scans, "a")
    run.write(N)
    frames = [
        ("descriptor", {"uid": "det", "run_start": "fly", "name": "primary", "data_keys": {"det": {}}}),
        ("stream_resource", {"uid": "of-det", "run_start": "fly", "data_key": "det", "uri": "s3://x"}),
        ("stream_datum", {**run.datums(0, N)[0][1], "stream_resource": "of-det", "descriptor": "det"}),
        ("stream_datum", {**run.datums(0, N)[0][1], "stream_resource": "of-det"}),
    ]
    it.handle(messages([*run.opening, *frames, *run.datums(0, N), *run.closing]))
    detector.close()
    for now in (0.0, 0.1):
        it.idle(now)
    assert_all_positions(detector)
    assert it.progress()[1]["refused"] == 0


def test_a_captured_flag_leaves_out_frames_taken_while_the_stage_moved(scans, run):
    it, detector = flown_stage(scans, run, settled="steady"), Detector(scans, "a")
    opening = [*run.opening, ("stream_resource", {**run.opening[2][1], "uid": "of-s", "data_key": "steady"})]
    opening[-1][1]["parameters"] = {"dataset": "steady"}
    opening[1][1]["data_keys"]["steady"] = {"external": "STREAM:", "shape": [1]}
    run.write(N)
    with h5py.File(run.path, "a") as file:
        file["steady"] = np.arange(N) >= 3
    steady = {**run.datums(0, N)[0][1], "stream_resource": "of-s"}
    it.handle(messages([*opening, *run.datums(0, N), ("stream_datum", steady)]))
    it.idle(0.0)
    assert np.flatnonzero(detector.states() == State.SETTLING).tolist() == [0, 1, 2]
    assert done(detector) == list(range(3, N))


def test_a_position_stage_that_starts_again_reads_on_and_counts_nothing_twice(scans, run):
    detector = Detector(scans, "a")
    it = flown_stage(scans, run)
    run.write(25)
    it.handle(messages([*run.opening, *run.datums(0, N)]))
    it.idle(0.0)
    again = flown_stage(scans, run)
    assert done(detector) == list(range(25))
    run.write(N)
    again.idle(0.0)
    again.handle(messages(run.closing))
    detector.close()
    again.idle(1.0)
    assert_all_positions(detector)
    assert detector.counter("duplicates") == 0


def test_a_folder_under_another_name_is_read_where_it_is_mounted(scans, run):
    other = FlownRun(run.path, run.values, uri="file://ioc7/C%3A/data/day%201/panda.h5")
    other.write(N)
    it = stage(scans, root_map={"C:\\data\\day 1": run.path.parent})
    detector = Detector(scans, "a")
    it.handle(messages([*other.opening, *other.datums(0, N)]))
    it.idle(0.0)
    assert done(detector) == list(range(N))


@pytest.mark.parametrize("way", ["another folder", "up", "link", "no folders"])
def test_no_file_outside_of_the_folders_is_read(scans, run, way, caplog):
    elsewhere = run.path.parent.parent / "elsewhere.h5"
    uri = f"file://localhost{elsewhere}"
    if way == "up":
        uri = f"file://localhost{run.path.parent}/../elsewhere.h5"
    elif way == "link":
        run.path.symlink_to(elsewhere)
        uri = ""
    FlownRun(elsewhere, run.values).write(N)
    bad = FlownRun(run.path, run.values, uri=uri)
    it = flown_stage(scans, run, **({"folders": ()} if way == "no folders" else {}))
    detector = Detector(scans, "a")
    with caplog.at_level(logging.WARNING):
        it.handle(messages([*bad.opening, *bad.datums(0, N)]))
        it.idle(0.0)
    assert done(detector) == []
    assert "name its folder in positions.folders" in caplog.text
    assert f"{elsewhere} is in none of the folders" in caplog.text


@pytest.mark.parametrize("kind", ["external link", "virtual dataset"])
def test_what_a_file_takes_from_outside_of_its_folder_is_not_read(scans, run, kind, caplog):
    elsewhere = run.path.parent.parent / "elsewhere.h5"
    FlownRun(elsewhere, run.values).write(N)
    with h5py.File(run.path, "w", libver="latest") as file:
        for field in FIELDS:
            if kind == "external link":
                file[field] = h5py.ExternalLink(str(elsewhere), field)
            else:
                layout = h5py.VirtualLayout((N,), float)
                layout[:] = h5py.VirtualSource(str(elsewhere), field, (N,))
                file.create_virtual_dataset(field, layout)
    it, detector = flown_stage(scans, run), Detector(scans, "a")
    with caplog.at_level(logging.WARNING):
        it.handle(messages([*run.opening, *run.datums(0, N)]))
        it.idle(0.0)
    assert done(detector) == []
    assert "outside of the folder of the file" in caplog.text
    assert it.progress()[1]["refused"] == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (np.zeros((N, 3)), "wanted one value per capture"),
        (np.float64(1.0), "wanted one value per capture"),
        (np.full(N, b"far"), "holds no numbers"),
        (None, "holds no numbers"),
    ],
)
def test_a_dataset_of_something_else_is_refused(scans, run, content, words, caplog):
    with h5py.File(run.path, "w") as file:
        for field in FIELDS:
            file.create_group(field) if content is None else file.create_dataset(field, data=content)
    it, _ = flown_stage(scans, run), Detector(scans, "a")
    with caplog.at_level(logging.WARNING):
        it.handle(messages([*run.opening, *run.datums(0, N)]))
        it.idle(0.0)
    assert words in caplog.text
