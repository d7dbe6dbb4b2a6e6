"""What detectors say, in whatever dialect: a series begins, here is a frame, the series is over; no sockets.

The names of the fields are those of DECTRIS Stream V2. Pixels stay compressed until somebody says where to
put them.
"""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Protocol

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from stream.detector.compression import CompressionError, decompress_into
from stream.wire.codec import Buffer
from stream.wire.foreign import in_short

MAX_PIXELS = 1 << 26  # of a frame: four times what the largest detectors have
DTYPES = {
    np.dtype(dtype).name: dtype
    for dtype in ("|u1", "<u2", "<u4", "<u8", "|i1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8")
}
COUNTS = {name: DTYPES[name] for name in ("uint8", "uint16", "uint32", "int8", "int16", "int32")}
Unsigned = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Name = Annotated[str, Meta(max_length=1000)]
Rational = tuple[Unsigned, Unsigned]


class DetectorMessageError(ValueError):
    """A message that is none of its dialect, or a frame that cannot be decoded."""


class EncodedFrame(msgspec.Struct, frozen=True, kw_only=True):
    """Pixels as they came.

    Attributes
    ----------
    shape : (int, int)
        Rows, columns.
    dtype : str
        NumPy's name with byte order, such as "<u2".
    compression : str
        As of `stream.detector.compression`, "" for none.
    item_size : int
        Bytes per bitshuffled element, 0 where there are none.
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
    def detector_distance_m(self) -> float | None:
        """Distance from the sample along the beam, None if not announced."""
        along_beam = (self.detector_translation or ())[2:3]
        return along_beam[0] if along_beam else None

    @property
    def frame_dtype(self) -> str:
        """Dtype of the frames, "" if not announced: DECTRIS detectors do not, Jungfraujoch does."""
        return DTYPES.get(self.image_dtype or "", "")


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


def checked_shape(rows: Any, columns: Any) -> tuple[int, int]:
    """Returns rows and columns of a frame.

    Raises
    ------
    DetectorMessageError
        If they are no whole numbers from 1 on, or have more than `MAX_PIXELS`.
    """
    if type(rows) is int and type(columns) is int and min(rows, columns) > 0 and rows * columns <= MAX_PIXELS:
        return rows, columns
    raise DetectorMessageError(
        f"frame of shape {in_short([rows, columns])}: wanted rows and columns, {MAX_PIXELS} pixels at most"
    )


def checked_start(start: StartMessage) -> StartMessage:
    """Returns `start`.

    Raises
    ------
    DetectorMessageError
        If it announces frames of more than `MAX_PIXELS`.
    """
    if start.frame_shape is not None and math.prod(start.frame_shape) > MAX_PIXELS:
        rows, columns = start.frame_shape
        raise DetectorMessageError(
            f"start message announces frames of {rows} x {columns}: wanted {MAX_PIXELS} pixels at most"
        )
    return start


class Dialect(Protocol):
    """Decodes what one kind of detector sends; it may remember what came before: one for each stream."""

    def decode(self, parts: Sequence[Buffer]) -> DetectorMessage | None:
        """Returns what a message says; None for one that a stream of frames has no use for.

        The pixels of an image may lie in the message itself. No frame has more than `MAX_PIXELS`.

        Raises
        ------
        DetectorMessageError
            Saying what was expected and what came, and nothing else whatever the message is.
        """


class Feed(Protocol):
    """Brings what a detector says that does not send it here: it is in files, or the value of a PV.

    It tells the end of each series, after `silence_s` at the latest where that is set.
    """

    def receive(self) -> Sequence[DetectorMessage]:
        """Returns what has come since, bounded in number and bytes; never waits.

        No frame has more than `MAX_PIXELS`.

        Raises
        ------
        DetectorMessageError
            If a piece of it is none, and nothing else whatever comes; the next call goes on behind it.
        """

    def resume(self, series_key: str, n_frames: int, n_whole: int) -> None:
        """Goes on with a series that a process before this one has recorded.

        It has frames up to number `n_frames`, and of those before `n_whole` each.
        """

    def close(self) -> None:
        """Lets go of files and connections."""
