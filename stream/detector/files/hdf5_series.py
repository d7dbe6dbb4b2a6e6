"""A series in HDF5: one dataset that grows, or data files that appear beside a master file."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py

from stream.detector.files.described import describe
from stream.detector.files.hdf5_frames import FrameDataset
from stream.detector.files.hdf5_places import Place, damage_told, follow, is_whole, places_in
from stream.detector.files.series import Description, Numbered
from stream.detector.files.writer import IS_SHARED, State, tells_its_writer, writer_of
from stream.detector.protocol import DetectorMessageError, EncodedFrame
from stream.files.base import ScanFileError
from stream.files.hdf5 import open_hdf5, open_unlocked

SETTLED_S = 0.3  # a file that does not tell its writer is read when it has not changed for so long
AGAIN_S = 1.0  # after which a file is read again though it seems unchanged: on a network that may be late
MISSING_S = 0.1  # between two looks whether a file is there


class _Taken:
    """Frames of one look, no more than a turn takes."""

    def __init__(self, n_most: int, most_bytes: int) -> None:
        self.frames: list[Numbered] = []
        self._n_most, self._n_bytes_left = n_most, most_bytes

    def add(self, number: int, frame: EncodedFrame) -> None:
        self.frames.append(Numbered(number, frame))
        self._n_bytes_left -= len(frame.data)

    @property
    def is_full(self) -> bool:
        return len(self.frames) >= self._n_most or self._n_bytes_left <= 0


class _Part:
    """What has been read of the frames in one place."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.frames: FrameDataset | None = None  # while its file is open
        self.n_read = self.n_frames = place.skipped  # of the dataset
        self.holes: list[int] = []  # frames that others have overtaken
        self.low: int | None = None  # number of its first frame, as it says itself
        self.flags, self.tells = 0, False  # whether it is being written, and says so
        self.is_shared = False  # whether it was when its file was opened
        self.seen: State | None = None  # of its file when it was opened
        self.looks_at = self.again_at = float("-inf")
        self.is_done = False  # nothing more can come

    @property
    def is_read(self) -> bool:
        return self.n_frames > self.place.skipped and self.n_read >= self.n_frames and not self.holes

    @property
    def is_full(self) -> bool:
        """Whether it has all frames that belong to the series."""
        most = self.place.n_most
        return self.is_read and most is not None and self.n_read - self.place.skipped >= most

    def waiting(self) -> Iterator[int]:
        """Yield what others have overtaken, then what is new."""
        yield from list(self.holes)
        yield from range(self.n_read, self.n_frames)

    def passed(self, index: int, *, is_hole: bool = False) -> None:
        if index in self.holes:
            self.holes.remove(index)
            return
        if is_hole:
            self.holes.append(index)
        self.n_read = index + 1


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
        self._dataset, self._told = dataset, Description()
        self._parts: list[_Part] = []
        self._listed: State | None = None  # the file when its parts were
        self._lists_at = float("-inf")
        self._changed: dict[Path, tuple[State, float]] = {}  # files as they were seen, and since when
        self._files: dict[Path, h5py.File] = {}
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
        """Lets go of the files."""
        for part in self._parts:
            part.frames = None
        for file in self._files.values():
            file.close()
        self._files.clear()

    def read(self, n_most: int, most_bytes: int) -> list[Numbered]:
        """Returns the next frames that have been written since; raises as `FileSeries.read`."""
        taken = _Taken(n_most, most_bytes)
        try:
            self._list()
            for part, first in self._in_order():
                if taken.is_full:
                    break
                try:
                    self._read(part, first, taken)
                except ScanFileError as error:
                    self._let_go(part)
                    self.waits_for = str(error)
        except ScanFileError as error:
            self.close()
            self.waits_for = str(error)
        self._has_all = self._is_all()
        return taken.frames

    def _list(self) -> None:
        """Look which parts there are, where the file has changed or a while has passed."""
        if self._parts and all(part.place.path == self.path for part in self._parts):
            return
        state, now = State.of(self.path), self._clock()
        if self._parts and state == self._listed and now < self._lists_at:
            return
        if not self._is_readable(self.path):
            return
        with self._opened(self.path) as file:
            if self._told == Description():
                with damage_told(self.path):
                    self._told = describe(file)
            places = places_in(self.path, file, self._dataset)
        known = {part.place[:2]: part for part in self._parts}
        self._parts = [known.get(place[:2]) or _Part(place) for place in places]
        self._listed, self._lists_at = state, now + AGAIN_S

    def _in_order(self) -> Iterator[tuple[_Part, int | None]]:
        """Yield parts of which more may come, and the number of the first frame of each, if that is known."""
        first, n_each, is_known = 0, 0, True
        for index, part in enumerate(self._parts):
            if part.place.first is not None:
                yield part, part.place.first
                continue
            if not part.is_done:
                yield part, first if is_known else None
            if part.low is not None:
                first, is_known = part.low, True
            is_known = is_known and (part.n_frames or n_each) > 0
            first += part.n_frames or n_each
            n_each = n_each or part.n_frames
            has_more_behind = index + 1 < len(self._parts)
            part.is_done = part.is_done or (
                part.is_read and has_more_behind and self._parts[index + 1].n_frames > 0
            )

    def _read(self, part: _Part, first: int | None, taken: _Taken) -> None:
        """Take what is new of a part."""
        if not self._open(part):
            return
        assert part.frames is not None  # noqa: S101
        self.waits_for = ""
        first = part.low if part.low is not None else first
        if first is None:
            self._let_go(part)
            return
        place = part.place._replace(first=first)
        for index in part.waiting():
            if taken.is_full:
                return
            if place.number(index) < self._skipped:
                part.passed(index)
                continue
            try:
                frame = part.frames.frame(index)
            except DetectorMessageError:
                if taken.frames or part.flags:
                    return  # what came before goes first; what is being written may yet be whole
                part.passed(index)
                raise
            if frame is not None:
                taken.add(place.number(index), frame)
            elif index in part.holes:
                continue
            elif not part.frames.is_there(index + 1):
                break
            part.passed(index, is_hole=frame is None)
        if not part.flags & IS_SHARED:
            self._let_go(part)

    def _open(self, part: _Part) -> bool:
        """Open the file of a part, or look again how far its writer has come; say whether that can be."""
        path, now = part.place.path, self._clock()
        if part.frames is None:
            if now < part.looks_at:
                return False
            state = State.of(path)
            is_as_before = state == part.seen and now < part.again_at
            if is_as_before or not self._is_readable(path):
                part.looks_at = now + (MISSING_S if state is None else 0.0)
                return False
            part.seen, part.again_at = state, now + AGAIN_S
        # Before looking: what has been written by then is all there.
        part.flags, part.tells = writer_of(path), tells_its_writer(path)
        if part.frames is None:
            part.is_shared = bool(part.flags & IS_SHARED)
            part.frames = self._frames(part)
            if part.frames is None:
                return False
        elif part.is_shared:
            with damage_told(path):
                part.frames.refresh()
        most = part.place.n_most
        n_frames = part.frames.n_frames
        part.n_frames = n_frames if most is None else min(n_frames, part.place.skipped + most)
        return True

    def _frames(self, part: _Part) -> FrameDataset | None:
        path, name = part.place.path, part.place.name
        file = self._files[path] if path in self._files else self._opened(path)
        self._files[path] = file
        with damage_told(path):
            lies_in, name = follow(path, file, name)
            dataset = file.get(name) if lies_in == path else None
            is_elsewhere = lies_in != path or (
                isinstance(dataset, h5py.Dataset) and (dataset.is_virtual or dataset.external)
            )
        if is_elsewhere:
            dataset = self._put_together(part)
            if dataset is None:
                return None
        with damage_told(path):
            frames = FrameDataset(dataset, f"{path}, {name}")
            if part.place.first is None:
                part.low = frames.low
        return frames

    def _put_together(self, part: _Part) -> h5py.Dataset | None:
        """Return a dataset that draws on other files, None until all of it is there."""
        path, name = part.place[:2]
        self._let_go(part)
        self._files[path] = open_hdf5(path)
        with damage_told(path):
            dataset = self._files[path].get(name)
            if isinstance(dataset, h5py.Dataset) and dataset.is_virtual and not is_whole(path, dataset):
                self._let_go(part)
                self.waits_for = f"{path}, {name}: not all files that it is put together from are there"
                return None
        return dataset

    def _opened(self, path: Path) -> h5py.File:
        return open_unlocked(path, is_growing=bool(writer_of(path) & IS_SHARED))

    def _let_go(self, part: _Part) -> None:
        """Close the file of a part, and with it those of others in it."""
        for each in self._parts:
            if each.place.path == part.place.path:
                each.frames = None
        file = self._files.pop(part.place.path, None)
        if file is not None:
            file.close()

    def _is_readable(self, path: Path) -> bool:
        """Whether a file can be read by now."""
        state = State.of(path)
        if state is None:
            self.waits_for = f"{path} is not there yet"
            return False
        flags = writer_of(path)
        if flags & IS_SHARED:
            return True
        if flags:
            self.waits_for = f"{path}: its writer does not share it (SWMR): it is read when it is closed"
            return False
        if path == self.path and tells_its_writer(path):
            return True
        before, since = self._changed.get(path, (None, 0.0))
        if before != state:
            self._changed[path] = state, self._clock()
            return False
        return self._clock() - since >= SETTLED_S

    def _is_all(self) -> bool:
        if not self._parts or not all(part.is_read for part in self._parts):
            return False
        n_read = sum(part.n_read - part.place.skipped for part in self._parts)
        if self._told.n_frames is not None:
            return n_read >= self._told.n_frames
        return all(
            part.place.first is not None and (part.is_full or (part.tells and not part.flags))
            for part in self._parts
        )
