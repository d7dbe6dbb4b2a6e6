"""Plain messages: what a detector that somebody built sends, written as its builder would."""

import json
from typing import Any

import numpy as np
import pytest

from stream.detector.compression import compress
from stream.detector.plain import Plain
from stream.detector.protocol import DetectorMessageError, EndMessage, ImageMessage, StartMessage

FRAME = np.random.default_rng(0).poisson(2.0, (4, 6)).astype("<u2")
HEADER = {"type": "frame", "series": "star-1", "number": 3, "shape": [4, 6], "dtype": "uint16"}


def told(header: Any, *pixels: bytes) -> Any:
    return Plain().decode([json.dumps(header).encode(), *pixels])


def test_a_series_may_be_a_text_or_a_number() -> None:
    assert told({"type": "end", "series": "star-1"}).key == "star-1"
    assert told({"type": "end", "series": 17}) == EndMessage(series_id=17)
    assert told({"type": "start", "series": 17}).frame_shape is None


def test_a_start_says_what_it_knows() -> None:
    message = told(
        {
            "type": "start", "series": "star-1", "n_frames": 9, "shape": [4, 6], "dtype": "uint16",
            "energy_ev": 8800, "detector_distance_m": 1.92, "detector_pixel_m": 75e-6,
        }
    )  # fmt: skip
    assert isinstance(message, StartMessage)
    assert (message.number_of_images, message.frame_shape, message.frame_dtype) == (9, (4, 6), "<u2")
    assert (message.incident_energy, message.detector_translation) == (8800.0, (0.0, 0.0, 1.92))


@pytest.mark.parametrize("compression", ["", "bslz4", "bszstd", "lz4"])
def test_pixels_come_as_they_are_or_compressed(compression: str) -> None:
    data = compress(FRAME, compression) if compression else FRAME.tobytes()
    message = told(HEADER | {"compression": compression, "exposed_s": 0.25, "user_data": {"y": 1.5}}, data)
    assert isinstance(message, ImageMessage)
    assert (message.key, message.image_id, message.exposed_s) == ("star-1", 3, 0.25)
    assert message.user_data == {"y": 1.5}
    np.testing.assert_array_equal(message.frame().decode(), FRAME)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"type": "image"}, "Invalid value 'image'"),
        ({"series": ""}, "length >= 1"),
        ({"number": -1}, "Expected `int` >= 0"),
        ({"shape": [4, 6, 3]}, "length 2"),
        ({"shape": [4, "6"]}, "wanted rows and columns"),
        ({"dtype": "float32"}, r"'float32': wanted counts, one of \['uint8'"),
        ({"compression": "gzip"}, r"'gzip': wanted one of \('', 'bslz4'"),
        ({"exposed_s": -1}, ">= 0"),
    ],
)
def test_what_is_wrong_is_refused_by_name(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(DetectorMessageError, match=reason):
        told(HEADER | changes, FRAME.tobytes())


def test_a_frame_has_two_parts_and_the_others_one() -> None:
    with pytest.raises(DetectorMessageError, match="frame message of 1 parts: wanted 2"):
        told(HEADER)
    with pytest.raises(DetectorMessageError, match="end message of 2 parts: wanted 1"):
        told({"type": "end", "series": 1}, b"")
