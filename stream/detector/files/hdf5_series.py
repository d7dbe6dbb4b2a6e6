"""A series in HDF5: one dataset that grows, or a master file with data files beside it."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import h5py

from stream.detector.files.described import describe
from stream.detector.files.hdf5_frames import FrameDataset
from stream.detector.files.series import Description, Numbered
from stream.detector.protocol import DetectorMessageError
from stream.files.base import ScanFileError
from stream.files.hdf5 import damage_named, open_hdf5

_USUAL = (
    "entry/data/data",
    "entry_1/instrument_1/detector_1/data",
    "entry_1/data_1/data",
    "entry/instrument/detector/data",
    "exchange/data",
    "data",
)
_PART = re.compile(r"data_\d+")
_PARTS_GROUP = "entry/data"
_LATEST, _IS_WRITTEN, _IS_SHARED = 3, 1, 4  # superblock's version, flags of who has the file open
SETTLED_S = 0.3  # a file that does not tell its writer is read when it has not changed for so long


class _Part(NamedTuple):
    name: str
    first: int  # number in the series
    frames: FrameDataset


class Hdf5Series:
    """The frames of an HDF5 file, also of one that is being written; see `FileSeries`.

    Parameters
    ----------
    path : Path
    dataset : str
        Name of the frames; "" finds them.
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, path: Path, dataset: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self.path, self.waits_for, self._clock = path, "", clock
        self._changed: dict[
            Path, tuple[tuple[int, int], float]
        ] = {}  # size and time of files, and since when
        self._dataset, self._told = dataset, Description()
        self._file: h5py.File | None = None  # open while its writer shares it
        self._n_read: dict[str, int] = {}  # of each part
        self._holes: dict[str, list[int]] = {}  # frames of each that others have overtaken
        self._done: set[str] = set()  # parts of which nothing more can come
        self._skipped, self._has_all = 0, False

    def skip(self, n_frames: int) -> None:
        """Passes over frames before this number."""
        self._skipped = n_frames

    def describe(self) -> Description:
        """Returns what the file says of the series."""
        return self._told

    @property
    def is_complete(self) -> bool:
        """Whether all frames have been read and no more can come."""
        return self._has_all

    def close(self) -> None:
        """Lets go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self, n_most: int, most_bytes: int) -> list[Numbered]:
        """Returns the next frames that have been written since; raises as `FileSeries.read`."""
        is_written = _writer_of(self.path)  # before looking: what it has written until now is all there
        try:
            with self._opened(is_written) as file:
                if file is None:
                    return []
                self._told = self._described(file)
                return self._read(file, n_most, most_bytes, is_written=bool(is_written))
        except ScanFileError as error:
            self.close()
            self.waits_for = str(error)
            return []

    def _read(self, file: h5py.File, n_most: int, most_bytes: int, *, is_written: bool) -> list[Numbered]:
        found: list[Numbered] = []
        n_bytes, parts = 0, list(self._parts(file))
        for index, part in enumerate(parts):
            if self._file is not None:
                part.frames.refresh()
            for number in self._numbers(part):
                if len(found) >= n_most or n_bytes >= most_bytes:
                    break
                try:
                    frame = part.frames.frame(number)
                except DetectorMessageError:
                    if found or is_written:
                        break  # what came before goes first; what is being written may yet be whole
                    self._pass(part, number)
                    raise
                if frame is not None:
                    found.append(Numbered(part.first + number, frame))
                    n_bytes += len(frame.data)
                elif number in self._holes.get(part.name, ()):
                    continue
                elif not part.frames.is_there(number + 1):
                    break
                self._pass(part, number, is_hole=frame is None)
            is_read = self._n_read.get(part.name, 0) >= part.frames.n_frames
            if is_read and index + 1 < len(parts) and not self._holes.get(part.name):
                self._done.add(part.name)
        self.waits_for = ""
        self._has_all = self._is_all(parts, is_written=is_written)
        return found

    def _numbers(self, part: _Part) -> Iterator[int]:
        """Yield what is to be read of a part: what others have overtaken, then what is new."""
        n_read = max(self._n_read.get(part.name, 0), min(self._skipped - part.first, part.frames.n_frames))
        self._n_read[part.name] = n_read
        yield from list(self._holes.get(part.name, ()))
        yield from range(n_read, part.frames.n_frames)

    def _pass(self, part: _Part, number: int, *, is_hole: bool = False) -> None:
        holes = self._holes.setdefault(part.name, [])
        if number in holes:
            holes.remove(number)
            return
        if is_hole:
            holes.append(number)
        self._n_read[part.name] = number + 1

    def _is_all(self, parts: list[_Part], *, is_written: bool) -> bool:
        if not parts or any(self._n_read[part.name] < part.frames.n_frames for part in parts):
            return False
        if any(self._holes.values()) and (is_written or not _tells_its_writer(self.path)):
            return False
        n_read = parts[-1].first + self._n_read[parts[-1].name]
        if self._told.n_frames is not None:
            return n_read >= self._told.n_frames
        is_single = not _PART.fullmatch(parts[-1].name.rpartition("/")[2])
        return is_single and not is_written and n_read > 0 and _tells_its_writer(self.path)

    def _described(self, file: h5py.File) -> Description:
        if self._told != Description():
            return self._told
        with damage_named(self.path):
            return describe(file)

    def _parts(self, file: h5py.File) -> Iterator[_Part]:
        with damage_named(self.path):
            group = file.get(_PARTS_GROUP)
            names = sorted(filter(_PART.fullmatch, group)) if isinstance(group, h5py.Group) else []
        if self._dataset or not names:
            name = self._dataset or find_frames(self.path, file)
            yield _Part(name, 0, FrameDataset(file.get(name), f"{self.path}, {name}"))
            return
        first, n_each, is_known = 0, 0, True  # whether the number of the next frame is
        for name in names:
            place = f"{_PARTS_GROUP}/{name}"
            if place in self._done:
                first += self._n_read[place]
                continue
            part = self._part(file, place)
            if part is None:
                is_known = is_known and n_each > 0
                first += n_each
                continue
            frames, low = part
            if low is not None:
                first, is_known = low, True
            if is_known:
                yield _Part(place, first, frames)
            n_each = n_each or frames.n_frames
            first += frames.n_frames

    def _part(self, file: h5py.File, place: str) -> tuple[FrameDataset, int | None] | None:
        """Return the frames of a data file and the number of its first, None while it is being written."""
        with suppress(KeyError, OSError):  # it is not there yet
            dataset = file[place]
            if self._is_settled(Path(dataset.file.filename)):
                low = dataset.attrs.get("image_nr_low")
                return FrameDataset(dataset, f"{self.path}, {place}"), None if low is None else int(low) - 1
        return None

    def _is_settled(self, path: Path) -> bool:
        """Whether a file has not changed for a moment: where it does not tell, who writes it may be at it."""
        try:
            found = path.stat()
        except OSError:
            return False
        now, state = self._clock(), (found.st_size, found.st_mtime_ns)
        before, since = self._changed.get(path, (None, 0.0))
        if before != state:
            self._changed[path] = state, now
            return False
        return now - since >= SETTLED_S

    @contextmanager
    def _opened(self, is_written: int) -> Iterator[h5py.File | None]:
        """Give the file if it can be read, and hold it while its writer shares it."""
        if self._file is not None:
            yield self._file
            return
        if not self.path.exists():
            self.waits_for = f"{self.path} is not there yet"
            yield None
        elif is_written & _IS_SHARED:
            self._file = open_hdf5(self.path, is_growing=True)
            yield self._file
        elif not _tells_its_writer(self.path) and not self._is_settled(self.path):
            yield None
        elif is_written:
            self.waits_for = f"{self.path}: its writer does not share it (SWMR): it is read when it is closed"
            yield None
        else:
            with open_hdf5(self.path) as file:
                yield file


def find_frames(path: Path, file: h5py.File) -> str:
    """Returns the name of the frames in a file: as it says, where they usually are, or the only ones.

    Raises
    ------
    ScanFileError
        If there are none or several.
    """
    with damage_named(path):
        if (named := _by_default(file)) is not None:
            return named
        for name in _USUAL:
            if _is_stack(file.get(name)):
                return name
        found: list[str] = []
        file.visititems(lambda name, item: found.append(name) if _is_stack(item) else None)
    if len(found) == 1:
        return found[0]
    listed = ", ".join(found) or "none"
    raise ScanFileError(
        f"{path}: wanted one dataset of whole numbers (frame, row, col), found {listed}: name it in "
        "detector.dataset"
    )


def _by_default(file: h5py.File) -> str | None:
    """Return what the attributes of NeXus lead to, if that is a stack of frames."""
    item: Any = file
    for _ in range(4):
        name = item.attrs.get("default", item.attrs.get("signal")) if isinstance(item, h5py.Group) else None
        name = name.decode(errors="replace") if isinstance(name, bytes) else name
        if not isinstance(name, str) or name not in item:
            break
        item = item[name]
    return str(item.name).lstrip("/") if _is_stack(item) else None


def _is_stack(item: Any) -> bool:
    return isinstance(item, h5py.Dataset) and item.ndim == 3 and item.dtype.kind in "ui"


def _superblock(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(12)
    except OSError:
        return b""


def _writer_of(path: Path) -> int:
    """Return the flags of who has a file open to write, 0 where nobody has, or the file does not tell."""
    head = _superblock(path)
    is_told = len(head) == 12 and head[8] >= _LATEST
    return head[11] & (_IS_WRITTEN | _IS_SHARED) if is_told else 0


def _tells_its_writer(path: Path) -> bool:
    """Whether a file says who has it open to write: those of old formats do not."""
    head = _superblock(path)
    return len(head) == 12 and head[8] >= _LATEST
