"""A series of frames in files, whatever kind of files it is."""

import hashlib
import re
from pathlib import Path
from typing import NamedTuple, Protocol

from stream.detector.protocol import EncodedFrame, StartMessage

KEY_DIGITS = 8


class Numbered(NamedTuple):
    """A frame and its number in the series, from 0."""

    number: int
    frame: EncodedFrame


class Description(NamedTuple):
    """What files say of a series; what they leave out is None."""

    n_frames: int | None = None
    energy_ev: float | None = None
    detector_distance_m: float | None = None
    pixel_x_m: float | None = None
    pixel_y_m: float | None = None
    beam_x: float | None = None
    beam_y: float | None = None
    frame_time_s: float | None = None


class FileSeries(Protocol):
    """The frames of one series, as far as they are written.

    Attributes
    ----------
    path : Path
        File or folder.
    waits_for : str
        Why nothing can be read, "" where there is no reason.
    """

    path: Path
    waits_for: str

    def read(self, n_most: int, most_bytes: int) -> list[Numbered]:
        """Returns the next frames that have been written since, each once.

        Raises
        ------
        DetectorMessageError
            If a piece is damaged; the next call goes on behind it.
        """

    def skip(self, n_frames: int) -> None:
        """Passes over frames before this number: they have been read by a process before this one."""

    def describe(self) -> Description:
        """Returns what the files say of the series."""

    @property
    def is_complete(self) -> bool:
        """Whether all frames have been read and no more can come."""

    def close(self) -> None:
        """Lets go of the files."""


def key_of(path: Path, first: EncodedFrame) -> str:
    """Returns the name of a series: that of its file, and what tells it from another of that name."""
    digest = hashlib.sha256(first.data)
    digest.update(f"{first.shape} {first.dtype}".encode())
    return f"{name_of(path)}-{digest.hexdigest()[:KEY_DIGITS]}"


def name_of(path: Path) -> str:
    """Returns what a beamline calls a series: its file or folder without an end, and without `_master`."""
    return (path.name if path.is_dir() else path.stem).removesuffix("_master")


def name_in(key: str) -> str:
    """Returns the name in a key, "" where it is none of a file."""
    found = re.fullmatch(rf"(.+)-[0-9a-f]{{{KEY_DIGITS}}}", key)
    return found[1] if found else ""


def start_of(key: str, series_id: int, path: Path, frame: EncodedFrame, told: Description) -> StartMessage:
    """Returns the message that begins a series."""
    rows, columns = frame.shape
    distance = told.detector_distance_m
    return StartMessage(
        series_id=series_id,
        series_unique_id=key,
        number_of_images=told.n_frames,
        image_size_x=columns,
        image_size_y=rows,
        detector_description=path.name,
        detector_translation=None if distance is None else (0.0, 0.0, distance),
        incident_energy=told.energy_ev,
        pixel_size_x=told.pixel_x_m,
        pixel_size_y=told.pixel_y_m,
        beam_center_x=told.beam_x,
        beam_center_y=told.beam_y,
        frame_time=told.frame_time_s,
    )
