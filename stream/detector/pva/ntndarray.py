"""NTNDArray, what areaDetector publishes over PV Access: one array decoded and encoded; no network.

The normative type: https://docs.epics-controls.org/en/latest/pv-access/Normative-Types-Specification.html
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.detector.compression import Algorithm, CompressionError, compress
from stream.detector.protocol import MAX_PIXELS, DetectorMessageError, EncodedFrame
from stream.detector.pva import blosc
from stream.wire.codec import Buffer
from stream.wire.foreign import in_short
from stream.wire.pva import time_stamp

# EPICS numbers the types of scalars; a codec's parameter is the number of the pixels' type.
_DTYPES = {1: "|i1", 2: "<i2", 3: "<i4", 5: "|u1", 6: "<u2", 7: "<u4"}
_NUMBERS = {dtype: number for number, dtype in _DTYPES.items()}
_FIELDS = {
    "|i1": "byteValue", "<i2": "shortValue", "<i4": "intValue",
    "|u1": "ubyteValue", "<u2": "ushortValue", "<u4": "uintValue",
    "<f4": "floatValue",
}  # fmt: skip
_OTHERS = {0: "boolean", 4: "int64", 8: "uint64", 9: "float32", 10: "float64", 11: "text"}
_ITEM_SIZES = {dtype: np.dtype(dtype).itemsize for dtype in _NUMBERS}
# areaDetector leaves out the header that HDF5's filters put in front.
_BARE: dict[str, Algorithm] = {"bslz4": "bslz4-blocks", "lz4": "lz4-block"}
_EPICS_EPOCH_S = 631_152_000  # 1990: what a driver that knows no time says
CODECS = ("", "bslz4", "lz4", "blosc")
_LOSES = {"jpeg": "it loses counts"}
_COLOUR = {1: "Bayer", 2: "RGB1", 3: "RGB2", 4: "RGB3", 5: "YUV444", 6: "YUV422", 7: "YUV411"}


class Exposure(NamedTuple):
    """What one NTNDArray says.

    Attributes
    ----------
    number : int
        Its `uniqueId`: counts on, and whoever operates the detector may set the counter.
    stamp_s : float
        The detector's time of it, seconds since 1970; 0 where the driver tells none.
    frame : EncodedFrame
    """

    number: int
    stamp_s: float
    frame: EncodedFrame


def decode_array(value: Any) -> Exposure | None:
    """Returns what an NTNDArray says, None for one without an image, as a PV has before the first.

    Parameters
    ----------
    value : p4p.Value
        The pixels of the result lie in it where they are not compressed.

    Raises
    ------
    DetectorMessageError
        Saying what was expected and what came.
    """
    try:
        pixels, codec, number = value["value"], value["codec.name"], value["uniqueId"]
        seconds, nanoseconds = value["dataTimeStamp.secondsPastEpoch"], value["dataTimeStamp.nanoseconds"]
        sizes = [axis["size"] for axis in value["dimension"]]
        parameter = value["codec.parameters"] if codec else None
    except (KeyError, TypeError, AttributeError) as error:
        raise DetectorMessageError(f"{_kind(value)} is no NTNDArray: {error}") from error
    if pixels is None or (not sizes and not len(pixels)):
        return None
    shape = _shape(sizes, value)
    data = _bytes(pixels)
    stamp_s = seconds + nanoseconds * 1e-9
    stamp_s = stamp_s if stamp_s > _EPICS_EPOCH_S else 0.0
    if not codec:
        return Exposure(number, stamp_s, EncodedFrame(shape=shape, dtype=_dtype(pixels.dtype.str), data=data))
    return Exposure(number, stamp_s, _compressed(codec, parameter, shape, data))


def _kind(value: Any) -> str:
    try:
        return in_short(value.getID())
    except AttributeError:
        return type(value).__name__


def _shape(sizes: list[Any], value: Any) -> tuple[int, int]:
    """Return rows and columns: the first axis is that of neighbouring pixels, x."""
    axes = [size for size in sizes[2:] if size != 1]
    if len(sizes) < 2 or axes:
        raise DetectorMessageError(
            f"image of {in_short(sizes)} pixels{_colour(value)}: wanted two axes, x and y, of a detector "
            "without colours"
        )
    columns, rows = sizes[:2]
    if (
        not (type(columns) is int and type(rows) is int)
        or min(columns, rows) < 1
        or rows * columns > MAX_PIXELS
    ):
        raise DetectorMessageError(
            f"image of {in_short(sizes)} pixels: wanted x and y, {MAX_PIXELS} pixels at most"
        )
    return rows, columns


def check_is_grey(value: Any) -> None:
    """Raises DetectorMessageError if the attributes of an array say that it has colours, in whatever shape.

    They take longer to read than all else: once for a series is enough.
    """
    if colour := _colour(value):
        raise DetectorMessageError(f"image{colour}: wanted one of a detector without colours")


def _colour(value: Any) -> str:
    try:
        modes = [attribute["value"] for attribute in value["attribute"] if attribute["name"] == "ColorMode"]
    except (KeyError, TypeError, AttributeError):
        return ""
    named = [_COLOUR[mode] for mode in modes if isinstance(mode, int) and mode in _COLOUR]
    return f" (ColorMode {named[0]})" if named else ""


def _bytes(pixels: Any) -> memoryview:
    try:
        return memoryview(pixels).cast("B")
    except (TypeError, ValueError) as error:
        raise DetectorMessageError(
            f"pixels of type {in_short(type(pixels).__name__)}: wanted integers"
        ) from error


def _dtype(dtype: str) -> str:
    if dtype not in _NUMBERS:
        raise DetectorMessageError(
            f"pixels of type {np.dtype(dtype).name}: wanted counts, integers of 8, 16 or 32 bits"
        )
    return dtype


def _compressed(codec: Any, parameter: Any, shape: tuple[int, int], data: memoryview) -> EncodedFrame:
    if codec not in CODECS:
        reason = _LOSES.get(codec, "it is not known here")
        raise DetectorMessageError(
            f"image compressed by {in_short(codec)}, and {reason}: have the codec plugin send bslz4, lz4, "
            "blosc, or the pixels as they are"
        )
    dtype = _DTYPES.get(parameter) if type(parameter) is int else None
    if dtype is None:
        named = _OTHERS.get(parameter, in_short(parameter)) if type(parameter) is int else in_short(parameter)
        raise DetectorMessageError(
            f"image compressed by {codec} with pixels of type {named} (codec.parameters): wanted the number "
            "that EPICS has for integers of 8, 16 or 32 bits"
        )
    if codec == "blosc":
        return EncodedFrame(shape=shape, dtype=dtype, data=_by_blosc(data, shape, dtype))
    item_size = _ITEM_SIZES[dtype] if codec == "bslz4" else 0
    compression = codec if _is_framed(data) else _BARE[codec]
    return EncodedFrame(shape=shape, dtype=dtype, compression=compression, item_size=item_size, data=data)


def _is_framed(data: memoryview) -> bool:
    """Whether the header of HDF5's filters stands before the data, as in files: no other data begin so."""
    return data[:4] == bytes(4)


def _by_blosc(data: memoryview, shape: tuple[int, int], dtype: str) -> Buffer:
    try:
        return blosc.decompress(data, math.prod(shape) * _ITEM_SIZES[dtype]).data
    except CompressionError as error:
        raise DetectorMessageError(f"image of {shape} pixels, {dtype}: {error}") from error


def encode_array(frame: NDArray[Any], number: int, stamp_s: float, codec: str = "bslz4") -> dict[str, Any]:
    """Returns the fields of the NTNDArray that areaDetector publishes for a frame.

    Parameters
    ----------
    frame : (row, column) integers of 8, 16 or 32 bits
    number : int
        Its `uniqueId`.
    stamp_s : float
        Seconds since 1970.
    codec : {"bslz4", "lz4", "blosc", ""}

    Raises
    ------
    ValueError
        If frames of this kind cannot be sent.
    """
    dtype = frame.dtype.newbyteorder("<").str
    if frame.ndim != 2 or dtype not in _NUMBERS or codec not in CODECS:
        raise ValueError(
            f"frame {frame.shape} {frame.dtype}, codec {codec!r}: wanted two axes of integers of 8, 16 or 32 "
            f"bits and one of {CODECS}"
        )
    frame = np.ascontiguousarray(frame, dtype)
    fields = array_fields(frame, number, stamp_s)
    if codec:
        packed = blosc.compress(frame) if codec == "blosc" else compress(frame, _BARE[codec])
        pixels = np.frombuffer(packed, np.uint8)
        fields |= {
            "value": (_FIELDS[pixels.dtype.str], pixels),
            "codec": {"name": codec, "parameters": _NUMBERS[dtype]},
            "compressedSize": pixels.nbytes,
        }
    colour = {"name": "ColorMode", "value": 0, "descriptor": "Color mode", "source": "Driver"}
    return fields | {"attribute": [colour]}


def array_fields(pixels: NDArray[Any], number: int, stamp_s: float) -> dict[str, Any]:
    """Returns the fields of an NTNDArray (row, column) of full size that is not compressed.

    Parameters
    ----------
    pixels : (row, column) integers of 8, 16 or 32 bits, or float32
    number : int
        Its `uniqueId`.
    stamp_s : float
        Seconds since 1970.
    """
    stamp = time_stamp(stamp_s)
    return {
        "value": (_FIELDS[pixels.dtype.str], np.ascontiguousarray(pixels).reshape(-1)),
        "codec": {"name": ""},
        "compressedSize": pixels.nbytes,
        "uncompressedSize": pixels.nbytes,
        "uniqueId": number,
        "dataTimeStamp": stamp,
        "timeStamp": stamp,
        "dimension": [
            {"size": size, "offset": 0, "fullSize": size, "binning": 1, "reverse": False}
            for size in reversed(pixels.shape)
        ],
    }
