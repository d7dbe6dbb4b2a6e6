import logging
import pickle
import random

import h5py
import numpy as np
import pytest

from stream.documents.codec import read_documents, to_msgpack
from stream.documents.position_file import load_positions
from stream.documents.position_reader import PositionFields
from stream.record.scan import State
from stream.stages.positions import Positions, PositionsConfig
from tests.helpers.recorded_data import SHARED_DATA, needs_shared_data
from tests.helpers.stream.position_stage import (
    TRUTH_M,
    Detector,
    N,
    assert_all_positions,
    page,
    stage,
    start,
    stop,
    wire,
)
from tests.helpers.stream.scans import make_scan

FIELDS = PositionFields(unit="um")


def test_every_frame_gets_its_position_and_the_scan_is_closed(scans):
    it, detector = stage(scans), Detector(scans, "a")
    it.handle([*start(), page(range(20)), page(range(20, N)), stop()])
    it.idle(0.0)
    assert detector.counter("closed") == 0
    detector.close()
    it.idle(0.0)
    assert_all_positions(detector)


def test_documents_that_come_before_the_series_are_kept(scans):
    it = stage(scans)
    it.handle([*start(), page(range(N))])
    detector = Detector(scans, "a")
    it.idle(0.0)
    it.handle([stop()])
    detector.close()
    it.idle(0.0)
    assert_all_positions(detector)
    assert len(read_documents(detector.scan.folder)) == 4


@pytest.mark.parametrize(("waits_s", "gets_it"), [(4.9, True), (5.0, False)])
def test_a_run_that_has_stopped_gets_the_series_that_appears_right_after(scans, waits_s, gets_it):
    it = stage(scans, late_s=5.0)
    it.handle([*start(), page(range(N)), stop()])
    it.idle(0.0)
    it.idle(waits_s)
    detector = Detector(scans, "a")
    detector.close()
    it.idle(waits_s)
    it.idle(waits_s + 5.0)
    assert (detector.states() == (State.DONE if gets_it else State.NO_POSITION)).all()
    assert detector.counter("closed") == 1


def test_a_run_that_names_its_series_waits_for_it(scans):
    it = stage(scans)
    it.handle([*start("r1", detector_series_id="b"), page(range(N)), stop()])
    other, named = Detector(scans, "a"), Detector(scans, "b")
    for detector in (other, named):
        detector.close()
    it.idle(0.0)
    assert_all_positions(named)
    it.idle(10.0)
    assert (other.states() == State.NO_POSITION).all()


def test_positions_far_ahead_of_the_frames_are_stored_as_they_come(scans):
    it, detector = stage(scans), Detector(scans, "a", n_frames=0)
    it.handle([*start(), page(range(750))])
    assert detector.counter("head") == 750
    detector.counters["head"] = 100
    assert (detector.states() == State.DONE).all()
    np.testing.assert_allclose(detector.positions_m(), TRUTH_M[:100], atol=1e-15)


def test_missing_positions_are_marked_when_the_run_has_stopped(scans):
    it, detector = stage(scans), Detector(scans, "a")
    detector.close()
    it.handle([*start(), page([n for n in range(N) if n % 7]), stop()])
    it.idle(0.0)
    np.testing.assert_array_equal(np.flatnonzero(detector.states() == State.NO_POSITION), np.arange(0, N, 7))
    assert detector.counter("closed") == 1


def test_without_a_stop_document_the_next_run_or_the_clock_ends_the_scan(scans):
    it, first = stage(scans, late_s=5.0), Detector(scans, "a")
    it.handle([*start("r1"), page(range(10))])
    first.close()
    it.idle(100.0)
    assert first.counter("closed") == 0
    it.handle(start("r2"))
    it.idle(100.1)
    assert first.counter("closed") == 1

    second = Detector(scans, "b")
    it.handle([page(range(10), "r2")])
    second.close()
    it.idle(200.0)
    it.idle(204.9)
    assert second.counter("closed") == 0
    it.idle(205.0)
    assert (second.states()[10:] == State.NO_POSITION).all()
    assert second.counter("closed") == 1


def test_the_first_of_two_positions_stays(scans):
    it, detector = stage(scans), Detector(scans, "a")
    it.handle([*start(), page([3, 3, 4]), page([3, 4]), page([4], offset_um=1.0)])
    np.testing.assert_allclose(detector.positions_m()[3:5], TRUTH_M[3:5], atol=1e-15)
    assert detector.counter("duplicates") == 4
    assert detector.counter("conflicts") == 1


def test_a_position_that_is_no_number_leaves_its_frame_without(scans):
    it, detector = stage(scans), Detector(scans, "a")
    data = {"stage-y": [0.0, np.nan, 2.0], "stage-x": [0.0, -2.0, np.inf]}
    bad = wire("event_page", {"descriptor": "r1-d", "seq_num": [1, 2, 3], "data": data})
    it.handle([*start(), bad, page([2]), stop()])
    assert detector.counter("rejected") == 2
    assert detector.states()[:3].tolist() == [State.DONE, State.PENDING, State.DONE]


def test_a_position_far_from_all_others_is_rejected_before_it_makes_the_canvas_huge(scans):
    detector, it = Detector(scans, "a"), stage(scans, field_m=1e-3)
    it.handle([*start(), page(range(10)), page([10], offset_um=2e6), page(range(11, N)), stop()])
    detector.close()
    it.idle(0.0)
    states = detector.states()
    assert states[10] == State.NO_POSITION
    assert (np.delete(states, 10) == State.DONE).all()
    assert detector.counter("rejected") == 1


def test_a_wild_frame_number_does_not_fill_the_disk(scans):
    it, detector = stage(scans), Detector(scans, "a")
    wild = {"descriptor": "r1-d", "seq_num": 2**39, "data": {"stage-y": 0.0, "stage-x": 0.0}}
    it.handle([*start(), wire("event", wild), page(range(N))])
    assert detector.counter("rejected") == 1
    assert detector.counter("head") == N


def test_a_position_after_the_end_is_counted_late_and_still_recorded(scans):
    it, detector = stage(scans), Detector(scans, "a")
    detector.close()
    it.handle([*start(), page(range(10))])
    it.idle(0.0)
    it.idle(60.0)
    it.handle([page(range(10, N)), stop()])
    assert detector.counter("late") == N - 10
    assert (detector.states()[10:] == State.NO_POSITION).all()
    assert read_documents(detector.scan.folder)[-1][0] == "stop"


def test_bad_bytes_are_counted_and_named_once_a_second_and_the_run_goes_on(scans, caplog):
    it, detector = stage(scans), Detector(scans, "a")
    garbage = [[b"\x00\x01garbage"], [b" event " + b"\xc1" * 50], [b""], [b"two", b"parts"]]
    unknown = [page([0], uid="never seen")]
    with caplog.at_level(logging.WARNING):
        it.handle([*start(), *garbage, *unknown])
        it.idle(10.0)
        it.handle(garbage)
        it.idle(10.5)
        it.idle(11.0)
    assert [record.message[:19] for record in caplog.records] == [
        "5 documents refused",
        "4 documents refused",
    ]
    assert it.progress()[1]["refused"] == 9
    it.handle([page(range(N)), stop()])
    detector.close()
    it.idle(12.0)
    assert_all_positions(detector)


def test_a_detector_restarted_in_the_middle_of_a_run_does_not_get_its_positions(scans):
    it, first = stage(scans), Detector(scans, "a", n_frames=20)
    it.handle([*start(), page(range(20))])
    first.close()
    second = Detector(scans, "b", n_frames=20)
    it.handle([page(range(20, N)), stop()])
    second.close()
    it.idle(0.0)
    it.idle(10.0)
    assert_all_positions(first)
    assert (second.states() == State.NO_POSITION).all()


def test_a_new_process_goes_on_where_the_last_one_died(scans):
    detector = Detector(scans, "a")
    killed = stage(scans)
    killed.handle([*start(), page(range(15)), page([3])])
    with (detector.scan.folder / "documents.msgpack").open("ab") as file:
        file.write(b"\xff\x00\x00")

    it = stage(scans)
    it.handle([page(range(15, N)), stop()])
    detector.close()
    it.idle(0.0)
    assert_all_positions(detector)
    assert detector.counter("duplicates") == 1
    assert [name for name, _ in read_documents(detector.scan.folder)] == [
        "start",
        "descriptor",
        "event_page",
        "event_page",
        "event_page",
        "stop",
    ]


def test_a_new_process_leaves_finished_scans_as_they_are(scans):
    first = Detector(scans, "a")
    it = stage(scans)
    it.handle([*start(), page(range(N)), stop()])
    first.close()
    it.idle(0.0)
    second = Detector(scans, "b")
    again = stage(scans)
    again.handle([*start("r2"), page(range(N), "r2"), stop("r2")])
    second.close()
    again.idle(0.0)
    assert_all_positions(first)
    assert_all_positions(second)
    assert len(read_documents(first.scan.folder)) == 4


def test_stopping_the_stage_ends_every_scan(scans):
    it, detector = stage(scans), Detector(scans, "a")
    it.handle([*start(), page(range(30))])
    it.close()
    assert (detector.states()[30:] == State.NO_POSITION).all()
    assert detector.counter("closed") == 1


def test_hundreds_of_series_are_forgotten_when_they_are_over(scans):
    it = stage(scans)
    for index in range(30):
        uid = f"r{index}"
        detector = Detector(scans, f"s{index}", n_frames=2)
        it.handle([*start(uid), page([0, 1], uid), stop(uid)])
        detector.close()
        it.idle(float(index))
        assert_all_positions(detector)
    assert len(it._runs) == len(it._series) == 8
    assert len(it._pairing._runs) == len(it._pairing._series) == 8


@pytest.mark.parametrize("seed", range(100))
def test_any_schedule_ends_with_the_right_position_or_none_at_every_frame(scans, seed):
    rng = random.Random(seed)
    it = stage(scans, late_s=1.0)
    lost = set(rng.sample(range(N), rng.randint(0, 6)))
    frames = [n for n in range(N) if n not in lost] * rng.choice([1, 1, 2])
    rng.shuffle(frames)
    pages = [page(frames[k : k + 7]) for k in range(0, len(frames), 7)]
    messages = [*start(), *pages]
    for _ in range(rng.randint(0, 5)):
        messages.insert(rng.randint(2, len(messages)), [bytes(rng.randrange(256) for _ in range(40))])
    messages += [stop()] if rng.random() < 0.8 else []
    born, closed = rng.randint(0, len(messages) - 1), rng.randint(0, len(messages))
    detector, now = None, 0.0
    for index, message in enumerate(messages):
        now += rng.choice([0.0, 0.01])
        if index == born:
            detector = Detector(scans, "a")
        if detector and index == max(born, closed):
            detector.close()
        if rng.random() < 0.05:
            it = stage(scans) if detector and detector.scan.has("positions_m") else it
        it.handle([message])
        it.idle(now)
    detector.close()
    it.idle(now)
    it.idle(now + 10.0)
    states = detector.states()
    assert set(np.flatnonzero(states == State.NO_POSITION)) == lost
    done = states == State.DONE
    np.testing.assert_allclose(detector.positions_m()[done], TRUTH_M[:N][done], atol=1e-15)
    assert detector.counter("closed") == 1


@pytest.mark.parametrize("suffix", [".npy", ".csv"])
def test_a_file_serves_every_scan_and_frames_beyond_it_have_no_position(scans, tmp_path, suffix):
    path = tmp_path / f"positions{suffix}"
    values = TRUTH_M[:30] * 1e6
    values[4, 1] = np.nan
    np.save(path, values) if suffix == ".npy" else np.savetxt(path, values, delimiter=",", header="y, x")
    it = stage(scans, source="file", path=path)
    assert it.inlet is None
    for name in ("a", "b"):
        detector = Detector(scans, name)
        it.idle(0.0)
        states = detector.states()
        assert (states[:30] == State.DONE).sum() == 29
        detector.close()
        it.idle(0.0)
        expected = [4, *range(30, N)]
        np.testing.assert_array_equal(np.flatnonzero(detector.states() == State.NO_POSITION), expected)
        np.testing.assert_allclose(detector.positions_m()[5:30], TRUTH_M[5:30], atol=1e-15)


def test_a_file_is_not_that_of_a_scan_which_a_run_of_another_configuration_has_left(scans, tmp_path):
    np.save(tmp_path / "positions.npy", 1e6 * TRUTH_M[:30])
    left = make_scan(scans, "0000-left", config_hash="another")
    own = make_scan(scans, "0001-own", config_hash="own")
    config = PositionsConfig(unit="um", source="file", path=tmp_path / "positions.npy", field_m=1.0)
    Positions(config, scans, config_hash="own").idle(0.0)
    assert not left.count("positions", "head")
    assert own.count("positions", "head") == 30


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"1,2\n3,four\n", "line 2 is '3,four', wanted numbers"), (b"1,2,3\n4,5,6\n", r"found 3 columns")],
)
def test_a_file_that_holds_no_positions_is_named(tmp_path, content, words):
    path = tmp_path / "positions.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        load_positions(path, FIELDS)


def test_the_columns_of_a_table_are_those_that_are_named(tmp_path):
    (tmp_path / "a.csv").write_text("n,sx,sy\n0,1,2\n")
    fields = PositionFields(unit="m", signs=(1, -1), y="sy", x="sx")
    np.testing.assert_array_equal(load_positions(tmp_path / "a.csv", fields), [[2, -1]])


@needs_shared_data
def test_a_cxi_file_gives_the_motion_of_the_probe():
    path = SHARED_DATA / "siemens" / "siemens.cxi"
    with h5py.File(path) as file:
        translation = file["entry_1/data_1/translation"][()]
    np.testing.assert_array_equal(load_positions(path, PositionFields()), -translation[:, [1, 0]])


def test_a_file_that_is_not_there_or_says_no_unit_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.npy"):
        load_positions(tmp_path / "absent.npy", FIELDS)
    with pytest.raises(ValueError, match=r"positions\.unit"):
        load_positions(tmp_path / "absent.npy", PositionFields())


def test_a_configuration_without_what_its_source_needs_is_refused():
    with pytest.raises(ValueError, match="unit"):
        PositionsConfig(source="documents")
    with pytest.raises(ValueError, match="path"):
        PositionsConfig(source="file")


def test_pickled_documents_are_refused_and_counted(scans):
    it = stage(scans)
    it.handle([[b" start " + pickle.dumps({"uid": "r1"})], [b" start " + to_msgpack({"time": 1.0})]])
    assert it.progress() == ("", {"refused": 2})
