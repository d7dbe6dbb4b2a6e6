"""A disk without room: a clear refusal when the detector is armed, no harm to what is recorded later on."""

import errno
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest

from stream.atomic import DiskFullError
from stream.detector.dectris import encode_frame, encode_message
from stream.detector.protocol import ImageMessage
from stream.documents import codec
from stream.documents.codec import RECORD_FILE, append_records, as_record, read_documents
from stream.record.columns import Column
from stream.record.scan import Numbers, Scan, State
from stream.stages.loop import WorkerLoop
from stream.stages.stage import ScanWork
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.detector import Recorder, assert_recorded, numbers_in, pixels, series
from tests.helpers.stream.full_disk import fill_disk, limit_disk
from tests.helpers.stream.position_stage import (
    Detector,
    N,
    assert_all_positions,
    page,
    stage,
    start,
    stop,
    wire,
)
from tests.helpers.stream.scans import close, make_scan, record, states


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
    assert recorder.subscriber.progress() == ("", {"rejected": 3, "refused": 1})
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


def test_positions_go_into_the_room_they_were_given_and_documents_are_counted_when_the_disk_is_full(
    scans: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    detector = Detector(scans, "a")
    detector.counters["announced"] = N
    positions = stage(scans)
    positions.handle(start())
    recorded = (detector.scan.folder / RECORD_FILE).read_bytes()
    with monkeypatch.context() as patch:
        fill_disk(patch)
        patch.setattr(codec, "full_disk_named", full_for(RECORD_FILE))
        positions.handle([page(range(N))])
    positions.handle([stop()])
    detector.close()
    positions.idle(0.0)
    assert_all_positions(detector)
    assert "documents of 0000-a are not recorded, their positions are" in caplog.text
    assert positions.progress()[1]["refused"] == 1
    content = (detector.scan.folder / RECORD_FILE).read_bytes()
    assert content.startswith(recorded)
    assert [name for name, _ in read_documents(detector.scan.folder)] == ["start", "descriptor", "stop"]


def test_a_record_that_could_not_be_written_whole_is_as_it_was(tmp_path: Path, small_disk: None) -> None:
    append_records(tmp_path, [as_record("start", {"uid": "r"})])
    with pytest.raises(DiskFullError, match=r"no room for documents\.msgpack"):
        append_records(tmp_path, [as_record("event", {"data": "x" * 2_000_000})])
    append_records(tmp_path, [as_record("stop", {"uid": "s"})])
    assert [name for name, _ in read_documents(tmp_path)] == ["start", "stop"]


def test_positions_without_room_are_refused_with_a_sentence_and_end_without(
    scans: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    detector, positions = Detector(scans, "a"), stage(scans)
    positions.handle([*start(), page([0])])
    monkeypatch.setattr(Column, "_allocate", no_room)
    event = {"descriptor": "r1-d", "seq_num": 6001, "data": {"stage-y": 0.0, "stage-x": 0.0}}
    positions.handle([wire("event", event), page([1])])
    positions.idle(0.0)
    assert "1 positions refused, the last: frame 6000 of scan 0000-a and what follows: full" in caplog.text
    assert detector.states()[:2].tolist() == [State.DONE, State.DONE]


def no_room(column: Column, index: int) -> None:
    raise DiskFullError(errno.ENOSPC, "full", str(column.folder))


def full_for(name: str) -> Callable[[str, Path], AbstractContextManager[None]]:
    """What takes the place of `full_disk_named`: no room for one file."""

    @contextmanager
    def named(what: str, folder: Path) -> Iterator[None]:
        if what == name:
            raise DiskFullError(errno.ENOSPC, f"no room for {what}", str(folder))
        yield

    return named


@pytest.mark.allow_error_log
@pytest.mark.parametrize("where", ["open", "handle", "close"])
def test_a_stage_without_room_leaves_out_the_scan_and_does_the_next(
    scans: Path, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    first, worker = make_scan(scans, "0000-a"), FullStage(where)
    loop = WorkerLoop(worker, scans, Clock())
    record(first, np.arange(8))
    for _ in range(20):
        loop.turn()
    record(first, np.arange(8, 12))
    close(first, "subscriber")
    for _ in range(20):
        loop.turn()
    assert "no room for patches" in caplog.text
    assert f"`ptychostream reconstruct {first.folder}` takes all that is recorded" in caplog.text
    expected = State.DONE if where == "close" else State.NO_ROOM
    assert (states(first, worker.name) == expected).all()
    worker.where = ""
    second = make_scan(scans, "0001-b")
    record(second, np.arange(4))
    close(second, "subscriber")
    for _ in range(60):
        loop.turn()
    assert (states(second, worker.name) == State.DONE).all()


class FullStage:
    """A worker that finds no room at one moment."""

    name, inputs, waits_for, batch_size, deadline_s = "full", ("subscriber",), (), 4, 0.0

    def __init__(self, where: str) -> None:
        self.where = where

    def open(self, scan: Scan) -> ScanWork:
        self.meet("open", scan)
        return FullWork(self, scan)

    def meet(self, where: str, scan: Scan) -> None:
        if where == self.where:
            raise DiskFullError(errno.ENOSPC, "no room for patches", str(scan.folder))


class FullWork(ScanWork):
    def __init__(self, stage: FullStage, scan: Scan) -> None:
        self._stage, self._scan = stage, scan

    def handle(self, numbers: Numbers) -> None:
        self._stage.meet("handle", self._scan)
        self._scan.mark(self._stage.name, numbers, State.DONE)

    def close(self) -> None:
        self._stage.meet("close", self._scan)
