"""Jungfraujoch: its additions to Stream V2 are understood or passed over."""

from typing import Any

import cbor2
import numpy as np
import pytest

from stream.detector.dectris import encode_frame, encode_message
from stream.detector.jungfraujoch import METADATA_EVERY, Jungfraujoch, encode
from stream.detector.protocol import DetectorMessageError, EndMessage, ImageMessage, StartMessage

FRAME = np.random.default_rng(0).integers(-(2**15), 2**15, (24, 32)).astype("<i2")
START = StartMessage(
    series_id=3, series_unique_id="3:star", number_of_images=9, image_size_x=32, image_size_y=24
)


def image(
    number: int, frame: np.ndarray = FRAME, compression: str = "bszstd", **changes: Any
) -> ImageMessage:
    fields = {"series_id": 3, "series_unique_id": "3:star", "image_id": number, "stop_time": (number, 50)}
    return ImageMessage(**fields | {"data": {"default": encode_frame(frame, compression)}} | changes)


def sent(*messages: Any) -> list[dict[str, Any]]:
    return [cbor2.loads(parts[0]) for message in messages for parts in encode(message)]


def test_calibration_and_metadata_are_sent_and_passed_over() -> None:
    said = [START, *map(image, range(METADATA_EVERY)), EndMessage(series_id=3, series_unique_id="3:star")]
    kinds = [fields["type"] for fields in sent(*said)]
    assert kinds == ["start", "calibration", *["image"] * METADATA_EVERY, "metadata", "end"]
    dialect = Jungfraujoch()
    decoded = [dialect.decode(parts) for message in said for parts in encode(message)]
    assert [message for message in decoded if message is not None] == said


def test_an_image_tells_its_end_by_another_name_and_more_than_others() -> None:
    (fields,) = sent(image(7))
    assert {"magic_number", "bkg_estimate", "spots", "end_time"} <= fields.keys()
    assert "stop_time" not in fields
    assert fields["data"]["default"].value[1].value.value[0] == "bszstd"


def test_images_that_differ_in_their_times_alone_are_read_by_comparing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dialect = Jungfraujoch()
    first, second = (encode_message(image(number), names={"stop_time": "end_time"}) for number in (1, 200))
    assert dialect.decode([first]) == image(1)
    monkeypatch.setattr("stream.detector.stream_v2.decode_message", lambda _: pytest.fail("it was decoded"))
    assert dialect.decode([second]) == image(200)


@pytest.mark.parametrize("dtype", ["<i2", "<i4", "<u2", "<u4", "|u1"])
@pytest.mark.parametrize("compression", ["bszstd", "bslz4", ""])
def test_signed_and_unsigned_counts_come_as_they_are(dtype: str, compression: str) -> None:
    frame = FRAME.astype(dtype)
    (parts,) = encode(image(0, frame, compression))
    decoded = Jungfraujoch().decode(parts)
    assert isinstance(decoded, ImageMessage)
    np.testing.assert_array_equal(decoded.frame().decode(), frame)


def test_floats_are_refused_by_name() -> None:
    wrong = image(4, FRAME.astype("<f4"))
    with pytest.raises(DetectorMessageError, match="image 4 has float32 in channel 'default': wanted counts"):
        Jungfraujoch().decode([encode_message(wrong)])
    with pytest.raises(ValueError, match="Jungfraujoch sends counts"):
        encode(wrong)
    with pytest.raises(ValueError, match="'lz4'"):
        encode(image(4, FRAME, "lz4"))
