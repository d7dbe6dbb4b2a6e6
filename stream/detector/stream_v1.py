"""DECTRIS Stream V1, what EIGER and EIGER2 send by their older interface: decoded and encoded; no sockets.

Messages of several parts, JSON but for the pixels; series have a number and no unique id. The format: chapter
"Stream" of the SIMPLON API manual. Flat field, pixel mask and count-rate table, which `header_detail: all`
adds to a start, are passed over.
"""

import math
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np

from stream.detector.compression import compress
from stream.detector.protocol import (
    DetectorMessage,
    DetectorMessageError,
    EncodedFrame,
    EndMessage,
    ImageMessage,
    StartMessage,
    Unsigned,
    checked_shape,
    checked_start,
)
from stream.plain_json import plain_json
from stream.wire.codec import Buffer
from stream.wire.foreign import in_short

CHANNEL = "image"
DTYPES = {"uint8": "|u1", "uint16": "<u2", "uint32": "<u4"}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_ENCODING = re.compile(r"(?:bs(8|16|32)-(?=lz4))?(lz4)?<")
_NANOSECONDS = 1_000_000_000
# What the configuration in a start calls the fields of a `StartMessage`.
_CONFIG = {
    "x_pixels_in_detector": "image_size_x",
    "y_pixels_in_detector": "image_size_y",
    "beam_center_x": "beam_center_x",
    "beam_center_y": "beam_center_y",
    "count_time": "count_time",
    "frame_time": "frame_time",
    "description": "detector_description",
    "detector_number": "detector_serial_number",
    "photon_energy": "incident_energy",
    "wavelength": "incident_wavelength",
    "x_pixel_size": "pixel_size_x",
    "y_pixel_size": "pixel_size_y",
    "countrate_correction_count_cutoff": "saturation_value",
}
Known = TypeVar("Known")


class _Header(msgspec.Struct, tag_field="htype", tag="dheader-1.0"):
    series: Unsigned
    header_detail: str = "none"


class _Image(msgspec.Struct, tag_field="htype", tag="dimage-1.0"):
    series: Unsigned
    frame: Unsigned


class _End(msgspec.Struct, tag_field="htype", tag="dseries_end-1.0"):
    series: Unsigned


class _Pixels(msgspec.Struct, tag_field="htype", tag="dimage_d-1.0"):
    shape: list[Any]
    type: str
    encoding: str


class _Times(msgspec.Struct, tag_field="htype", tag="dconfig-1.0"):
    start_time: Unsigned
    stop_time: Unsigned
    real_time: Unsigned


_FIRST = msgspec.json.Decoder(_Header | _Image | _End)
_PIXELS, _TIMES = msgspec.json.Decoder(_Pixels), msgspec.json.Decoder(_Times)
_FIELDS = msgspec.json.Decoder(dict[str, Any])


class StreamV1:
    """Dialect: DECTRIS Stream V1."""

    def decode(self, parts: Sequence[Buffer]) -> DetectorMessage:
        """Returns what a detector said; see `Dialect`."""
        if not parts:
            raise DetectorMessageError("message of 0 parts: Stream V1 has at least one")
        first = _read(_FIRST, parts[0], "first part")
        if isinstance(first, _Image):
            return _image(first, parts)
        if isinstance(first, _End):
            return EndMessage(series_id=first.series)
        if first.header_detail == "none" or len(parts) < 2:
            return StartMessage(series_id=first.series)
        return _start(first, _read(_FIELDS, parts[1], "configuration"))


def _read(decoder: msgspec.json.Decoder[Known], part: Buffer, what: str) -> Known:
    try:
        return decoder.decode(part)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise DetectorMessageError(f"{what} of a Stream V1 message, {len(part)} bytes: {error}") from error


def _image(first: _Image, parts: Sequence[Buffer]) -> ImageMessage:
    if len(parts) not in (4, 5):
        raise DetectorMessageError(
            f"image {first.frame} of {len(parts)} parts: wanted 4 (what it is, what its pixels are, pixels, "
            "times), or 5 with an appendix"
        )
    pixels, times = _read(_PIXELS, parts[1], "second part"), _read(_TIMES, parts[3], "fourth part")
    return ImageMessage(
        series_id=first.series,
        image_id=first.frame,
        data={CHANNEL: _frame(pixels, parts[2])},
        real_time=(times.real_time, _NANOSECONDS),
        start_time=(times.start_time, _NANOSECONDS),
        stop_time=(times.stop_time, _NANOSECONDS),
        user_data=_appendix(parts[4]) if len(parts) == 5 else None,
    )


def _frame(pixels: _Pixels, data: Buffer) -> EncodedFrame:
    if len(pixels.shape) != 2:
        raise DetectorMessageError(f"frame of shape {in_short(pixels.shape)}: wanted columns and rows")
    if (dtype := DTYPES.get(pixels.type)) is None:
        raise DetectorMessageError(f"pixels of type {in_short(pixels.type)}: wanted one of {[*DTYPES]}")
    if (encoding := _ENCODING.fullmatch(pixels.encoding)) is None:
        raise DetectorMessageError(
            f"pixels with the encoding {in_short(pixels.encoding)}: wanted '<', 'lz4<', 'bs8-lz4<', "
            "'bs16-lz4<' or 'bs32-lz4<'"
        )
    n_bits = int(encoding[1] or 0)
    return EncodedFrame(
        shape=checked_shape(*pixels.shape[::-1]),
        dtype=dtype,
        compression="bslz4" if n_bits else "lz4-block" if encoding[2] else "",
        item_size=n_bits // 8,
        data=data,
    )


def _start(first: _Header, config: dict[str, Any]) -> StartMessage:
    fields = {ours: config[theirs] for theirs, ours in _CONFIG.items() if theirs in config}
    if config.get("roi_mode", "disabled") not in ("", "disabled"):
        # A region of interest is said by its name alone: the first frame tells its shape.
        fields = {name: value for name, value in fields.items() if not name.startswith("image_size")}
    if "detector_distance" in config:
        fields["detector_translation"] = (0.0, 0.0, config["detector_distance"])
    if "nimages" in config:
        counts = config["nimages"], config.get("ntrigger", 1)
        if not all(type(n) is int and 0 <= n < 1 << 32 for n in counts):
            raise DetectorMessageError(
                f"start with nimages and ntrigger {in_short(list(counts))}: wanted whole numbers"
            )
        fields["number_of_images"] = math.prod(counts)
    try:
        start = msgspec.convert(
            fields | {"type": "start", "series_id": first.series, "channels": (CHANNEL,)}, StartMessage
        )
    except (msgspec.MsgspecError, RecursionError) as error:
        raise DetectorMessageError(f"configuration of a Stream V1 start: {error}") from error
    return checked_start(start)


def _appendix(part: Buffer) -> Any:
    """Return what a user had added: what it is as JSON, else the text."""
    try:
        return msgspec.json.decode(part)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return str(part, "utf-8", "replace")


def encode_message(message: DetectorMessage, header_detail: str = "basic") -> list[bytes]:
    """Returns the parts that a detector sends for `message`.

    Parameters
    ----------
    message : DetectorMessage
        Neither a unique id of the series nor a second channel can be sent.
    header_detail : {"none", "basic", "all"}
        What a start has.

    Raises
    ------
    ValueError
        If Stream V1 has no pixels of this type or compression.
    """
    if isinstance(message, EndMessage):
        return [_json(htype="dseries_end-1.0", series=message.series_id)]
    if isinstance(message, ImageMessage):
        return _image_parts(message)
    parts = [_json(htype="dheader-1.0", series=message.series_id, header_detail=header_detail)]
    if header_detail != "none":
        fields = {theirs: getattr(message, ours) for theirs, ours in _CONFIG.items()}
        fields |= {"nimages": message.number_of_images, "ntrigger": 1}
        fields["detector_distance"] = message.detector_distance_m
        parts.append(_json(**{name: value for name, value in fields.items() if value is not None}))
    if header_detail == "all":
        for htype, array in (
            ("dflatfield-1.0", np.ones(message.frame_shape or (1, 1), "<f4")),
            ("dpixelmask-1.0", np.zeros(message.frame_shape or (1, 1), "<u4")),
            ("dcountrate_table-1.0", np.array([[0, 1], [0, 1]], "<f4")),
        ):
            parts += [_json(htype=htype, shape=array.shape[::-1], type=array.dtype.name), array.tobytes()]
    return parts


def _image_parts(message: ImageMessage) -> list[bytes]:
    frame = message.frame()
    if frame.dtype not in _NAMES or frame.compression not in ("", "bslz4", "lz4"):
        raise ValueError(
            f"frame {frame.dtype} {frame.compression!r}: Stream V1 has unsigned counts of 8, 16 or 32 "
            "bits, as they are or compressed by bslz4 or lz4"
        )
    data, encoding = frame.data, "<"
    if frame.compression == "bslz4":
        encoding = f"bs{frame.item_size * 8}-lz4<"
    elif frame.compression == "lz4":
        data, encoding = compress(frame.decode(), "lz4-block"), "lz4<"
    times = {
        name: round(_NANOSECONDS * at[0] / at[1]) if (at := getattr(message, name)) else 0
        for name in ("start_time", "stop_time", "real_time")
    }
    shape, kind = frame.shape[::-1], _NAMES[frame.dtype]
    parts = [
        _json(htype="dimage-1.0", series=message.series_id, frame=message.image_id, hash=""),
        _json(htype="dimage_d-1.0", shape=shape, type=kind, encoding=encoding, size=len(data)),
        data,
        _json(htype="dconfig-1.0", **times),
    ]
    return parts if message.user_data is None else [*parts, plain_json(message.user_data)]


def _json(**fields: Any) -> bytes:
    return plain_json(fields)
