"""A series of the detector becomes a scan: what is written, when it is over, how it is named."""

from pathlib import Path

import numpy as np
import pytest

from stream.detector.dectris import decode_message, encode_frame, encode_message
from stream.detector.dialects import DIALECTS
from stream.detector.protocol import ImageMessage, StartMessage
from stream.record.account import incompleteness
from stream.record.scan import State
from stream.stages.ingest.frame_writer import STAGE
from tests.helpers.stream.detector import (
    SHAPE,
    Recorder,
    assert_recorded,
    numbers_in,
    pixels,
    series,
    series_as,
)


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


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_series_whose_start_was_missed_is_recorded_from_where_it_was_joined(
    tmp_path: Path, dialect: str
) -> None:
    recorder = Recorder(tmp_path, format=dialect)
    recorder.take(series_as(dialect, "a", 20, without_start=True, drop=frozenset(range(5))))
    assert_recorded(recorder.scan(), range(5, 20))
    account = recorder.account()
    assert (account.expected, account.lost, account.awaited) == (20, 5, 0), "nobody waits for what is past"
    recorder.wait(2.0)
    assert numbers_in(recorder.scan(), State.LOST) == [*range(5)]
    assert (recorder.counters()["announced"], recorder.counters()["joined"]) == (-1, 5)
    assert recorder.account().lost == 5
    assert incompleteness(recorder.scan()).startswith(
        "not received 5 frames (0-4): the run joined at frame 5"
    )


def test_a_series_that_was_joined_stays_so_when_the_process_starts_again(tmp_path: Path) -> None:
    messages = series("a", 30, without_start=True, drop=frozenset({*range(10), 20, 21}))
    Recorder(tmp_path).take(messages[:5])
    second = Recorder(tmp_path)
    second.take(messages[5:])
    assert (second.account().lost, second.account().awaited) == (10, 2)
    second.wait(2.0)
    missing = "not received 10 frames (0-9): the run joined at frame 10; lost 2 frames (20-21)"
    assert incompleteness(second.scan()).startswith(missing)


def test_frames_that_overtook_the_start_or_each_other_are_no_join(tmp_path: Path) -> None:
    start, *rest = series("a", 10)
    order = series("b", 10, without_start=True, order=(4, 2, 7, 0, 1, 3, 5, 6, 8, 9))
    for name, messages in (("late start", [*rest[4:6], start, *rest[:4], *rest[6:]]), ("order", order)):
        recorder = Recorder(tmp_path / name)
        recorder.take(messages, per_turn=2)
        assert recorder.counters()["joined"] == 0
        assert_recorded(recorder.scan(), range(10))


def test_what_came_before_a_series_was_joined_takes_no_room(tmp_path: Path) -> None:
    first = 20_000  # of frames of 4 KB: 80 MB, and nothing of them
    image = np.full((64, 32), 7, "<u2")
    recorder = Recorder(tmp_path)
    for number in (first, first + 1):
        message = ImageMessage(
            series_id=1, series_unique_id="a", image_id=number, data={"": encode_frame(image)}
        )
        recorder.take([encode_message(message)])
    scan = recorder.scan()
    assert (recorder.account().lost, recorder.account().awaited, recorder.account().recorded) == (first, 0, 2)
    scan.column("patches", writable=True, shape=(64, 64)).write([first], 1j)
    for name in ("frames", "patches"):
        files = (scan.folder / "columns" / name).glob("*.bin")
        assert sum(512 * path.stat().st_blocks for path in files) < 10e6
    assert (scan.column("frames").read([first + 1, 5]) == np.stack([image, 0 * image])).all()


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
    assert incompleteness(recorder.scan()).startswith("no position for 30 frames"), "nothing else is missing"


def test_a_scan_that_outgrew_what_was_announced_is_not_over_without_its_end(tmp_path: Path) -> None:
    *frames, end = series("a", 40, announce=20)
    recorder = Recorder(tmp_path, end_grace_s=2.0)
    recorder.take(frames[:31])
    recorder.wait(600.0)
    recorder.take([*frames[31:], end])
    recorder.wait(2.0)
    assert_recorded(recorder.scan(), range(40))


def test_a_scan_shorter_than_announced_says_so(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.take(series("a", 30, announce=50, drop=frozenset({7})))
    recorder.wait(2.0)
    missing = "lost 1 frame (7); fewer than announced: 20 frames (30-49); "
    assert incompleteness(recorder.scan()).startswith(missing)
    assert (recorder.account().expected, recorder.account().lost) == (50, 21)


def test_what_is_announced_for_one_trigger_counts_for_every_trigger(tmp_path: Path) -> None:
    *frames, end = series("a", 30, announce=10)
    recorder = Recorder(tmp_path, n_triggers=3)
    recorder.take(frames[:11])
    recorder.wait(600.0)  # until the next trigger
    assert (recorder.account().expected, recorder.account().awaited) == (30, 20)
    recorder.take([*frames[11:], end])
    assert recorder.counters()["closed"] == 1
    assert_recorded(recorder.scan(), range(30))


def test_a_pause_of_an_hour_ends_no_series(tmp_path: Path) -> None:
    *frames, end = series("a", 10)
    recorder = Recorder(tmp_path)
    for part in (frames[:5], frames[5:6], [*frames[6:], end]):
        recorder.take(part)
        recorder.wait(3600.0)
    assert recorder.account().is_complete
    assert len([*tmp_path.iterdir()]) == 1


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


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_complete_series_closes_though_its_end_never_comes(tmp_path: Path, dialect: str) -> None:
    recorder = Recorder(tmp_path, format=dialect, end_grace_s=2.0)
    recorder.take(series_as(dialect, "a", 10, without_end=True))
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


def test_no_message_is_larger_than_frames_and_maps_of_the_configured_shape_need(tmp_path: Path) -> None:
    inlets = [Recorder(tmp_path, **known).subscriber.inlet for known in ({}, {"frame_shape": (512, 1028)})]
    unknown, known = [inlet.most_bytes for inlet in inlets if inlet is not None]
    n_channels, flatfield, mask = 4, np.float32(0).nbytes, np.uint32(0).nbytes
    assert unknown == 0
    assert n_channels * (flatfield + mask) * 512 * 1028 < known < 64e6
