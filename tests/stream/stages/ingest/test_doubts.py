"""One message alone, damaged or from elsewhere, ends no series, fills no disk and hides no frame."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from stream.detector.dectris import decode_message, encode_frame, encode_message
from stream.detector.protocol import ImageMessage, StartMessage
from stream.record.scan import State
from stream.stages.ingest.incoming import MAX_FRAMES
from tests.helpers.stream.detector import Recorder, assert_recorded, numbers_in, pixels, series


def altered(message: bytes, **changes: object) -> bytes:
    decoded = decode_message(message)
    assert decoded is not None
    return encode_message(msgspec.structs.replace(decoded, **changes))


def image(number: int, uid: str = "a") -> bytes:
    frame = encode_frame(pixels(number % 10_000))
    return encode_message(
        ImageMessage(series_id=1, series_unique_id=uid, image_id=number, data={"threshold_1": frame})
    )


def names(recorder: Recorder) -> list[str]:
    return sorted(path.name for path in recorder.scans.iterdir())


def test_one_image_or_start_of_another_name_ends_no_series(tmp_path: Path) -> None:
    messages = series("01ABC", 20)
    strange = altered(messages[5], series_unique_id="01ABX"), altered(messages[0], series_unique_id="01AXC")
    recorder = Recorder(tmp_path)
    recorder.take([*messages[:5], strange[0], *messages[5:9], strange[1], *messages[9:15], strange[0]])
    recorder.take(messages[15:])
    assert_recorded(recorder.scan(0), range(20))
    assert recorder.counters(0)["closed"] == 1
    assert (recorder.counters(0)["late"], recorder.subscriber.progress()[1]["rejected"]) == (0, 2)


def test_the_start_of_another_series_ends_one_that_says_no_more(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, end_grace_s=2.0)
    recorder.take(series("a", 20, stop_after=12))
    recorder.take(series("b", 10)[:1])
    recorder.wait(1.9)
    assert names(recorder) == ["0000-a"]
    recorder.wait(0.2)
    assert (names(recorder), recorder.counters(0)["closed"]) == (["0000-a", "0001-b"], 1)


def test_a_series_without_frames_that_ends_one_that_says_no_more_has_ended_itself(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, end_grace_s=2.0)
    recorder.take(series("a", 20, stop_after=12))
    recorder.take([*series("b", 0)])
    recorder.wait(2.1)
    recorder.wait(2.1)
    assert [recorder.counters(index)["closed"] for index in (0, 1)] == [1, 1]


def test_a_second_image_of_another_series_brings_the_first_with_it(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.take(series("a", 20, stop_after=12))
    for message in series("b", 3, without_start=True):
        recorder.take([message])
    recorder.wait(2.0)
    assert_recorded(recorder.scan(1), range(3))
    assert recorder.subscriber.progress()[1]["rejected"] == 0


def test_one_wild_frame_number_makes_a_series_no_longer_and_takes_no_room(tmp_path: Path) -> None:
    *frames, end = series("a", 60)
    recorder = Recorder(tmp_path)
    recorder.take([*frames[:30], image(2_000_000), *frames[30:40], image(2_000_000), *frames[40:], end])
    assert_recorded(recorder.scan(), range(60))
    assert (recorder.account().expected, recorder.account().lost) == (60, 0)
    assert len([*(recorder.scan().folder / "columns" / "frames").glob("*.bin")]) == 1
    assert recorder.subscriber.progress()[1]["rejected"] == 2


@pytest.mark.parametrize("per_turn", [1, 64])
def test_a_wide_gap_is_believed_once_a_second_frame_is_beyond_it(tmp_path: Path, per_turn: int) -> None:
    recorder = Recorder(tmp_path)
    recorder.take(series("a", 10, without_end=True, announce=1), per_turn=per_turn)
    recorder.take([image(number) for number in (5000, 5001, 5003)], per_turn=per_turn)
    assert_recorded(recorder.scan(), [*range(10), 5000, 5001, 5003])
    assert recorder.subscriber.progress()[1]["rejected"] == 0


def test_a_good_copy_of_a_frame_takes_the_place_of_a_damaged_one(tmp_path: Path) -> None:
    messages = series("a", 10)
    damaged = altered(messages[4], data={"threshold_1": encode_frame(np.zeros((2, 2), "<u2"))})
    recorder = Recorder(tmp_path)
    recorder.take([*messages[:4], damaged, damaged, messages[5], messages[4], *messages[6:8], damaged])
    assert_recorded(recorder.scan(), range(7))
    recorder.take(messages[8:])
    assert_recorded(recorder.scan(), range(10))
    assert numbers_in(recorder.scan(), State.BAD) == []


def test_a_frame_of_which_only_damaged_copies_came_is_bad_in_the_end(tmp_path: Path) -> None:
    messages = series("a", 10)
    messages[10] = altered(messages[10], data={"threshold_1": encode_frame(np.zeros((2, 2), "<u2"))})
    recorder = Recorder(tmp_path)
    recorder.take(messages[:11])
    recorder.subscriber.close()
    assert numbers_in(recorder.scan(), State.BAD) == [9]
    assert_recorded(recorder.scan(), range(9))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image_size_x": 2**40}, "announces frames of 6 x 1099511627776: wanted 67108864 pixels at most"),
        ({"image_size_x": 2**62, "image_size_y": 2**62}, "wanted 67108864 pixels at most"),
        ({"number_of_images": 10**12}, f"announces 2000000000000 images: wanted {MAX_FRAMES} at most"),
        ({"number_of_images": 10**9}, f"announces 2000000000 images: wanted {MAX_FRAMES} at most"),
        ({"number_of_images": 2**63 - 1}, f"wanted {MAX_FRAMES} at most"),
    ],
)
def test_an_absurd_announcement_is_refused_its_frames_and_the_next_series_are_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, int], reason: str
) -> None:
    start, *rest = series("a", 5)
    recorder = Recorder(tmp_path, n_triggers=2)
    recorder.take([altered(start, **changes)])
    assert reason in caplog.text
    recorder.take([*rest, *series("b", 5, announce=10)])
    recorder = Recorder(tmp_path, n_triggers=2)
    recorder.take(series("c", 5, announce=10))
    for index in range(3):
        assert_recorded(recorder.scan(index), range(5))


def test_an_absurd_announcement_that_comes_late_harms_no_frame(tmp_path: Path) -> None:
    start, *rest = series("a", 5)
    assert isinstance(decode_message(start), StartMessage)
    recorder = Recorder(tmp_path)
    recorder.take([*rest[:3], altered(start, number_of_images=10**12), *rest[3:]])
    recorder.wait(2.0)
    assert_recorded(recorder.scan(), range(5))
    assert recorder.account().expected == 5
