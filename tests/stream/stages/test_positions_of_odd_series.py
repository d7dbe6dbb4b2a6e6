"""Positions of series that are joined, pause, or begin before the stage has settled."""

import logging

import numpy as np
import pytest

from operators.optics.preprocess import at_one_flux
from stream.documents.codec import RECORD_FILE, read_documents
from stream.record.account import frame_counts, incompleteness, shares
from stream.record.scan import Scan, State
from stream.stages.inputs import read_flux
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


@pytest.mark.parametrize(
    "told, settling",
    [
        ({"settling_frames": 3}, [0, 1, 2]),
        ({"settling_frames": 2, "line_frames": 10}, [0, 1, 10, 11, 20, 21, 30, 31]),
        ({"settled": "at-rest"}, [5, 6, 17]),
    ],
)
@pytest.mark.parametrize("is_killed", [False, True])
def test_frames_taken_while_the_stage_settles_are_left_out_under_their_own_reason(
    scans, told, settling, is_killed
):
    detector, it = Detector(scans, "a"), stage(scans, **told)
    data = {
        field: values.tolist()
        for field, values in zip(("stage-y", "stage-x"), TRUTH_M[:N].T * 1e6, strict=True)
    }
    data["at-rest"] = [number not in (5, 6, 17) for number in range(N)]
    data["stage-y"][6] = np.nan  # nobody needs it
    data["stage-x"][30] = data["stage-y"][33] = np.nan
    events = {"descriptor": "r1-d", "seq_nums": list(range(1, N + 1)), "data": data}
    it.handle([*start(), wire("event_page", events), stop()])
    if is_killed:
        it = stage(scans, **told)
    detector.close()
    it.idle(0.0)
    assert np.flatnonzero(detector.states() == State.SETTLING).tolist() == settling
    without = sorted({6, 30, 33} - set(settling))
    assert np.flatnonzero(detector.states() == State.NO_POSITION).tolist() == without
    rest = np.setdiff1d(np.arange(N), [*settling, *without])
    np.testing.assert_allclose(detector.positions_m()[rest], TRUTH_M[rest], atol=1e-15)
    counts = frame_counts(Scan(detector.scan.folder))
    assert (counts["settling"], counts["no_position"]) == (len(settling), len(without))
    assert shares(counts)["settling"] == len(settling)
    assert sum(shares(counts).values()) == N
    assert incompleteness(detector.scan).startswith(f"no position for {len(without)} frame")


def test_settling_frames_of_a_file_are_left_out_too(scans, tmp_path):
    np.save(tmp_path / "positions.npy", TRUTH_M[:N] * 1e6)
    it = stage(scans, source="file", path=tmp_path / "positions.npy", settling_frames=1, line_frames=20)
    detector = Detector(scans, "a")
    detector.close()
    it.idle(0.0)
    assert np.flatnonzero(detector.states() != State.DONE).tolist() == [0, 20]
    assert incompleteness(detector.scan) == "", "what was asked for is not missing"


def test_positions_of_a_series_that_pauses_for_an_hour_are_waited_for(scans):
    it, detector = stage(scans), Detector(scans, "a")
    it.handle([*start(), page(range(20))])
    it.idle(0.0)
    it.idle(3600.0)
    assert detector.counter("closed") == 0
    it.handle([page(range(20, N)), stop()])
    detector.close()
    it.idle(3601.0)
    assert_all_positions(detector)


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_run_that_had_begun_before_it_was_heard_is_read_by_its_events(scans, caplog, is_killed):
    detector, it = Detector(scans, "a"), stage(scans)
    it.handle([page(range(10, 20))])
    if is_killed:
        it = stage(scans)
    other = wire(
        "event", {"descriptor": "baseline-d", "seq_num": 2, "data": {"stage-y": 0.0, "stage-x": 0.0}}
    )
    it.handle([page(range(20, N)), other, stop()])
    detector.close()
    it.idle(0.0)
    assert (detector.states()[10:] == State.DONE).all()
    assert (detector.states()[:10] == State.NO_POSITION).all()
    np.testing.assert_allclose(detector.positions_m()[10:], TRUTH_M[10:N], atol=1e-15)
    assert it.progress()[1]["refused"] == 1, "another stream may mean anything"
    assert "fields 'stage-y' and 'stage-x' are taken for y and x in um" in caplog.text
    second = Detector(scans, "b")
    it.handle([*start("r2"), page(range(N), "r2"), stop("r2")])
    second.close()
    it.idle(0.0)
    assert_all_positions(second)


def test_events_of_a_run_that_had_begun_before_without_such_fields_are_refused(scans, caplog):
    detector, it = Detector(scans, "a"), stage(scans)
    it.handle([wire("event", {"descriptor": "d", "seq_num": 1, "data": {"theta": 1.0}})])
    it.idle(10.0)
    assert "an event of a run that had begun before has theta" in caplog.text
    it.handle([*start(), page(range(N)), stop()])
    detector.close()
    it.idle(20.0)
    assert_all_positions(detector)


def strange(uid, *, series=""):
    """What another beamline publishes to the same place: a run without positions."""
    keys = {"detector_series_id": series} if series else {}
    return [wire("start", {"uid": uid, **keys}), wire("stop", {"uid": f"{uid}-s", "run_start": uid})]


@pytest.mark.parametrize("series", ["", "elsewhere"])
@pytest.mark.parametrize("named", [{}, {"detector_series_id": "a"}])
def test_runs_of_another_publisher_take_no_position_from_a_series(scans, series, named):
    it = stage(scans)
    it.handle([strange("x0", series=series)[0]])
    detector = Detector(scans, "a")
    it.handle(strange("x1", series=series))
    it.handle([*start(**named), *strange("x2", series=series)])
    for index in range(20):
        it.handle([page([index]), *strange(f"y{index}", series=series)])
        it.idle(0.0)
    detector.close()
    it.idle(0.0)
    assert detector.counter("closed") == 0, "the run goes on"
    it.handle([page(range(20, N)), stop()])
    it.idle(0.1)
    assert_all_positions(detector)
    names = [(name, document["uid"]) for name, document in read_documents(detector.scan.folder)[:1]]
    assert names == [("start", "r1")]


def test_a_run_without_positions_is_recorded_with_its_series_all_the_same(scans):
    it, detector = stage(scans), Detector(scans, "a")
    it.handle([wire("start", {"uid": "r1"}), wire("stop", {"uid": "s", "run_start": "r1"})])
    detector.close()
    it.idle(0.0)
    assert [name for name, _ in read_documents(detector.scan.folder)] == ["start", "stop"]


def test_a_run_whose_end_was_lost_ends_with_the_next_one(scans):
    it, first = stage(scans), Detector(scans, "a")
    it.handle([*start(), page(range(N))])
    first.close()
    begin, descriptor = start("r2")
    it.handle([begin])
    second = Detector(scans, "b")
    it.handle([descriptor, page(range(N), "r2"), stop("r2")])
    second.close()
    it.idle(0.0)
    for detector in (first, second):
        assert_all_positions(detector)


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_position_far_away_is_named_with_its_frame_and_the_setting_and_never_taken(
    scans, caplog, is_killed
):
    it, detector = stage(scans, field_m=2e-3), Detector(scans, "a")
    far = {"descriptor": "r1-d", "seq_num": 8, "data": {"stage-y": 1e9, "stage-x": 0.0}}
    it.handle([*start(), page([*range(7), *range(8, N)]), wire("event", far)])
    it.idle(0.0)
    assert (
        "1 positions refused, the last: frame 7 of scan 0000-a: position y 1000 m, x 0 m is 1000 m"
        in caplog.text
    )
    assert "positions.field_m allows 0.002 m" in caplog.text
    if is_killed:
        it = stage(scans, field_m=2e-3)
    it.handle([stop()])
    detector.close()
    it.idle(2.0)
    assert np.flatnonzero(detector.states() != State.DONE).tolist() == [7]
    assert detector.states()[7] == State.NO_POSITION


def test_a_record_of_documents_that_is_damaged_is_set_aside_and_the_stage_starts(scans, caplog):
    detector = Detector(scans, "a")
    (detector.scan.folder / RECORD_FILE).write_bytes(b"\3\0\0\0abc" * 4)
    it = stage(scans)
    assert "documents of 0000-a are used up to where they are damaged" in caplog.text
    assert (detector.scan.folder / f"{RECORD_FILE}.damaged").stat().st_size == 28
    it.handle([*start(), page(range(N)), stop()])
    detector.close()
    it.idle(0.0)
    assert_all_positions(detector)


def test_who_begins_one_doubtful_run_after_another_does_not_flood_the_log(scans, caplog):
    it = stage(scans)
    with caplog.at_level(logging.WARNING):
        for n in range(300):
            it.handle([page(range(3), f"stranger{n}"), wire("stop", {"uid": "s", "run_start": "?"})])
            it.idle(n * 0.01)
    assert len(caplog.records) <= 2 * 3
    assert "runs in doubt, the last: a run had begun before its documents were heard" in caplog.text


@pytest.mark.parametrize("is_killed", [False, True])
def test_readings_of_a_monitor_bring_patterns_to_one_flux(scans, is_killed):
    told = {"monitor": "i0", "monitor_reference": 2000.0}
    detector, it = Detector(scans, "a"), stage(scans, **told)
    readings = np.linspace(1000.0, 3000.0, N)
    readings[4], readings[5] = np.nan, 0.0  # a frame keeps its position
    fields = zip(("stage-y", "stage-x", "i0"), (*TRUTH_M[:N].T * 1e6, readings), strict=True)
    data = {field: values.tolist() for field, values in fields}
    it.handle(
        [
            *start(),
            wire("event_page", {"descriptor": "r1-d", "seq_nums": list(range(1, N + 1)), "data": data}),
            stop(),
        ]
    )
    if is_killed:
        it = stage(scans, **told)
    detector.close()
    it.idle(0.0)
    assert_all_positions(detector)
    flux = read_flux(Scan(detector.scan.folder), np.arange(N))
    np.testing.assert_allclose(flux, readings / 2000)
    patterns = at_one_flux(np.ones((N, 2, 2), np.float32), flux)
    expected = 2000 / np.where(readings > 0, readings, 2000)
    np.testing.assert_allclose(patterns[:, 1, 0], expected, rtol=1e-6)
