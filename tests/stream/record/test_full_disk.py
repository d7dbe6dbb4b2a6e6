"""A disk without room: a clear refusal when the detector is armed, no harm to what is recorded later on."""

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from stream.atomic import DiskFullError
from stream.detector.dectris import ImageMessage, encode_frame, encode_message
from stream.record.columns import Column
from stream.record.scan import State
from tests.helpers.stream.detector import Recorder, assert_recorded, numbers_in, pixels, series

Usage = namedtuple("Usage", "total used free")


def limit_disk(monkeypatch: pytest.MonkeyPatch, n_bytes: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(n_bytes, 0, n_bytes))


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    allocate = os.posix_fallocate

    def fail(file: int, offset: int, n_bytes: int) -> None:
        if n_bytes > 100_000:  # a page or two are always to be had
            raise OSError(errno.ENOSPC, "No space left on device")
        allocate(file, offset, n_bytes)

    limit_disk(monkeypatch, 0)
    monkeypatch.setattr(os, "posix_fallocate", fail)


def test_a_series_that_does_not_fit_is_refused_when_it_is_armed_and_the_next_one_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    limit_disk(monkeypatch, 10_000_000)
    recorder = Recorder(tmp_path)
    start, *rest = series("a", 3, announce=1_000_000)
    recorder.take([start])
    assert "series a is refused" in caplog.text
    assert "the 1000000 frames that it announces need 96 MB, 10 MB are free" in caplog.text
    recorder.take(rest)
    assert recorder.subscriber.progress() == ("", {"rejected": 3})
    assert not [*tmp_path.iterdir()]
    recorder.take(series("b", 3))
    assert_recorded(recorder.scan(), range(3))


def test_a_refused_series_is_taken_when_there_is_room_and_the_detector_is_armed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(tmp_path)
    with monkeypatch.context() as patch:
        limit_disk(patch, 10)
        recorder.take(series("a", 3))
    recorder.take(series("a", 3))
    assert_recorded(recorder.scan(), range(3))


def test_a_refused_series_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(column: Column, n_frames: int) -> None:
        raise DiskFullError(errno.ENOSPC, "quota", str(column.folder))

    monkeypatch.setattr(Column, "reserve", fail)
    recorder = Recorder(tmp_path)
    recorder.take(series("a", 3))
    recorder.subscriber.close()
    assert not [*tmp_path.iterdir()]


def test_a_disk_that_fills_up_keeps_what_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(tmp_path)
    messages = series("a", 5000, announce=1)
    recorder.take(messages[:1001])
    per_segment = recorder.scan().column("frames").segment_frames
    fill_disk(monkeypatch)
    recorder.take(messages[1001:])
    assert per_segment < 5000
    assert_recorded(recorder.scan(), range(per_segment))
    assert numbers_in(recorder.scan(), State.NO_ROOM) == [*range(per_segment, 5000)]
    assert recorder.counters()["closed"] == 1
    assert recorder.account().pending == 0
    assert "are not stored" in caplog.text


def test_recording_goes_on_when_there_is_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(tmp_path)
    messages = series("a", 4200, announce=1)
    recorder.take(messages[:4001])
    with monkeypatch.context() as patch:
        fill_disk(patch)
        recorder.take(messages[4001:4151])
    recorder.take(messages[4151:])
    lost = numbers_in(recorder.scan(), State.NO_ROOM)
    assert lost == [*range(4096, 4150)]
    assert_recorded(recorder.scan(), sorted({*range(4200)} - {*lost}))


def test_what_was_reserved_when_armed_is_used_though_the_disk_is_full_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = series("a", 5000)
    recorder = Recorder(tmp_path)
    recorder.take(messages[:1])
    fill_disk(monkeypatch)
    recorder.take(messages[1:100])
    recorder = Recorder(tmp_path)  # a new process knows no more than the disk
    recorder.take(messages[4900:])
    assert_recorded(recorder.scan(), [*range(99), *range(4899, 5000)])


def test_a_frame_number_far_beyond_does_not_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(tmp_path)
    messages = series("a", 10)
    recorder.take(messages[:5])
    limit_disk(monkeypatch, 10_000_000)
    far = ImageMessage(
        series_id=1, series_unique_id="a", image_id=9_000_000, data={"threshold_1": encode_frame(pixels(0))}
    )
    recorder.take([encode_message(far), *messages[5:]])
    assert len([*(recorder.scan().folder / "columns" / "frames").glob("*.bin")]) == 1
    assert_recorded(recorder.scan(), range(10))
    assert recorder.subscriber.progress()[1]["rejected"] == 1
