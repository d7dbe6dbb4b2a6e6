"""DECTRIS Stream V2: what an EIGER2, PILATUS4 or Jungfraujoch sends, decoded and encoded; no sockets.

CBOR maps of type "start", "image" and "end" become frozen structs whose fields keep the names of the wire.
Pixels stay compressed until somebody says where to put them.

The format: https://github.com/dectris/documentation/tree/main/stream_v2. Additions that Jungfraujoch makes
(`image_dtype`, further types of message) are understood or passed over.
"""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, TypeVar

import cbor2
import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from stream.detector.compression import Algorithm, CompressionError, compress, decompress_into
from stream.wire.codec import Buffer
from stream.wire.foreign import in_short

MAX_PIXELS = 1 << 26  # of a frame: four times what the largest detectors have
ROW_MAJOR, COMPRESSED, SELF_DESCRIBED = 40, 56500, 55799
DTYPES = {
    64: "|u1", 68: "|u1", 69: "<u2", 70: "<u4", 71: "<u8",
    72: "|i1", 77: "<i2", 78: "<i4", 79: "<i8", 84: "<f2", 85: "<f4", 86: "<f8",
}  # fmt: skip
_TAGS = {dtype: tag for tag, dtype in DTYPES.items() if tag != 68}
_BY_NAME = {np.dtype(dtype).name: dtype for dtype in _TAGS}
# cbor2 5 lets through what Python raises when a tag has absurd content; cbor2 6 does not.
_CBOR_ERRORS = (cbor2.CBORError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError)
# Inside the "this is CBOR" tag that detectors put first, cbor2 6 makes maps that are no dict.
_MAPS = (dict, type(cbor2.loads(bytes.fromhex("d9d9f7a0"))))

Unsigned = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Name = Annotated[str, Meta(max_length=1000)]
Rational = tuple[Unsigned, Unsigned]
Known = TypeVar("Known", bound="SeriesMessage")


class DetectorMessageError(ValueError):
    """A message that is not Stream V2, or a frame that cannot be decoded."""


class EncodedFrame(msgspec.Struct, frozen=True, kw_only=True):
    """Pixels as they came.

    Attributes
    ----------
    shape : (int, int)
        Rows, columns.
    dtype : str
        NumPy's name with byte order, such as "<u2".
    compression : str
        "bslz4", "lz4" or "" for none.
    item_size : int
        Bytes per bitshuffled element, 0 for the other two.
    data : bytes, or a view of the message
    """

    shape: tuple[int, int]
    dtype: str
    compression: str = ""
    item_size: int = 0
    data: Any  # msgspec knows no union of the two

    def decode_into(self, out: NDArray[Any]) -> None:
        """Fills `out`, C-contiguous and of this frame's shape and dtype.

        Raises
        ------
        DetectorMessageError
            If `out` has another shape or dtype, or the data are damaged; then its content is undefined.
        """
        if not self.compression:
            out[...] = np.frombuffer(self.decoded(out), self.dtype).reshape(self.shape)
            return
        self._check(out)
        try:
            decompress_into(out, self.data, self.compression, self.item_size)
        except CompressionError as error:
            raise DetectorMessageError(f"frame {self.shape} {self.dtype}: {error}") from error

    def decoded(self, out: NDArray[Any]) -> Buffer:
        """Returns the bytes of the pixels: as they came where they are not compressed, else those of `out`.

        Raises
        ------
        DetectorMessageError
            As `decode_into`.
        """
        if self.compression:
            self.decode_into(out)
            return out.data
        self._check(out)
        if len(self.data) != out.nbytes:
            raise DetectorMessageError(
                f"frame {self.shape} {self.dtype} needs {out.nbytes} bytes, {len(self.data)} bytes came"
            )
        return self.data

    def _check(self, out: NDArray[Any]) -> None:
        # A comparison with a dtype of NumPy takes ten times as long as one of two strings.
        if out.shape != self.shape or (out.dtype.str != self.dtype and out.dtype != self.dtype):
            raise DetectorMessageError(
                f"frame has shape {self.shape} {self.dtype}, wanted {out.shape} {out.dtype.str}"
            )

    def decode(self) -> NDArray[Any]:
        """Returns the pixels, (row, column)."""
        out = np.empty(self.shape, self.dtype)
        self.decode_into(out)
        return out


class SeriesMessage(msgspec.Struct, frozen=True, kw_only=True):
    """What every message says: the series it belongs to."""

    series_id: Unsigned
    series_unique_id: Name | None = None

    @property
    def key(self) -> str:
        """The series' name: its unique id, or its number where the detector gives none."""
        return self.series_unique_id or f"series-{self.series_id}"


class StartMessage(SeriesMessage, frozen=True, kw_only=True, tag_field="type", tag="start"):
    """The detector is armed; lengths in metres, times in seconds, energies in eV."""

    number_of_images: Unsigned | None = None
    image_size_x: Unsigned | None = None
    image_size_y: Unsigned | None = None
    image_dtype: str | None = None
    channels: tuple[str, ...] = ()
    arm_date: datetime | None = None
    beam_center_x: float | None = None
    beam_center_y: float | None = None
    count_time: float | None = None
    frame_time: float | None = None
    detector_description: str | None = None
    detector_serial_number: str | None = None
    detector_translation: tuple[float, ...] | None = None
    incident_energy: float | None = None
    incident_wavelength: float | None = None
    pixel_size_x: float | None = None
    pixel_size_y: float | None = None
    saturation_value: Unsigned | None = None
    user_data: Any = None

    @property
    def frame_shape(self) -> tuple[int, int] | None:
        """Rows and columns of the frames, None if not announced."""
        if not self.image_size_y or not self.image_size_x:
            return None
        return self.image_size_y, self.image_size_x

    @property
    def frame_dtype(self) -> str:
        """Dtype of the frames, "" if not announced: DECTRIS detectors do not, Jungfraujoch does."""
        return _BY_NAME.get(self.image_dtype or "", "")


class ImageMessage(SeriesMessage, frozen=True, kw_only=True, tag_field="type", tag="image"):
    """One exposure; `data` holds a frame per channel, in the order of the detector."""

    image_id: Unsigned
    data: dict[str, EncodedFrame]
    real_time: Rational | None = None
    series_date: datetime | None = None
    start_time: Rational | None = None
    stop_time: Rational | None = None
    user_data: Any = None

    @property
    def exposed_s(self) -> float:
        """End of the exposure, seconds of the detector's clock since the series began; NaN if unknown."""
        return self.stop_time[0] / self.stop_time[1] if self.stop_time and self.stop_time[1] else math.nan

    def frame(self, channel: str = "") -> EncodedFrame:
        """Returns the frame of `channel`, "" for the first.

        Raises
        ------
        DetectorMessageError
            If the message has no such channel.
        """
        if not channel and self.data:
            return next(iter(self.data.values()))
        if channel not in self.data:
            raise DetectorMessageError(
                f"image {self.image_id} of {self.key} has channels {in_short(list(self.data))}: "
                f"wanted {channel!r}"
            )
        return self.data[channel]


class EndMessage(SeriesMessage, frozen=True, kw_only=True, tag_field="type", tag="end"):
    """The detector is disarmed."""


DetectorMessage = StartMessage | ImageMessage | EndMessage


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
        return _convert({**fields, "data": _channels(fields.get("data"))}, ImageMessage)
    if kind == "start":
        start = _convert(dict(fields), StartMessage)
        if start.frame_shape is not None and math.prod(start.frame_shape) > MAX_PIXELS:
            rows, columns = start.frame_shape
            raise DetectorMessageError(
                f"start message announces frames of {rows} x {columns}: wanted {MAX_PIXELS} pixels at most"
            )
        return start
    if kind == "end":
        return _convert(dict(fields), EndMessage)
    if not isinstance(kind, str):
        raise DetectorMessageError(f"message of type {in_short(kind)}: wanted a text such as 'image'")
    return None


def encode_message(message: DetectorMessage) -> bytes:
    """Returns the bytes that a detector sends for `message`."""
    fields: dict[str, Any] = {"type": type(message).__struct_config__.tag}
    for name in message.__struct_fields__:
        if (value := getattr(message, name)) is not None:
            fields[name] = value
    if isinstance(message, ImageMessage):
        fields["data"] = {channel: _tagged(frame) for channel, frame in message.data.items()}
    return cbor2.dumps(cbor2.CBORTag(SELF_DESCRIBED, fields))


def encode_frame(frame: NDArray[Any], compression: Algorithm | str = "bslz4") -> EncodedFrame:
    """Returns `frame`, (row, column), compressed with "bslz4", "lz4" or "" for not at all.

    Raises
    ------
    ValueError
        If Stream V2 cannot carry the frame's dtype or shape.
    """
    dtype = frame.dtype.newbyteorder("<").str
    if dtype not in _TAGS or frame.ndim != 2:
        raise ValueError(f"frame {frame.shape} {frame.dtype}: wanted two axes and one of {sorted(_BY_NAME)}")
    frame = np.ascontiguousarray(frame, dtype)
    return EncodedFrame(
        shape=(frame.shape[0], frame.shape[1]),
        dtype=dtype,
        compression=compression,
        item_size=frame.itemsize if compression == "bslz4" else 0,
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
    rows, columns = (n if type(n) is int else -1 for n in _items(shape, 2))
    if min(rows, columns) < 1 or rows * columns > MAX_PIXELS:
        raise DetectorMessageError(
            f"frame of shape {in_short(shape)}: wanted rows and columns, {MAX_PIXELS} pixels at most"
        )
    if not isinstance(typed, cbor2.CBORTag) or typed.tag not in DTYPES:
        raise DetectorMessageError(f"pixels of type {_describe(typed)}: wanted a typed array, tag 64 to 86")
    dtype, data, compression, item_size = DTYPES[typed.tag], typed.value, "", 0
    if isinstance(data, cbor2.CBORTag):
        compression, item_size, data = _items(_content(data, COMPRESSED), 3)
    if not (isinstance(data, bytes) and isinstance(compression, str) and type(item_size) is int):
        raise DetectorMessageError(f"pixels of type {_describe(data)}: wanted bytes or [text, int, bytes]")
    return EncodedFrame(
        shape=(rows, columns), dtype=dtype, compression=compression, item_size=item_size, data=data
    )


def _tagged(frame: EncodedFrame) -> cbor2.CBORTag:
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
