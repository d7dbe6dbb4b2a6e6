"""A series of the detector becomes a scan: what is written, when it is over, how it is named."""

from pathlib import Path

import numpy as np
import pytest

from stream.detector.dectris import ImageMessage, StartMessage, decode_message, encode_frame, encode_message
from stream.record.scan import State
from stream.stages.recording import STAGE
from tests.helpers.stream.detector import SHAPE, Recorder, assert_recorded, numbers_in, pixels, series


def test_a_series_is_recorded_frame_by_frame(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.take(series("01ABC", 100))
    scan = recorder.scan()
    assert scan.name == "0000-01ABC"
    assert (scan.header.series_uid, scan.header.frame_shape, scan.header.frame_dtype) == (
        "01ABC",
        SHAPE,
        "<u2",
    )
    assert_recorded(scan, range(100))
    np.testing.assert_allclose(scan.column("exposed_s").head(100), np.arange(1, 101) / 100)
    assert (scan.column("received_s").head(100) == recorder.now).all()
    counters = recorder.counters()
    assert (counters["head"], counters["announced"], counters["closed"]) == (100, 100, 1)
    assert recorder.account().is_complete


def test_the_progress_report_counts_what_came(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    assert recorder.subscriber.progress() == ("", {"rejected": 0})
    recorder.take(series("a", 10)[:5])
    name, counts = recorder.subscriber.progress()
    assert name == "0000-a"
    assert (counts["expected"], counts["recorded"]) == (10, 4)


def test_the_head_follows_the_frames_and_announced_ones_count_at_the_end(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    messages = series("a", 10)
    recorder.take(messages[:4])
    assert (recorder.counters()["head"], recorder.counters()["closed"]) == (3, 0)
    recorder.subscriber.close()
    assert (recorder.counters()["head"], recorder.counters()["closed"]) == (10, 1)
    assert numbers_in(recorder.scan(), State.LOST) == [*range(3, 10)]


def test_a_series_whose_start_was_missed_is_recorded(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.take(series("a", 20, without_start=True, drop=frozenset(range(5))))
    recorder.wait(2.0)
    assert_recorded(recorder.scan(), range(5, 20))
    assert numbers_in(recorder.scan(), State.LOST) == [*range(5)]
    assert recorder.counters()["announced"] == -1


def test_a_start_that_comes_after_frames_still_says_how_many_there_are(tmp_path: Path) -> None:
    start, *rest = series("a", 10)
    recorder = Recorder(tmp_path)
    recorder.take([*rest[:4], start, *rest[4:]])
    assert recorder.counters()["announced"] == 10
    assert_recorded(recorder.scan(), range(10))


def test_a_start_without_dtype_opens_the_scan_with_the_first_frame(tmp_path: Path) -> None:
    start, *rest = series("a", 10)
    announced = decode_message(start)
    assert isinstance(announced, StartMessage)
    recorder = Recorder(tmp_path)
    fields = {name: getattr(announced, name) for name in announced.__struct_fields__} | {"image_dtype": None}
    recorder.take([encode_message(StartMessage(**fields))])
    assert not [*tmp_path.iterdir()]
    recorder.take(rest)
    assert recorder.counters()["announced"] == 10
    assert_recorded(recorder.scan(), range(10))


def test_a_longer_scan_than_announced_is_recorded_whole(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.take(series("a", 30, announce=20))
    assert_recorded(recorder.scan(), range(30))
    assert recorder.account().expected == 30


def test_an_empty_series_is_a_closed_scan_without_frames(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.take(series("a", 0))
    recorder.wait(2.0)
    assert (recorder.account().expected, recorder.counters()["closed"]) == (0, 1)
    recorder.take(series("b", 8, stop_after=1)[:1] + series("b", 0, without_start=True))
    recorder.wait(2.0)
    assert (recorder.account().expected, recorder.account().recorded) == (8, 0)
    assert numbers_in(recorder.scan(), State.LOST) == [*range(8)]


def test_the_end_waits_for_frames_on_their_way(tmp_path: Path) -> None:
    *frames, end = series("a", 10)
    recorder = Recorder(tmp_path, end_grace_s=2.0)
    recorder.take([*frames[:8], end])
    recorder.wait(1.9)
    recorder.take(frames[8:9])
    recorder.wait(1.9)
    assert recorder.counters()["closed"] == 0
    recorder.take(frames[9:])
    assert recorder.counters()["closed"] == 1
    assert_recorded(recorder.scan(), range(9 + 1))


def test_a_complete_series_closes_though_its_end_never_comes(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, end_grace_s=2.0)
    recorder.take(series("a", 10, without_end=True))
    recorder.wait(1.9)
    assert recorder.counters()["closed"] == 0
    recorder.wait(0.2)
    assert recorder.counters()["closed"] == 1


def test_an_incomplete_series_waits_for_ever_unless_told_otherwise(tmp_path: Path) -> None:
    patient, hasty = Recorder(tmp_path / "patient"), Recorder(tmp_path / "hasty", silence_s=30.0)
    for recorder in (patient, hasty):
        recorder.take(series("a", 10, stop_after=5))
        recorder.wait(29.0)
        assert recorder.counters()["closed"] == 0
        recorder.wait(1e6)
    assert patient.counters()["closed"] == 0
    assert numbers_in(hasty.scan(), State.LOST) == [*range(5, 10)]


def test_frames_after_the_end_are_counted_late_and_not_stored(tmp_path: Path) -> None:
    messages = series("a", 10)
    recorder = Recorder(tmp_path)
    recorder.take([*messages[:-3], messages[-1]])
    recorder.wait(2.0)
    recorder.take([messages[0], *messages[-3:-1]])
    assert recorder.counters()["late"] == 2
    assert len([*tmp_path.iterdir()]) == 1
    assert numbers_in(recorder.scan(), State.LOST) == [8, 9]


def test_the_configured_channel_is_recorded(tmp_path: Path) -> None:
    image = ImageMessage(
        series_id=1,
        series_unique_id="a",
        image_id=0,
        data={"low": encode_frame(pixels(1)), "high": encode_frame(pixels(2))},
    )
    for channel, number in (("", 1), ("low", 1), ("high", 2)):
        recorder = Recorder(tmp_path / (channel or "first"), channel=channel)
        recorder.take([encode_message(image)])
        np.testing.assert_array_equal(recorder.scan().column("frames").read(0)[0], pixels(number))


def test_a_channel_that_no_frame_has_is_rejected(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder(tmp_path, channel="difference")
    recorder.take(series("a", 3, without_start=True))
    assert recorder.subscriber.progress() == ("", {"rejected": 3})
    assert "'difference'" in caplog.text


def test_names_of_series_make_safe_folders(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.take(series("../a b/ü", 2))
    recorder.take(series("", 2, series_id=12))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0000-.._a_b_", "0001-series-12"]


def test_a_scan_gets_no_number_that_results_have_though_its_own_scan_was_deleted(tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "0007-a.cxi").touch()
    recorder = Recorder(tmp_path / "scans", results)
    recorder.take(series("a", 2))
    assert recorder.scan().name == "0008-a"


def test_values_are_stored_before_their_byte_and_the_byte_before_the_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(tmp_path)
    start, *images = series("a", 4)
    recorder.take([start])
    scan = recorder.scan()
    seen: list[tuple[int, int]] = []
    mark = type(scan).mark

    def look_then_mark(self: object, stage: str, numbers: list[int], state: State) -> None:
        stored = scan.column("frames").read(numbers)
        assert all((frame == pixels(number)).all() for number, frame in zip(numbers, stored, strict=True))
        seen.append((len(numbers), scan.count(STAGE, "head")))
        mark(self, stage, numbers, state)

    monkeypatch.setattr(type(scan), "mark", look_then_mark)
    recorder.take(images[:4])
    assert seen == [(4, 0)]
    assert scan.n_frames == 4
