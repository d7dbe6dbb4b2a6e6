"""An HDF5 file that is read, and in words why it cannot be.

HDF5 reads other files where a file says so, by external links, virtual datasets and external storage: any
that whoever runs this may read. Here only those in the folder of the file are read, and below it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import h5py
from numpy.typing import NDArray

from stream.files.base import ScanFileError

HERE = "."  # as HDF5 calls the file itself, where it names the sources of a virtual dataset

# what the library's messages hold, and what they mean
_MEANINGS = {
    "signature": "it is no HDF5 file",
    "truncated": "its end is missing, as if it were still copied or its writer had died",
    "lock": "another program has it open to write",
    "already open": "another program has it open to write, and does not share it (SWMR)",
}


class Source(NamedTuple):
    """Another file that a file is read from.

    Attributes
    ----------
    where : str
        In the file, of what lies elsewhere.
    path : Path
        Which the library opens for it.
    """

    where: str
    path: Path


class OutsideError(ScanFileError):
    """A part of a file lies outside of its folder."""


def open_hdf5(path: Path, *, is_growing: bool = False) -> h5py.File:
    """Returns the file, open to be read.

    Parameters
    ----------
    path : Path
    is_growing : bool
        Whether its writer may be at it still, if it shares what it has written (HDF5's SWMR).

    Raises
    ------
    ScanFileError
        Naming the file and what is wrong with it.
    OutsideError
        If a part of it lies outside of its folder.
    """
    with damage_named(path):
        for source in sources_of(path, is_growing=is_growing):
            if not is_within(source.path, path.parent):
                raise OutsideError(
                    f"{path}: {source.where} lies in {source.path}, outside of the folder of the file, and "
                    "is not read from there: name that file itself, or copy what is wanted (h5copy -f ext)"
                )
        return h5py.File(path, "r", swmr=is_growing)


def open_unlocked(path: Path, *, is_growing: bool = False) -> h5py.File:
    """Returns the file as `open_hdf5` does, without a lock that keeps others from writing to it.

    Whoever uses it follows no link to another file. (A file that its writer shares is not locked anyway.)

    Raises
    ------
    ScanFileError
        Naming the file and what is wrong with it.
    """
    with damage_named(path):
        return h5py.File(path, "r", swmr=is_growing, locking=None if is_growing else False)


@contextmanager
def open_growing(path: Path, name: str) -> Iterator[Any]:
    """Gives what is called `name` in a file, as it is by now; None where there is no such thing.

    Its writer may be at it still, if it shares what it has written (HDF5's SWMR).

    Raises
    ------
    ScanFileError
        As `open_hdf5` does.
    """
    with damage_named(path), h5py.File(path, "r", swmr=True) as file:
        if _is_within_file(file, name):
            yield file.get(name)
            return
    with open_hdf5(path, is_growing=True) as file, damage_named(path):
        yield file.get(name)


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Raises ScanFileError, naming the file, for what the library raises where a file is damaged."""
    try:
        yield
    except OSError as error:
        raise ScanFileError(f"{path}: {why_unread(error)}") from error
    except (RuntimeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ScanFileError(f"{path}: HDF5 cannot read all of it: it is damaged") from error


class FramesInFile:
    """Frames of a file (frame, row, col), read when they are sliced; damage is named then."""

    def __init__(self, path: Path, frames: Any) -> None:
        self._path, self._frames = path, frames
        self.shape, self.dtype, self.ndim = frames.shape, frames.dtype, frames.ndim

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Returns the frames that `index` selects."""
        with damage_named(self._path):
            frames: NDArray[Any] = self._frames[index]
            return frames


def why_unread(error: OSError) -> str:
    """Returns why HDF5 could not open or read something, without the words of its library."""
    told = str(error)
    known = next((meaning for words, meaning in _MEANINGS.items() if words in told), None)
    if known is not None:
        return known
    return os.strerror(error.errno) if error.errno else "HDF5 cannot read it: it is damaged"


def sources_of(path: Path, *, is_growing: bool = False) -> Iterator[Source]:
    """Yields the other files that an HDF5 file is read from, and those that these are read from."""
    seen, waiting = {path}, [path]
    while waiting:
        one = waiting.pop()
        with h5py.File(one, "r", swmr=is_growing) as file:
            for where, named, is_raw in _named_in(file):
                source = _opened_for(named, one.parent, is_raw=is_raw)
                if source is None:
                    continue
                yield Source(where, source)
                if source not in seen and not is_raw and h5py.is_hdf5(source):
                    waiting.append(source)
                seen.add(source)


def _named_in(file: h5py.File) -> Iterator[tuple[str, str, bool]]:
    """Yield each place in a file that draws on another one, how it names that, and whether that is raw."""
    waiting, seen = [file["/"]], set()
    while waiting:
        group = waiting.pop()
        if group.id in seen:  # a hard link to a group above it
            continue
        seen.add(group.id)
        for name in group:
            link, where = group.get(name, getlink=True), f"{group.name.rstrip('/')}/{name}"
            if isinstance(link, h5py.ExternalLink):
                yield where, link.filename, False
            elif isinstance(link, h5py.HardLink):
                item = group[name]
                if isinstance(item, h5py.Group):
                    waiting.append(item)
                elif isinstance(item, h5py.Dataset):
                    yield from ((where, named, True) for named, _, _ in item.external or ())
                    virtual = item.virtual_sources() if item.is_virtual else ()
                    yield from ((where, each.file_name, False) for each in virtual if each.file_name != HERE)


def _is_within_file(file: h5py.File, name: str) -> bool:
    """Whether all of a dataset lies in the file; what does not exist lies nowhere else."""
    item = file["/"]
    for part in filter(None, name.split("/")):
        if not isinstance(item, h5py.Group) or (link := item.get(part, getlink=True)) is None:
            return True
        if not isinstance(link, h5py.HardLink):
            return False
        item = item[part]
    return not (isinstance(item, h5py.Dataset) and (item.is_virtual or item.external))


def _opened_for(named: str, folder: Path, *, is_raw: bool) -> Path | None:
    """Return the file that the library opens for a name in a file of `folder`, None if there is none.

    Links are looked for beside the file and where the program runs, raw storage only there.
    """
    asked = Path(named)
    places = [asked.absolute()] if is_raw else [folder / asked, asked.absolute(), folder / asked.name]
    if "%b" in named:  # of a virtual dataset, blocks in numbered files
        return Path(os.path.normpath(places[0]))
    for place in places:
        with suppress(OSError, ValueError):
            if place.is_file():
                return Path(os.path.normpath(place))
    return None


def is_within(path: Path, folder: Path) -> bool:
    """Says whether a file lies in a folder, by its name: who may make symlinks there has read it already."""
    home = Path(os.path.normpath(folder.absolute()))
    return path.absolute().is_relative_to(home) or path.resolve().is_relative_to(folder.resolve())
