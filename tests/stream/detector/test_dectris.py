"""DECTRIS Stream V2: real captures decode, what is encoded decodes again, what is malformed is refused."""

import math
from datetime import UTC, datetime
from typing import Any

import cbor2
import numpy as np
import pytest

from stream.detector.dectris import decode_message, encode_frame, encode_message
from stream.detector.protocol import (
    DetectorMessageError,
    EncodedFrame,
    EndMessage,
    ImageMessage,
    StartMessage,
)
from tests.helpers.recorded_data import SHARED_DATA, needs_shared_data

CAPTURES = SHARED_DATA / "dectris"
FRAME = np.random.default_rng(0).poisson(2.0, (24, 32)).astype("<u2")


def image_fields(**changes: Any) -> dict[str, Any]:
    """The map of a valid image message, with changes."""
    pixels = cbor2.CBORTag(69, FRAME.tobytes())
    return {
        "type": "image",
        "series_id": 3,
        "series_unique_id": "01ABC",
        "image_id": 5,
        "stop_time": [3, 2],
        "data": {"threshold_1": cbor2.CBORTag(40, [[24, 32], pixels])},
    } | changes


def capture(path: str) -> Any:
    return decode_message((CAPTURES / path).read_bytes())


@needs_shared_data
def test_real_images_decode() -> None:
    messages = [capture(f"bslz4_16bit/00000{i}.cbor") for i in (1, 2, 3)]
    assert [message.image_id for message in messages] == [0, 1, 2]
    assert {message.key for message in messages} == {"01GRXWT80JSDY2FNW8SGCCDZD9"}
    assert messages[1].exposed_s == pytest.approx(0.04, abs=1e-6)
    assert list(messages[0].data) == ["threshold_1", "threshold_2", "difference"]
    for message in messages:
        for frame in message.data.values():
            pixels = frame.decode()
            assert (pixels.shape, pixels.dtype) == ((514, 1030), np.dtype("<u2"))
    # A detector in the dark: few counts, and no two frames alike.
    first, second = (message.frame("threshold_1").decode() for message in messages[:2])
    assert first.max() < 20
    assert (first != second).any()


@needs_shared_data
def test_real_captures_with_both_compressions_encode_to_what_decodes_alike() -> None:
    for path in ("bslz4_16bit/000001.cbor", "lz4_16bit/000001.cbor"):
        message = capture(path)
        assert decode_message(encode_message(message)) == message
        pixels = message.frame().decode()
        for compression in ("bslz4", "lz4", ""):
            np.testing.assert_array_equal(encode_frame(pixels, compression).decode(), pixels)


@needs_shared_data
def test_a_real_end_is_encoded_byte_for_byte() -> None:
    encoded = (CAPTURES / "bslz4_16bit/000011.cbor").read_bytes()
    message = decode_message(encoded)
    assert message == EndMessage(series_id=1, series_unique_id="01GRXWT80JSDY2FNW8SGCCDZD9")
    assert encode_message(message) == encoded


@pytest.mark.parametrize("compression", ["bslz4", "lz4", ""])
@pytest.mark.parametrize("dtype", ["|u1", "<u2", "<u4", "<i4", "<f4"])
def test_images_survive_the_wire(dtype: str, compression: str) -> None:
    frame = encode_frame(FRAME.astype(dtype), compression)
    message = ImageMessage(
        series_id=1,
        series_unique_id="u",
        image_id=2**40,
        start_time=(0, 50),
        stop_time=(7, 50),
        series_date=datetime(2024, 5, 1, tzinfo=UTC),
        user_data={"angle": 1.5},
        data={"a": frame, "b": encode_frame(FRAME)},
    )
    decoded = decode_message(encode_message(message))
    assert decoded == message
    assert isinstance(decoded, ImageMessage)
    np.testing.assert_array_equal(decoded.frame("a").decode(), FRAME.astype(dtype))
    np.testing.assert_array_equal(decoded.frame().decode(), FRAME.astype(dtype))


def test_a_big_endian_frame_is_sent_with_its_values() -> None:
    frame = encode_frame(FRAME.astype(">u2"))
    assert frame.dtype == "<u2"
    np.testing.assert_array_equal(frame.decode(), FRAME)


def test_a_start_survives_the_wire() -> None:
    message = StartMessage(
        series_id=4,
        series_unique_id="u",
        number_of_images=100,
        image_size_x=1030,
        image_size_y=514,
        image_dtype="uint16",
        channels=("threshold_1", "difference"),
        arm_date=datetime(2024, 5, 1, tzinfo=UTC),
        detector_translation=(0.0, 0.0, 1.9),
        incident_energy=8800.0,
        pixel_size_x=75e-6,
        saturation_value=65534,
    )
    assert decode_message(encode_message(message)) == message
    assert (message.frame_shape, message.frame_dtype) == ((514, 1030), "<u2")


def test_a_start_as_real_detectors_send_it_says_no_dtype() -> None:
    mask = cbor2.CBORTag(40, [[2, 2], cbor2.CBORTag(70, bytes(16))])
    start = decode_message(
        cbor2.dumps(
            {
                "type": "start",
                "series_id": 1,
                "series_unique_id": "u",
                "image_size_x": 2,
                "image_size_y": 2,
                "pixel_mask": {"threshold_1": mask},
                "goniometer": {"omega": {"increment": 0.0, "start": 90.0}},
            }
        )
    )
    assert isinstance(start, StartMessage)
    assert (start.frame_shape, start.frame_dtype, start.number_of_images) == ((2, 2), "", None)


def test_a_series_without_unique_id_goes_by_its_number() -> None:
    assert EndMessage(series_id=7).key == "series-7"
    assert EndMessage(series_id=7, series_unique_id="").key == "series-7"


def test_an_unknown_time_is_not_a_number() -> None:
    frame = encode_frame(FRAME)
    for stop_time in (None, (5, 0)):
        assert math.isnan(
            ImageMessage(series_id=1, image_id=0, data={"a": frame}, stop_time=stop_time).exposed_s
        )


@pytest.mark.parametrize("kind", ["calibration", "metadata"])
def test_other_types_of_message_are_passed_over(kind: str) -> None:
    assert decode_message(cbor2.dumps({"type": kind, "anything": [1, 2]})) is None


def test_any_buffer_decodes() -> None:
    encoded = cbor2.dumps(image_fields())
    assert (
        decode_message(memoryview(encoded)) == decode_message(bytearray(encoded)) == decode_message(encoded)
    )


PIXELS = cbor2.CBORTag(69, b"\0\0")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"type": 3}, "type 3"),
        ({"series_id": "1"}, r"Expected `int`, got `str` - at `\$.series_id`"),
        ({"series_id": -1}, "series_id"),
        ({"image_id": None}, "image_id"),
        ({"image_id": 2**64}, "image_id"),
        ({"stop_time": [1]}, "stop_time"),
        ({"data": 5}, "`data` int"),
        ({"data": {1: cbor2.CBORTag(40, [[1, 1], PIXELS])}}, "data"),
        ({"data": {"a": b"raw"}}, "wanted tag 40"),
        ({"data": {"a": cbor2.CBORTag(1040, [[1, 1], PIXELS])}}, "tag 1040 .* wanted tag 40"),
        ({"data": {"a": cbor2.CBORTag(40, [[1, 1]])}}, "array of 2 items"),
        ({"data": {"a": cbor2.CBORTag(40, [[1, 1, 1], PIXELS])}}, "array of 2 items"),
        ({"data": {"a": cbor2.CBORTag(40, [[0, 1], PIXELS])}}, "shape"),
        ({"data": {"a": cbor2.CBORTag(40, [[2**20, 2**20], PIXELS])}}, "shape"),
        ({"data": {"a": cbor2.CBORTag(40, [["1", 1], PIXELS])}}, "shape"),
        ({"data": {"a": cbor2.CBORTag(40, [[1, 1], b"\0\0"])}}, "pixels of type bytes"),
        ({"data": {"a": cbor2.CBORTag(40, [[1, 1], cbor2.CBORTag(65, b"\0\0")])}}, "pixels of type tag 65"),
        ({"data": {"a": cbor2.CBORTag(40, [[1, 1], cbor2.CBORTag(69, "x")])}}, "pixels of type str"),
        (
            {"data": {"a": cbor2.CBORTag(40, [[1, 1], cbor2.CBORTag(69, cbor2.CBORTag(56500, ["lz4", 0]))])}},
            "array of 3 items",
        ),
        (
            {
                "data": {
                    "a": cbor2.CBORTag(40, [[1, 1], cbor2.CBORTag(69, cbor2.CBORTag(56500, [1, 0, b""]))])
                }
            },
            "pixels",
        ),
    ],
)
def test_malformed_messages_say_what_was_wanted(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(DetectorMessageError, match=reason):
        decode_message(cbor2.dumps(image_fields(**changes)))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"garbage",
        cbor2.dumps([1, 2]),
        cbor2.dumps({"type": "image"}),
        cbor2.dumps({}),
        b"\xd8\x1d\x00",
        b"\x81" * 5000,
        b"\xc0\x63abc",
        b"\xd8\x1e\x82\x01\x00",
        b"\xa1\xff",
        b"\x9b" + b"\xff" * 8,
        b"\x5b\x7f" + b"\xff" * 7,
    ],
)
def test_bytes_that_are_no_message_are_refused(raw: bytes) -> None:
    with pytest.raises(DetectorMessageError):
        decode_message(raw)


def test_a_frame_fills_only_what_it_fits() -> None:
    frame = encode_frame(FRAME)
    for out in (np.empty((32, 24), "<u2"), np.empty((24, 32), "<u4")):
        with pytest.raises(DetectorMessageError, match=r"frame has shape \(24, 32\) <u2, wanted"):
            frame.decode_into(out)


def test_pixels_that_are_too_few_are_refused() -> None:
    short = EncodedFrame(shape=(2, 3), dtype="<u2", data=bytes(11))
    with pytest.raises(DetectorMessageError, match="needs 12 bytes, 11 bytes came"):
        short.decode()
    unknown = EncodedFrame(shape=(2, 3), dtype="<u2", compression="blosc", data=bytes(12))
    with pytest.raises(DetectorMessageError, match="'blosc'"):
        unknown.decode()


def test_a_missing_channel_is_named_with_those_that_are_there() -> None:
    message = decode_message(cbor2.dumps(image_fields()))
    assert isinstance(message, ImageMessage)
    with pytest.raises(DetectorMessageError, match=r"\['threshold_1'\]: wanted 'threshold_2'"):
        message.frame("threshold_2")
    with pytest.raises(DetectorMessageError, match="has channels"):
        ImageMessage(series_id=1, image_id=0, data={}).frame()


@pytest.mark.parametrize("bad", [np.zeros(4, "<u2"), np.zeros((2, 2), bool), np.zeros((2, 2), complex)])
def test_frames_that_the_format_cannot_carry_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="wanted two axes"):
        encode_frame(bad)


def test_mutated_messages_raise_nothing_but_their_own_error() -> None:
    rng = np.random.default_rng(4)
    whole = [
        encode_message(
            ImageMessage(series_id=1, image_id=0, data={"a": encode_frame(FRAME)}, stop_time=(1, 2))
        ),
        encode_message(
            StartMessage(series_id=1, number_of_images=3, arm_date=datetime(2024, 5, 1, tzinfo=UTC))
        ),
        encode_message(EndMessage(series_id=1, series_unique_id="01ABC")),
    ]
    n_refused = 0
    for turn in range(20_000):
        encoded = np.frombuffer(whole[turn % 3], np.uint8)[: rng.integers(1, 400)].copy()
        where = rng.integers(0, min(len(encoded), 90), rng.integers(1, 4))
        encoded[where] = rng.integers(0, 256, where.size)
        try:
            message = decode_message(encoded.tobytes())
            if isinstance(message, ImageMessage) and math.prod(message.frame().shape) < 10_000:
                message.frame().decode()
        except DetectorMessageError:
            n_refused += 1
    assert n_refused > 10_000
