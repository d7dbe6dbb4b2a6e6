"""The detector, or this process, stops in the middle of a series: series never mix, nothing recorded goes."""

from pathlib import Path

from stream.record.scan import State, scans_in
from stream.stages.ingest.frame_writer import STAGE
from tests.helpers.stream.detector import Recorder, assert_recorded, numbers_in, series


def test_a_new_series_closes_the_old_one(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.take([*series("a", 20, stop_after=12), *series("b", 10, content=1)])
    assert_recorded(recorder.scan(0), range(12))
    assert numbers_in(recorder.scan(0), State.LOST) == [*range(12, 20)]
    assert_recorded(recorder.scan(1), range(10), content=1)
    assert recorder.counters(0)["closed"] == recorder.counters(1)["closed"] == 1


def test_series_of_one_turn_never_mix(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    first = series("a", 6, without_start=True, stop_after=6)
    second = series("b", 6, without_start=True, stop_after=6, content=1)
    recorder.take([*first[:4], *second[:3], *first[4:], *second[3:]])
    assert_recorded(recorder.scan(0), range(4))
    assert_recorded(recorder.scan(1), range(6), content=1)
    assert recorder.counters(0)["late"] == 2


def test_a_detector_without_unique_ids_that_starts_again_begins_a_new_scan(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.take([*series("", 20, stop_after=5), *series("", 8, content=1)])
    assert_recorded(recorder.scan(0), range(5))
    assert_recorded(recorder.scan(1), range(8), content=1)
    recorder.take(series("", 4, content=2))
    assert_recorded(recorder.scan(2), range(4), content=2)


def test_the_start_of_a_series_that_is_over_begins_nothing(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    messages = series("a", 5)
    recorder.take([*messages, messages[0]])
    assert len([*tmp_path.iterdir()]) == 1


def test_an_end_that_belongs_to_no_series_does_nothing(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.take(series("other", 0, without_start=True))
    recorder.wait(10.0)
    assert not [*tmp_path.iterdir()]


def test_a_new_process_goes_on_with_the_series(tmp_path: Path) -> None:
    messages = series("a", 30)
    Recorder(tmp_path).take(messages[:11])
    second = Recorder(tmp_path)
    second.take(messages[15:])
    second.wait(2.0)
    assert len([*tmp_path.iterdir()]) == 1
    assert_recorded(second.scan(), [*range(10), *range(14, 30)])
    assert numbers_in(second.scan(), State.LOST) == [10, 11, 12, 13]


def test_what_an_earlier_process_recorded_is_a_duplicate_to_the_next(tmp_path: Path) -> None:
    messages = series("a", 10)
    Recorder(tmp_path).take(messages[:6])
    second = Recorder(tmp_path)
    second.take(messages[1:])
    assert second.counters()["duplicates"] == 5
    assert_recorded(second.scan(), range(10))


def test_bytes_written_just_before_the_process_died_are_believed(tmp_path: Path) -> None:
    first = Recorder(tmp_path)
    messages = series("a", 10)
    first.take(messages[:9])
    first.scan().counters(STAGE, writable=True)["head"] = 5  # as if it had died before it moved on
    second = Recorder(tmp_path)
    assert_recorded(second.scan(), range(8))
    second.take(messages[8:])
    assert second.counters()["duplicates"] == 1
    assert_recorded(second.scan(), range(10))


def test_a_process_that_starts_into_another_series_closes_what_was_left(tmp_path: Path) -> None:
    for uid in ("a", "b"):
        Recorder(tmp_path).take(series(uid, 10, stop_after=4))
    third = Recorder(tmp_path)
    assert [scan.count(STAGE, "closed") for scan in scans_in(tmp_path)] == [1, 0]
    third.take(series("c", 3))
    assert [scan.count(STAGE, "closed") for scan in scans_in(tmp_path)] == [1, 1, 1]
    assert [third.account(index).lost for index in range(3)] == [6, 6, 0]


def test_frames_of_a_series_that_an_earlier_process_closed_are_late(tmp_path: Path) -> None:
    messages = series("a", 10)
    first = Recorder(tmp_path)
    first.take(messages[:5])
    first.subscriber.close()
    second = Recorder(tmp_path)
    second.take(messages[5:])
    assert second.counters()["late"] == 6
    assert len([*tmp_path.iterdir()]) == 1


def test_the_clocks_of_detector_and_computer_may_differ(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.now = -3600.0
    recorder.take(series("a", 10))
    assert_recorded(recorder.scan(), range(10))
