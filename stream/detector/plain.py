"""Plain messages for detectors that somebody built: JSON, and the pixels of a frame in a second part.

A detector says three things; `docs/how-to/add-a-detector.md` has them field by field.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from stream.detector.compression import BITSHUFFLED
from stream.detector.protocol import (
    COUNTS,
    DetectorMessage,
    DetectorMessageError,
    EncodedFrame,
    EndMessage,
    ImageMessage,
    Name,
    StartMessage,
    Unsigned,
    checked_shape,
    checked_start,
)
from stream.wire.codec import Buffer
from stream.wire.foreign import in_short

CHANNEL = "image"
COMPRESSIONS = ("", "bslz4", "bszstd", "lz4")
_NANOSECONDS = 1_000_000_000
_Seconds = Annotated[float, Meta(ge=0, le=1e9)]
_Series = Unsigned | Annotated[Name, Meta(min_length=1)]


class Start(msgspec.Struct, tag="start", omit_defaults=True):
    """A series begins; all but its name may be left out."""

    series: _Series
    n_frames: Unsigned | None = None
    shape: tuple[Any, Any] | None = None
    dtype: str | None = None
    energy_ev: float | None = None
    detector_distance_m: float | None = None
    detector_pixel_m: float | None = None


class Frame(msgspec.Struct, tag="frame", omit_defaults=True):
    """A frame of a series; numbers count from 0."""

    series: _Series
    number: Unsigned
    shape: tuple[Any, Any]
    dtype: str
    compression: str = ""
    exposed_s: _Seconds | None = None
    user_data: Any = None


class End(msgspec.Struct, tag="end"):
    """The series is over."""

    series: _Series


_HEADER = msgspec.json.Decoder(Start | Frame | End)
_ENCODE = msgspec.json.Encoder().encode


class Plain:
    """Dialect: JSON, and a second part for pixels."""

    def decode(self, parts: Sequence[Buffer]) -> DetectorMessage:
        """Returns what a detector said; see `Dialect`."""
        if not parts:
            raise DetectorMessageError("message of 0 parts: wanted JSON, and the pixels of a frame behind it")
        try:
            said = _HEADER.decode(parts[0])
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise DetectorMessageError(f"JSON of {len(parts[0])} bytes: {error}") from error
        if len(parts) != (n_wanted := 2 if isinstance(said, Frame) else 1):
            raise DetectorMessageError(
                f"{type(said).__name__.lower()} message of {len(parts)} parts: wanted {n_wanted}"
            )
        if isinstance(said, Frame):
            return _image(said, parts[1])
        return _start(said) if isinstance(said, Start) else EndMessage(**_name(said.series))


def _name(series: int | str) -> dict[str, Any]:
    if isinstance(series, int):
        return {"series_id": series}
    return {"series_id": 0, "series_unique_id": series}


def _dtype(name: str) -> str:
    if (dtype := COUNTS.get(name)) is None:
        raise DetectorMessageError(f"pixels of type {in_short(name)}: wanted counts, one of {[*COUNTS]}")
    return dtype


def _start(said: Start) -> StartMessage:
    if said.dtype is not None:
        _dtype(said.dtype)
    rows, columns = checked_shape(*said.shape) if said.shape else (None, None)
    distance_m = said.detector_distance_m
    return checked_start(
        StartMessage(
            **_name(said.series),
            number_of_images=said.n_frames,
            image_size_x=columns,
            image_size_y=rows,
            image_dtype=said.dtype,
            channels=(CHANNEL,),
            detector_translation=None if distance_m is None else (0.0, 0.0, distance_m),
            incident_energy=said.energy_ev,
            pixel_size_x=said.detector_pixel_m,
            pixel_size_y=said.detector_pixel_m,
        )
    )


def _image(said: Frame, pixels: Buffer) -> ImageMessage:
    dtype = _dtype(said.dtype)
    if said.compression not in COMPRESSIONS:
        raise DetectorMessageError(f"compression {in_short(said.compression)}: wanted one of {COMPRESSIONS}")
    frame = EncodedFrame(
        shape=checked_shape(*said.shape),
        dtype=dtype,
        compression=said.compression,
        item_size=np.dtype(dtype).itemsize if said.compression in BITSHUFFLED else 0,
        data=pixels,
    )
    exposed_s = said.exposed_s
    return ImageMessage(
        **_name(said.series),
        image_id=said.number,
        data={CHANNEL: frame},
        stop_time=None if exposed_s is None else (round(exposed_s * _NANOSECONDS), _NANOSECONDS),
        user_data=said.user_data,
    )


def encode(message: DetectorMessage) -> list[bytes]:
    """Returns the parts of what a detector sends for `message`.

    Raises
    ------
    ValueError
        If the pixels are of floats or of more than 32 bits.
    """
    series = message.series_unique_id or message.series_id
    if isinstance(message, EndMessage):
        return [_ENCODE(End(series))]
    if isinstance(message, StartMessage):
        return [
            _ENCODE(
                Start(
                    series,
                    message.number_of_images,
                    message.frame_shape,
                    message.image_dtype,
                    message.incident_energy,
                    message.detector_distance_m,
                    message.pixel_size_x,
                )
            )
        ]
    frame = message.frame()
    if (name := np.dtype(frame.dtype).name) not in COUNTS:
        raise ValueError(f"frame {name}: wanted counts, one of {[*COUNTS]}")
    exposed_s = message.exposed_s if message.stop_time else None
    header = Frame(
        series, message.image_id, frame.shape, name, frame.compression, exposed_s, message.user_data
    )
    return [_ENCODE(header), frame.data]
