"""DECTRIS Stream V2: what an EIGER2, PILATUS4 or Jungfraujoch sends, decoded and encoded; no sockets.

CBOR maps of type "start", "image" and "end" become the messages of `stream.detector.protocol`.

The format: https://github.com/dectris/documentation/tree/main/stream_v2. What Jungfraujoch says otherwise
(`image_dtype`, `end_time`, further types of message) is understood or passed over.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import cbor2
import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.detector.compression import BITSHUFFLED, Algorithm, compress
from stream.detector.protocol import (
    DTYPES,
    DetectorMessage,
    DetectorMessageError,
    EncodedFrame,
    EndMessage,
    ImageMessage,
    SeriesMessage,
    StartMessage,
    checked_shape,
    checked_start,
)
from stream.wire.codec import Buffer
from stream.wire.foreign import in_short

ROW_MAJOR, COMPRESSED, SELF_DESCRIBED = 40, 56500, 55799
TYPED_ARRAYS = {
    64: "|u1", 68: "|u1", 69: "<u2", 70: "<u4", 71: "<u8",
    72: "|i1", 77: "<i2", 78: "<i4", 79: "<i8", 84: "<f2", 85: "<f4", 86: "<f8",
}  # fmt: skip
_TAGS = {dtype: tag for tag, dtype in TYPED_ARRAYS.items() if tag != 68}
# cbor2 5 lets through what Python raises when a tag has absurd content; cbor2 6 does not.
_CBOR_ERRORS = (cbor2.CBORError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError)
# Inside the "this is CBOR" tag that detectors put first, cbor2 6 makes maps that are no dict.
_MAPS = (dict, type(cbor2.loads(bytes.fromhex("d9d9f7a0"))))

Known = TypeVar("Known", bound="SeriesMessage")


def decode_message(message: Buffer) -> DetectorMessage | None:
    """Returns what a detector said; None for types of message that a stream of frames has no use for.

    Raises
    ------
    DetectorMessageError
        Saying what was expected and what came.
    """
    fields = _load(message)
    kind = fields.get("type")
    if kind == "image":
        changed = {"data": _channels(fields.get("data"))}
        if "end_time" in fields:
            changed["stop_time"] = fields["end_time"]
        return _convert({**fields, **changed}, ImageMessage)
    if kind == "start":
        return checked_start(_convert(dict(fields), StartMessage))
    if kind == "end":
        return _convert(dict(fields), EndMessage)
    if not isinstance(kind, str):
        raise DetectorMessageError(f"message of type {in_short(kind)}: wanted a text such as 'image'")
    return None


def encode_message(
    message: DetectorMessage, others: Mapping[str, Any] | None = None, names: Mapping[str, str] | None = None
) -> bytes:
    """Returns the bytes that a detector sends for `message`.

    Parameters
    ----------
    message : DetectorMessage
    others : mapping, optional
        Fields beside those of `message`.
    names : mapping of str, optional
        Of fields that are called otherwise.
    """
    fields: dict[str, Any] = {"type": type(message).__struct_config__.tag, **(others or {})}
    for name in message.__struct_fields__:
        if (value := getattr(message, name)) is not None:
            fields[names.get(name, name) if names else name] = value
    if isinstance(message, ImageMessage):
        fields["data"] = {channel: tagged(frame) for channel, frame in message.data.items()}
    return cbor2.dumps(cbor2.CBORTag(SELF_DESCRIBED, fields))


def encode_frame(frame: NDArray[Any], compression: Algorithm | str = "bslz4") -> EncodedFrame:
    """Returns `frame`, (row, column), compressed with "bslz4", "bszstd", "lz4" or "" for not at all.

    Raises
    ------
    ValueError
        If Stream V2 cannot carry the frame's dtype or shape.
    """
    dtype = frame.dtype.newbyteorder("<").str
    if dtype not in _TAGS or frame.ndim != 2:
        raise ValueError(f"frame {frame.shape} {frame.dtype}: wanted two axes and one of {sorted(DTYPES)}")
    frame = np.ascontiguousarray(frame, dtype)
    return EncodedFrame(
        shape=(frame.shape[0], frame.shape[1]),
        dtype=dtype,
        compression=compression,
        item_size=frame.itemsize if compression in BITSHUFFLED else 0,
        data=compress(frame, compression) if compression else frame.tobytes(),
    )


def _load(message: Buffer) -> Mapping[str, Any]:
    try:
        fields = cbor2.loads(message)
    except _CBOR_ERRORS as error:
        raise DetectorMessageError(f"{len(message)} bytes that are not CBOR: {error}") from error
    if not isinstance(fields, _MAPS):  # not a Mapping: that looks through all its classes for every frame
        raise DetectorMessageError(f"CBOR {type(fields).__name__} of {len(message)} bytes: wanted a map")
    return fields


def _convert(fields: dict[str, Any], kind: type[Known]) -> Known:
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise DetectorMessageError(f"{fields['type']} message: {error}") from error


def _channels(data: Any) -> dict[str, EncodedFrame]:
    if not isinstance(data, _MAPS):
        raise DetectorMessageError(f"image message with `data` {type(data).__name__}: wanted a map")
    return {channel: _untagged(tagged) for channel, tagged in data.items()}


def _untagged(array: Any) -> EncodedFrame:
    """Takes apart tag 40 [[rows, columns], typed array [bytes or compressed bytes]]."""
    shape, typed = _items(_content(array, ROW_MAJOR), 2)
    shape = checked_shape(*_items(shape, 2))
    if not isinstance(typed, cbor2.CBORTag) or typed.tag not in TYPED_ARRAYS:
        raise DetectorMessageError(f"pixels of type {_describe(typed)}: wanted a typed array, tag 64 to 86")
    dtype, data, compression, item_size = TYPED_ARRAYS[typed.tag], typed.value, "", 0
    if isinstance(data, cbor2.CBORTag):
        compression, item_size, data = _items(_content(data, COMPRESSED), 3)
    if not (isinstance(data, bytes) and isinstance(compression, str) and type(item_size) is int):
        raise DetectorMessageError(f"pixels of type {_describe(data)}: wanted bytes or [text, int, bytes]")
    return EncodedFrame(shape=shape, dtype=dtype, compression=compression, item_size=item_size, data=data)


def tagged(frame: EncodedFrame) -> cbor2.CBORTag:
    """Returns `frame` as CBOR has it: what `data` and maps of the detector hold for each channel."""
    data: Any = frame.data
    if frame.compression:
        data = cbor2.CBORTag(COMPRESSED, [frame.compression, frame.item_size, frame.data])
    return cbor2.CBORTag(ROW_MAJOR, [list(frame.shape), cbor2.CBORTag(_TAGS[frame.dtype], data)])


def _content(value: Any, tag: int) -> Any:
    if not isinstance(value, cbor2.CBORTag) or value.tag != tag:
        raise DetectorMessageError(f"{_describe(value)} in image data: wanted tag {tag}")
    return value.value


def _items(value: Any, n_items: int) -> Any:
    if not isinstance(value, list | tuple) or len(value) != n_items:
        raise DetectorMessageError(f"{_describe(value)} in image data: wanted an array of {n_items} items")
    return value


def _describe(value: Any) -> str:
    return f"tag {value.tag}" if isinstance(value, cbor2.CBORTag) else type(value).__name__
