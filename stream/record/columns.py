"""One quantity of every frame in memory-mapped segments, addressed by frame number.

A column has one writer and any number of readers in other processes; it grows by whole segments and never
moves.
"""

import errno
import itertools
import math
import mmap
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from io import FileIO
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, TypeGuard, TypeVar

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from stream.atomic import removed_on_failure, write_atomically
from stream.wire.codec import Buffer
from stream.wire.foreign import in_short

SEGMENT_BYTES = 4 << 20  # small enough that threads which store a batch have a file each
LARGE_BYTES = 4096  # values from this size on are written to their file, smaller ones stored in its map
MIN_SEGMENT_FRAMES, MAX_SEGMENT_FRAMES = 64, 4096
_DESCRIPTION = "column.json"
MOST_DESCRIPTION_BYTES = 1 << 16
MOST_ITEM_BYTES = 1 << 31  # of one value
DescriptionT = TypeVar("DescriptionT")
_FENCE = threading.Lock()


def fence() -> None:
    """Orders the memory accesses before it ahead of those after it, also where the processor does not."""
    # Two lock round trips are a full barrier: nothing moves up past the second, nothing down past the first.
    for _ in range(2):
        with _FENCE:
            pass


class DamagedScanError(ValueError):
    """A file of a scan that no program of ours can have written whole."""


class _Description(msgspec.Struct, frozen=True):
    dtype: str
    item_shape: Annotated[tuple[Annotated[int, Meta(ge=0, le=MOST_ITEM_BYTES)], ...], Meta(max_length=8)]
    segment_frames: Annotated[int, Meta(ge=1, le=1 << 24)]

    def __post_init__(self) -> None:
        check_item(self.dtype, self.item_shape)


def check_item(dtype: str, shape: Sequence[int]) -> None:
    """Raises ValueError unless a value of this dtype and shape is one that a frame can have."""
    try:
        is_number, n_bytes = np.dtype(dtype).kind in "biufc", np.dtype(dtype).itemsize * math.prod(shape)
    except TypeError:
        is_number, n_bytes = False, 0
    if not is_number:
        raise ValueError(f"dtype {in_short(dtype)}: wanted numbers")
    if n_bytes > MOST_ITEM_BYTES:
        raise ValueError(
            f"{in_short(dtype)} of shape {in_short(shape)}: a value has {MOST_ITEM_BYTES} bytes at most"
        )


def read_description(file: Path, kind: type[DescriptionT]) -> DescriptionT:
    """Returns what a small JSON file of a scan says.

    Raises
    ------
    DamagedScanError
        If it is something else; names the file.
    """
    n_bytes = file.stat().st_size
    if n_bytes > MOST_DESCRIPTION_BYTES:
        raise DamagedScanError(f"{file} has {n_bytes} bytes: wanted {MOST_DESCRIPTION_BYTES} at most")
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedScanError(f"{file} is damaged: {error}") from error


class Column:
    """Values of one dtype and shape per frame, in files of equal length.

    Parameters
    ----------
    folder : Path
        Where the segments lie; `create` makes it.
    writable : bool
        Whether this process is the column's one writer.

    Attributes
    ----------
    is_writable : bool
    item_bytes : int
        Of one value.
    first_frame : int
        Segments that end before this frame are holes: large values there take no room until somebody stores
        one.

    Raises
    ------
    FileNotFoundError
        If the column has not been created.
    DamagedScanError
        If its description cannot be one.
    """

    def __init__(self, folder: Path, *, writable: bool = False) -> None:
        description = read_description(folder / _DESCRIPTION, _Description)
        self.folder = folder
        self.dtype = np.dtype(description.dtype)
        self.item_shape, self.segment_frames = description.item_shape, description.segment_frames
        self.is_writable, self.first_frame = writable, 0
        self._n_segments = 0
        self._segments: list[NDArray[Any]] = []  # maps of them, of small values only
        self.item_bytes = self.dtype.itemsize * math.prod(self.item_shape)
        self._file: FileIO | None = None
        self._file_index = -1
        self._close_file: Callable[[], object] = lambda: None

    @classmethod
    def create(cls, folder: Path, dtype: str, item_shape: Sequence[int] = ()) -> "Column":
        """Returns the writable column in `folder`, made new or, after a restart, as it was left.

        Raises
        ------
        ValueError
            If it was left with another dtype or shape.
        DiskFullError
            If there is no room even for its description.
        """
        if not (folder / _DESCRIPTION).exists():
            item_bytes = np.dtype(dtype).itemsize * int(np.prod(item_shape, dtype=np.int64))
            frames = min(max(SEGMENT_BYTES // max(item_bytes, 1), MIN_SEGMENT_FRAMES), MAX_SEGMENT_FRAMES)
            description = _Description(dtype, tuple(item_shape), frames)
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / _DESCRIPTION, msgspec.json.encode(description))
        column = cls(folder, writable=True)
        if (column.dtype, column.item_shape) != (np.dtype(dtype), tuple(item_shape)):
            raise ValueError(
                f"{folder} holds {column.dtype} of shape {column.item_shape} per frame, wanted {dtype} of "
                f"shape {tuple(item_shape)}: was the configuration changed? choose another --save"
            )
        return column

    @property
    def n_room(self) -> int:
        """Frames that there is room for by now, from frame 0 on, whoever allocated it."""
        return self._find_segments() * self.segment_frames

    def reserve(self, n_frames: int) -> None:
        """Allocates room for frames 0 to `n_frames` - 1.

        Raises
        ------
        DiskFullError
            If the file system cannot hold another segment; what is recorded stays as it is.
        """
        while self._n_segments * self.segment_frames < n_frames:
            if self._find_segments() * self.segment_frames < n_frames:
                self._allocate(self._n_segments)

    def close(self) -> None:
        """Lets go of all files; whoever reads or writes again opens them anew."""
        self._close_file()
        self._file, self._file_index = None, -1
        self._n_segments, self._segments = 0, []

    def write(self, numbers: Any, values: Any) -> None:
        """Stores `values` (one per number, or one for all) at frame `numbers`; allocates as needed.

        Large values of frames that have room already (`reserve`) may be stored by several threads at once.
        Numbers given as an ascending range take less time.
        """
        values = np.asarray(values, self.dtype)
        if self._is_even(numbers):
            self.reserve(numbers[-1] + 1 if numbers else 0)
            for segment, here, within in self._evenly(numbers):
                segment[within] = values[here] if values.ndim > len(self.item_shape) else values
            return
        numbers = np.atleast_1d(np.asarray(numbers, dtype=np.int64))
        if not numbers.size:
            return
        self.reserve(int(numbers.max()) + 1)
        shape = (len(numbers), *self.item_shape)
        if values.shape != shape:
            values = np.broadcast_to(values, shape)
        if self.item_bytes >= LARGE_BYTES:
            self._write_runs(numbers, values)
            return
        for segment, rows, within in self._grouped(numbers):
            segment[within] = values[rows]

    def put(self, number: int, values: Sequence[Buffer]) -> None:
        """Stores values, given as their bytes, at frame `number` and those after it; allocates as needed.

        Notes
        -----
        They go through the file, which every map sees at once: the first store to a page of a map costs a
        fault, several times the copy. Neighbours in one piece get their memory in larger pieces.
        """
        self.reserve(number + len(values))
        while values:
            index, within = divmod(number, self.segment_frames)
            if self._file is None or index != self._file_index:
                self._close_file()
                self._file, self._file_index = self.path(index).open("r+b", buffering=0), index
                self._close_file = weakref.finalize(self, self._file.close)
            here = values[: self.segment_frames - within]
            self._pwrite(self._file, within, len(here), here)
            number, values = number + len(here), values[len(here) :]

    def get(self, number: int) -> NDArray[Any]:
        """Returns the value of one frame, read from its file; zero where the writer has not allocated yet.

        For who looks at a frame now and then: of small values `read` maps every segment of the column.
        """
        index, within = divmod(number, self.segment_frames)
        try:
            with self.path(index).open("rb", buffering=0) as file:
                data = os.pread(file.fileno(), self.item_bytes, within * self.item_bytes)
        except FileNotFoundError:
            return np.zeros(self.item_shape, self.dtype)
        return np.frombuffer(data, self.dtype).reshape(self.item_shape)

    def _is_even(self, numbers: Any) -> TypeGuard[range]:
        is_ascending = isinstance(numbers, range) and numbers.start >= 0 and numbers.step > 0
        return is_ascending and self.item_bytes < LARGE_BYTES

    def _evenly(self, numbers: range) -> Iterator[tuple[NDArray[Any], slice, slice]]:
        """Yield the maps in which `numbers` lie, of small values, which of them do, and where."""
        first, step = 0, numbers.step
        while first < len(numbers):
            index, start = divmod(numbers[first], self.segment_frames)
            n_here = min(len(numbers) - first, -((start - self.segment_frames) // step))
            rows, first = slice(first, first + n_here), first + n_here
            if index < len(self._segments) or index < self._find_segments():
                yield self._segments[index], rows, slice(start, start + n_here * step, step)

    def _write_runs(self, numbers: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Stores large values through the files, frames that are neighbours there in one piece."""
        for index, runs in itertools.groupby(self._runs(numbers), itemgetter(1)):
            with self.path(index).open("r+b", buffering=0) as file:
                for rows, _, within in runs:
                    data = np.ascontiguousarray(values[rows], self.dtype)
                    self._pwrite(file, within, len(data), [data.data])

    def _read_runs(self, numbers: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Reads large values from the files, frames that are neighbours there in one piece."""
        self._check(numbers)
        for index, runs in itertools.groupby(self._runs(numbers), itemgetter(1)):
            try:
                file = self.path(index).open("rb", buffering=0)
            except FileNotFoundError:  # not allocated yet
                for rows, _, _ in runs:
                    out[rows] = 0
                continue
            with file:
                for rows, _, within in runs:
                    self._preadv(file, within, out[rows])

    def _preadv(self, file: FileIO, within: int, out: NDArray[Any]) -> None:
        n_read = os.preadv(file.fileno(), [out.reshape(-1).view(np.uint8).data], within * self.item_bytes)
        if n_read != out.nbytes:
            raise OSError(errno.EIO, f"{n_read} of {out.nbytes} bytes read", str(file.name))

    def _runs(self, numbers: NDArray[np.int64]) -> Iterator[tuple[slice, int, int]]:
        """Yields rows of `numbers` that lie one after the other in a file, which file, and where in it."""
        if not numbers.size:
            return
        index, within = np.divmod(numbers, self.segment_frames)
        starts = np.flatnonzero((np.diff(numbers) != 1) | (within[1:] == 0)) + 1
        for start, stop in itertools.pairwise([0, *starts.tolist(), len(numbers)]):
            yield slice(start, stop), int(index[start]), int(within[start])

    def _check(self, numbers: NDArray[np.int64]) -> None:
        if numbers.size and int(numbers.min()) < 0:
            raise ValueError(f"frame number {int(numbers.min())} in column {self.folder.name}: wanted >= 0")

    def _pwrite(self, file: FileIO, within: int, n_values: int, pieces: Sequence[Buffer]) -> None:
        n_bytes = n_values * self.item_bytes
        n_written = os.pwritev(file.fileno(), pieces, within * self.item_bytes)
        if n_written != n_bytes:
            raise OSError(errno.EIO, f"{n_written} of {n_bytes} bytes written", str(file.name))

    def read(self, numbers: Any) -> NDArray[Any]:
        """Returns a copy of the values at `numbers`; zero where the writer has not allocated yet.

        Large values are read from their files: pages of a map would count as memory of the process. Numbers
        given as an ascending range take less time.
        """
        if self._is_even(numbers):
            out = np.zeros((len(numbers), *self.item_shape), self.dtype)
            for segment, rows, within in self._evenly(numbers):
                out[rows] = segment[within]
            return out
        numbers = np.atleast_1d(np.asarray(numbers, dtype=np.int64))
        out = np.empty((len(numbers), *self.item_shape), self.dtype)
        if self.item_bytes >= LARGE_BYTES:
            self._read_runs(numbers, out)
            return out
        for segment, rows, within in self._grouped(numbers):
            if isinstance(rows, slice):
                segment.take(within, axis=0, out=out[rows], mode="clip")  # any other mode copies twice
            else:
                out[rows] = segment[within]
        n_here = len(self._segments) * self.segment_frames
        if numbers.size and int(numbers.max()) >= n_here:
            out[numbers >= n_here] = 0
        return out

    def head(self, n_frames: int) -> NDArray[Any]:
        """Returns a copy of the values of frames 0 to `n_frames` - 1, zero where nothing is allocated."""
        if self.item_bytes >= LARGE_BYTES:
            return self.read(np.arange(n_frames))
        out = np.zeros((n_frames, *self.item_shape), self.dtype)
        if n_frames > len(self._segments) * self.segment_frames:
            self._find_segments()
        for start, segment in zip(range(0, n_frames, self.segment_frames), self._segments, strict=False):
            part = out[start : start + self.segment_frames]
            part[...] = segment[: len(part)]
        return out

    def _grouped(self, numbers: NDArray[np.int64]) -> Iterator[tuple[NDArray[Any], Any, Any]]:
        if not numbers.size:
            return
        self._check(numbers)
        low, high = int(numbers.min()), int(numbers.max())
        if high >= len(self._segments) * self.segment_frames:
            self._find_segments()
        index = low // self.segment_frames
        if index == high // self.segment_frames:  # as frames come
            if index < len(self._segments):
                yield self._segments[index], slice(None), numbers - index * self.segment_frames
            return
        which, within = np.divmod(numbers, self.segment_frames)
        if (which[1:] >= which[:-1]).all():  # as frames come: nothing has to be looked for
            edges = [0, *(np.flatnonzero(np.diff(which)) + 1).tolist(), len(which)]
            groups: Iterator[Any] = (slice(start, stop) for start, stop in itertools.pairwise(edges))
        else:
            groups = (np.flatnonzero(which == index) for index in np.unique(which))
        for rows in groups:
            index = which[rows][0]
            if index < len(self._segments):
                yield self._segments[index], rows, within[rows]

    def check_segments(self) -> None:
        """Raises DamagedScanError if a file is not as long as all are."""
        n_bytes = self.item_bytes * self.segment_frames
        for path in self.folder.glob("*.bin"):
            if (found := path.stat().st_size) != n_bytes:
                raise DamagedScanError(f"{path} has {found} bytes, not {n_bytes}")

    def path(self, index: int) -> Path:
        """Returns where the segment `index` belongs."""
        return self.folder / f"{index:06d}.bin"

    def _allocate(self, index: int) -> None:
        n_bytes, path = self.item_bytes * self.segment_frames, self.path(index)
        is_hole = (index + 1) * self.segment_frames <= self.first_frame and self.item_bytes >= LARGE_BYTES
        temporary = path.with_suffix(".new")
        what = f"{n_bytes / 1e6:.0f} MB of column '{self.folder.name}'"
        with removed_on_failure(temporary, what), temporary.open("wb") as file:
            if is_hole:
                os.ftruncate(file.fileno(), n_bytes)
            else:  # without this a full disk would be a SIGBUS at some later frame
                os.posix_fallocate(file.fileno(), 0, n_bytes)
        temporary.rename(path)

    def _find_segments(self) -> int:
        """Return how many segments there are by now; those of small values are mapped."""
        while (path := self.path(self._n_segments)).exists():
            if self.item_bytes < LARGE_BYTES:
                shape = (self.segment_frames, *self.item_shape)
                # Faulting pages in one by one would cost the writer more than storing the values.
                values = mapped(path, self.dtype, writable=self.is_writable, populate=self.is_writable)
                self._segments.append(values.reshape(shape))
            self._n_segments += 1
        return self._n_segments


def mapped(path: Path, dtype: Any, *, writable: bool, populate: bool = False) -> NDArray[Any]:
    """Returns a file as an array (value,) that all processes share; it is open as long as the array lives."""
    with path.open("r+b" if writable else "rb") as file:
        flags = mmap.MAP_SHARED | (mmap.MAP_POPULATE if populate else 0)
        prot = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, flags=flags, prot=prot), dtype)
