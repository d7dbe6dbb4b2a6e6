"""DECTRIS Stream V1: every kind of start, every encoding, and what is malformed is refused by name."""

import json
from typing import Any

import lz4.block
import numpy as np
import pytest

from stream.detector.protocol import DetectorMessageError, EndMessage, ImageMessage, StartMessage
from stream.detector.stream_v1 import StreamV1, encode_message

FRAME = np.random.default_rng(0).poisson(2.0, (24, 32)).astype("<u2")
# As detectors write them: a start of `header_detail: basic`, in part, and an image.
CONFIG = {
    "beam_center_x": 15.5,
    "beam_center_y": 11.5,
    "bit_depth_image": 16,
    "count_time": 0.0099,
    "countrate_correction_count_cutoff": 65500,
    "data_collection_date": "2016-01-20T13:25:29.763",
    "description": "Dectris Eiger 1M",
    "detector_distance": 1.92,
    "detector_number": "E-01-0105",
    "frame_time": 0.01,
    "nimages": 20,
    "ntrigger": 5,
    "photon_energy": 8800.0,
    "trigger_mode": "exts",
    "wavelength": 1.4089,
    "x_pixel_size": 7.5e-05,
    "x_pixels_in_detector": 32,
    "y_pixel_size": 7.5e-05,
    "y_pixels_in_detector": 24,
}
PIXELS = {"htype": "dimage_d-1.0", "shape": [32, 24], "type": "uint16", "encoding": "<", "size": 1536}


def told(*parts: Any) -> Any:
    return StreamV1().decode(
        [part if isinstance(part, bytes) else json.dumps(part).encode() for part in parts]
    )


def start(*parts: Any, detail: str = "basic") -> Any:
    return told({"htype": "dheader-1.0", "series": 7, "header_detail": detail}, *parts)


def image(data: bytes, *appendix: bytes, **pixels: Any) -> Any:
    return told(
        {"htype": "dimage-1.0", "series": 7, "frame": 3, "hash": "fc67f000d08fe6b380ea9434b8362d22"},
        PIXELS | pixels,
        data,
        {"htype": "dconfig-1.0", "start_time": 30_000_000, "stop_time": 39_900_000, "real_time": 9_900_000},
        *appendix,
    )


def test_a_start_says_how_many_frames_all_triggers_give() -> None:
    message = start(CONFIG)
    assert isinstance(message, StartMessage)
    assert (message.key, message.number_of_images, message.frame_shape) == ("series-7", 100, (24, 32))
    assert (message.incident_energy, message.detector_translation) == (8800.0, (0.0, 0.0, 1.92))
    assert (message.pixel_size_x, message.saturation_value) == (7.5e-5, 65500)


def test_a_start_may_say_nothing_but_the_series_and_may_have_an_appendix() -> None:
    for parts in ([], [b"a user's text"], [CONFIG]):
        message = start(*parts, detail="none")
        assert (message.key, message.number_of_images, message.frame_shape) == ("series-7", None, None)


def test_flat_field_mask_and_table_of_a_start_are_passed_over() -> None:
    parts = encode_message(start(CONFIG), "all")
    assert len(parts) == 8
    assert [json.loads(part)["htype"] for part in parts[2::2]] == [
        "dflatfield-1.0", "dpixelmask-1.0", "dcountrate_table-1.0",
    ]  # fmt: skip
    assert StreamV1().decode([*parts, b"appendix"]) == start(CONFIG)


def test_a_region_of_interest_leaves_the_shape_to_the_first_frame() -> None:
    assert start(CONFIG | {"roi_mode": "4M"}).frame_shape is None
    assert start(CONFIG | {"roi_mode": "disabled"}).frame_shape == (24, 32)


def test_the_shape_of_an_image_is_columns_and_rows_and_its_times_are_nanoseconds() -> None:
    message = image(FRAME.tobytes())
    assert isinstance(message, ImageMessage)
    assert (message.key, message.image_id) == ("series-7", 3)
    assert message.exposed_s == pytest.approx(0.0399)
    np.testing.assert_array_equal(message.frame().decode(), FRAME)


def test_lz4_is_one_block_without_a_frame() -> None:
    message = image(lz4.block.compress(FRAME.tobytes(), store_size=False), encoding="lz4<")
    np.testing.assert_array_equal(message.frame().decode(), FRAME)


def test_what_a_user_appends_to_images_is_theirs() -> None:
    assert image(b"", b'{"y": 1.5}').user_data == {"y": 1.5}
    assert image(b"", b"line \xff 7").user_data == "line � 7"


def test_an_end_is_one_part() -> None:
    assert told({"htype": "dseries_end-1.0", "series": 7}) == EndMessage(series_id=7)
    assert json.loads(encode_message(EndMessage(series_id=7))[0]) == {"htype": "dseries_end-1.0", "series": 7}


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        ({"type": "float32"}, r"'float32': wanted one of \['uint8', 'uint16', 'uint32'\]"),
        ({"encoding": "bs16-lz4>"}, "'bs16-lz4>': wanted '<'"),
        ({"encoding": "bs16<"}, "'bs16<': wanted '<'"),
        ({"encoding": "bs64-lz4<"}, "'bs64-lz4<': wanted '<'"),
        ({"shape": [32, 24, 3]}, r"shape \[32, 24, 3\]: wanted columns and rows"),
        ({"shape": [32, 0]}, r"shape \[0, 32\]: wanted rows and columns"),
        ({"shape": [1 << 20, 1 << 20]}, "67108864 pixels at most"),
        ({"htype": "dimage-1.0"}, "second part of a Stream V1 message, .* bytes: Invalid value 'dimage-1.0'"),
    ],
)
def test_pixels_of_another_kind_are_refused_by_name(pixels: dict[str, Any], reason: str) -> None:
    with pytest.raises(DetectorMessageError, match=reason):
        image(FRAME.tobytes(), **pixels)


def test_messages_of_another_form_are_refused_by_name() -> None:
    for parts, reason in (
        (({"htype": "dimage-1.0", "series": 7, "frame": 3},), "image 3 of 1 parts: wanted 4"),
        (({"htype": "dimage-1.0", "series": 7, "frame": -1},), "first part .* Expected `int` >= 0"),
        (({"htype": "dimage-2.0", "series": 7},), "Invalid value 'dimage-2.0'"),
        ((b"\xff",), "first part of a Stream V1 message, 1 bytes"),
    ):
        with pytest.raises(DetectorMessageError, match=reason):
            told(*parts)
    for wrong, reason in (
        ({"nimages": "20"}, r"nimages and ntrigger \['20', 5\]: wanted whole numbers"),
        ({"photon_energy": "8.8 keV"}, "configuration of a Stream V1 start: Expected `float"),
        ({"x_pixels_in_detector": 1 << 20, "y_pixels_in_detector": 1 << 20}, "67108864 pixels at most"),
    ):
        with pytest.raises(DetectorMessageError, match=reason):
            start(CONFIG | wrong)
