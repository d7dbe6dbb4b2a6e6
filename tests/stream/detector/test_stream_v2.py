"""Images like the one before are read in a shorter way, and mean exactly what the decoder says they do."""

from collections.abc import Sequence
from typing import Any

import cbor2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.detector import stream_v2
from stream.detector.dectris import decode_message, encode_frame
from stream.detector.protocol import DetectorMessageError, ImageMessage
from stream.detector.stream_v2 import StreamV2
from stream.wire.codec import Buffer

FRAMES = np.random.default_rng(0).poisson(2.0, (4, 24, 32)).astype("<u2")
COMPRESSIONS = "bslz4", "lz4", ""


def image(number: int, time: int = 7, channels: int = 1, compression: str = "", **changes: Any) -> bytes:
    """An image with its fields in the order in which DECTRIS sends them."""
    frame = encode_frame(FRAMES[number % len(FRAMES)], compression)
    content: Any = frame.data
    if compression:
        content = cbor2.CBORTag(56500, [compression, frame.item_size, content])
    pixels = cbor2.CBORTag(40, [list(frame.shape), cbor2.CBORTag(69, content)])
    fields = {
        "type": "image",
        "series_id": 3,
        "series_unique_id": "01ABC",
        "image_id": number,
        "real_time": [time, 50_000_000],
        "series_date": cbor2.CBORTag(0, "2024-05-01T12:00:00Z"),
        "start_time": [time + number, 50_000_000],
        "stop_time": [time + number + 1, 50_000_000],
        "user_data": {"angle": 1.5, "image_id": 4},
        "data": {f"threshold_{channel}": pixels for channel in range(channels)},
    }
    return cbor2.dumps(cbor2.CBORTag(55799, fields | changes))


def said(decode: Any, message: Any) -> Any:
    """What a message says, or why nothing is understood."""
    try:
        return decode(message)
    except DetectorMessageError as error:
        return str(error)


def after(messages: Sequence[bytes]) -> StreamV2:
    """A reader that has read these."""
    reader = StreamV2()
    for message in messages:
        said(reader.decode, [message])
    return reader


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_like_the_last_are_read_without_the_decoder_and_without_a_copy_of_their_pixels(
    monkeypatch: pytest.MonkeyPatch, channels: int, compression: str
) -> None:
    # The width of the numbers changes on the way, as that of the pixels does where they are compressed.
    numbers = [0, 1, 23, 24, 255, 256, 65535, 65536, 2**32, 2**63 - 2000]
    messages = [image(number, 100 * number % 977, channels, compression) for number in numbers]
    expected = [decode_message(message) for message in messages]
    decoded: list[Buffer] = []

    def decode(message: Buffer) -> Any:
        decoded.append(message)
        return decode_message(message)

    monkeypatch.setattr(stream_v2, "decode_message", decode)
    reader = StreamV2()
    for message, wanted in zip(messages, expected, strict=True):
        buffer = bytearray(message)
        found = reader.decode([buffer])
        assert found == wanted
        assert isinstance(found, ImageMessage)
        for frame in found.data.values():
            assert decoded[-1] is buffer or frame.data.obj is buffer
            np.testing.assert_array_equal(frame.decode(), FRAMES[found.image_id % len(FRAMES)])
    assert len(decoded) == 1


UNLIKE: dict[str, list[bytes]] = {
    "another series": [image(5), image(6, series_unique_id="01ABD"), image(7, series_unique_id="01ABD")],
    "another time base": [image(5), image(6, stop_time=[7, 3])],
    "another shape": [image(5), image(6, data={"a": cbor2.CBORTag(40, [[2, 1], cbor2.CBORTag(64, b"ab")])})],
    "a number that no image has": [image(5), image(2**63)],
    "a number that is none": [image(5), image(6, image_id="6")],
    "no numbers of its own": [image(5, stop_time=None), image(6, stop_time=None)],
    "a field of another detector": [image(5, spots=[1, 2]), image(6, spots=[1, 3])],
    "bytes after its end": [image(5), image(6) + b"\x00", image(7)],
    "cut short": [image(5), image(6)[:-1], image(6)[:-700], image(6)[:40], b""],
    "an end in between": [image(5), cbor2.dumps({"type": "end", "series_id": 3}), image(6)],
    "a number that other fields refer to": [
        bytes.fromhex("a4") + b"dtypeeimageiseries_id\x03himage_id\xd8\x1c" + number + b"ddata\xa0"
        for number in (b"\x05", b"\x06")
    ],
    "a field twice": [
        bytes.fromhex("a5") + b"dtypeeimageiseries_id\x03himage_id" + number + b"himage_id\x04ddata\xa0"
        for number in (b"\x05", b"\x06")
    ],
    "of a length that its end tells": [
        b"\xbfdtypeeimageiseries_id\x03himage_id" + number + b"ddata\xa0\xff" for number in (b"\x05", b"\x06")
    ],
}


@pytest.mark.parametrize("messages", UNLIKE.values(), ids=UNLIKE)
def test_an_image_that_differs_in_anything_else_is_decoded(messages: list[bytes]) -> None:
    reader = StreamV2()
    assert [said(reader.decode, [message]) for message in messages] == [
        said(decode_message, message) for message in messages
    ]


def test_a_message_of_several_parts_is_refused() -> None:
    with pytest.raises(DetectorMessageError, match="message of 2 parts: Stream V2 has one"):
        StreamV2().decode([image(5), b""])


def test_images_that_are_never_alike_are_not_compared_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(stream_v2, "_mould_of", lambda *of: made.append(of))
    after([image(number, user_data=number) for number in range(100)])
    assert len(made) == 7


@settings(max_examples=300, deadline=None)
@given(
    compression=st.sampled_from(COMPRESSIONS),
    channels=st.integers(1, 2),
    number=st.integers(0, 2**64),
    changes=st.lists(
        st.tuples(st.integers(0, 2**16), st.sampled_from(["flip", "drop", "double"]), st.integers(0, 255)),
        max_size=3,
    ),
    is_like=st.booleans(),
)
def test_whatever_is_changed_in_a_message_the_reader_says_what_the_decoder_says(
    compression: str, channels: int, number: int, changes: list[tuple[int, str, int]], is_like: bool
) -> None:
    first = image(6, 9, channels, compression)
    changed = bytearray(image(number, 10**6, channels, compression))
    n_around = len(changed) - len(first) + 300  # most of what is looked at stands in front of the pixels
    for place, what, value in changes:
        at = place % (max(n_around, 1) if value % 4 else len(changed))
        changed[at : at + 1] = {"flip": bytes([value]), "drop": b"", "double": bytes([value, value])}[what]
    reader = after([first if is_like else bytes(changed)])
    assert said(reader.decode, [bytes(changed)]) == said(decode_message, bytes(changed))
    assert reader.decode([image(7)]) == decode_message(image(7))
