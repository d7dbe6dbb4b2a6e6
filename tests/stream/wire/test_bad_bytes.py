"""Damaged messages and frames of another kind: counted, named in the log, and the run goes on."""

import logging
from pathlib import Path

import cbor2
import numpy as np
import pytest

from stream.detector.dectris import encode_frame, encode_message
from stream.detector.protocol import EncodedFrame, ImageMessage
from stream.record.scan import State
from stream.stages.ingest.incoming import MAX_FRAMES
from tests.helpers.stream.detector import SHAPE, Recorder, assert_recorded, numbers_in, pixels, series


def image(number: int, frame: EncodedFrame) -> bytes:
    return encode_message(
        ImageMessage(series_id=1, series_unique_id="a", image_id=number, data={"threshold_1": frame})
    )


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (encode_frame(np.zeros((8, 8), "<u2")), "frame has shape (8, 8) <u2, wanted (6, 8) <u2"),
        (encode_frame(np.zeros(SHAPE, "<u4")), "frame has shape (6, 8) <u4, wanted (6, 8) <u2"),
        (EncodedFrame(shape=SHAPE, dtype="<u2", compression="bslz4", item_size=2, data=b"\1" * 40), "hold"),
        (EncodedFrame(shape=SHAPE, dtype="<u2", data=b"\1" * 40), "needs 96 bytes, 40 bytes came"),
    ],
)
def test_a_frame_that_cannot_be_used_is_bad(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, bad: EncodedFrame, reason: str
) -> None:
    messages = series("a", 10)
    messages[4] = image(3, bad)
    recorder = Recorder(tmp_path)
    recorder.take(messages)
    assert numbers_in(recorder.scan(), State.BAD) == [3]
    assert_recorded(recorder.scan(), [0, 1, 2, *range(4, 10)])
    assert recorder.counters()["closed"] == 1
    assert "frame 3 of scan 0000-a: " in caplog.text
    assert reason in caplog.text


def test_bytes_that_are_no_message_are_rejected_and_the_run_goes_on(tmp_path: Path) -> None:
    messages = series("a", 10)
    garbage = [b"", b"\xff" * 30, cbor2.dumps({"type": 1}), cbor2.dumps({"type": "image", "image_id": 1})]
    recorder = Recorder(tmp_path)
    recorder.take([messages[0], *garbage, *messages[1:]])
    assert recorder.counters()["rejected"] == 4
    assert_recorded(recorder.scan(), range(10))


def test_a_message_in_several_parts_is_rejected(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.subscriber.handle([[b"topic", series("a", 1)[1]], []])
    assert recorder.subscriber.progress() == ("", {"rejected": 2})


def test_messages_of_unknown_type_are_passed_over(tmp_path: Path) -> None:
    messages = series("a", 4)
    recorder = Recorder(tmp_path)
    recorder.take([messages[0], cbor2.dumps({"type": "calibration"}), *messages[1:]])
    assert recorder.counters()["rejected"] == 0
    assert_recorded(recorder.scan(), range(4))


def test_an_absurd_frame_number_does_not_allocate_the_disk(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    messages = series("a", 4)
    recorder.take([messages[0], image(MAX_FRAMES, encode_frame(pixels(0))), *messages[1:]])
    assert recorder.counters()["rejected"] == 1
    assert_recorded(recorder.scan(), range(4))


def test_the_log_says_so_at_most_once_a_second(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder(tmp_path)
    for _ in range(20):
        recorder.take([b"garbage"] * 10)
        recorder.now += 0.125
    recorder.subscriber.close()
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [int(text.split()[0]) for text in warnings] == [10, 80, 80, 30]
    assert "7 bytes that are not CBOR" in warnings[0]


def test_random_bytes_never_stop_the_stage(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    start, *images, end = series("a", 40)
    recorder = Recorder(tmp_path)
    recorder.take([start])
    for message in images:
        damaged = np.frombuffer(message, np.uint8).copy()
        where = rng.integers(20, len(damaged), 3)
        damaged[where] = rng.integers(0, 256, where.size)
        recorder.take([damaged.tobytes()])
    recorder.take([*images, end])
    recorder.subscriber.close()
    account = recorder.account(0)
    assert account.pending == 0
    assert account.recorded + account.lost == account.expected
