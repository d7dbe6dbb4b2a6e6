"""Where the frames of an HDF5 file lie: in it, or in files that it links to or is put together from.

No link is followed by the library: it would open and lock other files, wherever they are.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py

from stream.detector.protocol import DetectorMessageError
from stream.files.base import ScanFileError
from stream.files.hdf5 import HERE, OutsideError, damage_named, is_within

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
_MOST_LINKS = 16
_UNLIMITED = 1 << 62  # as HDF5 says that it has no end


class Place(NamedTuple):
    """A dataset, and which numbers its frames have in the series.

    Its frame `skipped + i` has the number `first + i // block * stride + i % block`.

    Attributes
    ----------
    path, name
        File and dataset.
    first : int or None
        None where it follows the place before it, or says itself where it begins.
    n_most : int or None
        So many of its frames belong to the series, None for all.
    """

    path: Path
    name: str
    first: int | None = None
    skipped: int = 0
    stride: int = 1
    block: int = 1
    n_most: int | None = None

    def number(self, index: int) -> int:
        """Returns the number of frame `index` of the dataset, of a place that has a first number."""
        assert self.first is not None  # noqa: S101
        blocks, rest = divmod(index - self.skipped, self.block)
        return self.first + blocks * self.stride + rest


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Raises ScanFileError as `damage_named` does, also where h5py cannot make out a type or a shape."""
    try:
        with damage_named(path):
            yield
    except (ScanFileError, DetectorMessageError):
        raise
    except ValueError as error:
        raise ScanFileError(f"{path}: HDF5 cannot read all of it: it is damaged") from error


def places_in(path: Path, file: h5py.File, dataset: str) -> list[Place]:
    """Returns where the frames lie, in their order.

    Parameters
    ----------
    path : Path
    file : h5py.File
        The same, open.
    dataset : str
        Name of the frames; "" finds them.

    Raises
    ------
    ScanFileError
        If there are none or several, or they lie out of the folder of the file.
    """
    with damage_told(path):
        group = file.get(_PARTS_GROUP) if not dataset else None
        parts = sorted(filter(_PART.fullmatch, group)) if isinstance(group, h5py.Group) else []
        if parts:
            return [Place(*follow(path, file, f"{_PARTS_GROUP}/{part}")) for part in parts]
        place = Place(*follow(path, file, dataset or _found(path, file)), first=0)
        item = file.get(place.name) if place.path == path else None
        if isinstance(item, h5py.Dataset) and item.is_virtual:
            return _sources(path, item) or [place]
        return [place]


def follow(path: Path, file: h5py.File, name: str) -> tuple[Path, str]:
    """Returns the file and the name in it that the links of a file lead to.

    Raises
    ------
    OutsideError
        If that file is out of the folder.
    ScanFileError
        If links go round in a circle.
    """
    for _ in range(_MOST_LINKS):
        item, passed, names = file["/"], "", [part for part in name.split("/") if part]
        for index, part in enumerate(names):
            link = item.get(part, getlink=True) if isinstance(item, h5py.Group) else None
            rest = names[index + 1 :]
            if isinstance(link, h5py.ExternalLink):
                return beside(path, link.filename), "/".join([link.path.strip("/"), *rest])
            if isinstance(link, h5py.SoftLink):
                name = "/".join(["" if link.path.startswith("/") else passed, link.path, *rest])
                break
            if link is None:
                return path, "/".join(names)
            item, passed = item[part], f"{passed}/{part}"
        else:
            return path, "/".join(names)
    raise ScanFileError(f"{path}: {name} is a link to itself")


def beside(path: Path, named: str) -> Path:
    """Returns the file that a file of the same folder names; it may not be there yet.

    Raises
    ------
    OutsideError
        If it is elsewhere.
    """
    if named == HERE:
        return path
    asked = path.parent / named
    if is_within(asked, path.parent):
        return asked
    moved = path.parent / asked.name  # files that were moved together name where they were
    if asked.exists() and not moved.exists():
        raise OutsideError(
            f"{path}: frames lie in {asked}, outside of the folder of the file, and are not read from there: "
            "name that file itself"
        )
    return moved


def _sources(path: Path, dataset: Any) -> list[Place] | None:
    """Return where the frames of a virtual dataset lie, None where one frame has several sources."""
    places, frame = [], dataset.shape[1:]
    for source in dataset.virtual_sources():
        here, there = _slab(source.vspace, dataset.shape), _slab(source.src_space, (_UNLIMITED, *frame))
        if here is None or there is None or len(there) != 3 or "%b" in source.file_name:
            return None
        whole = [_Run(0, 1, n, 1) for n in frame]
        if [_joined(each) for each in here[1:]] != whole or [_joined(each) for each in there[1:]] != whole:
            return None
        numbers, rows = _joined(here[0]), _joined(there[0])
        if rows.stride != 1:
            return None
        is_endless = numbers.n_blocks >= _UNLIMITED
        n_most = None if is_endless else numbers.n_blocks * numbers.block
        places.append(
            Place(
                beside(path, source.file_name),
                source.dset_name.strip("/"),
                numbers.start,
                rows.start,
                numbers.stride,
                numbers.block,
                n_most,
            )
        )
    return places


class _Run(NamedTuple):
    """What is selected along one axis: `n_blocks` blocks of `block`, `stride` apart."""

    start: int
    stride: int
    n_blocks: int
    block: int


def _slab(space: Any, shape: tuple[int, ...]) -> list[_Run] | None:
    """Return what is selected along each axis of what has this shape, None of no regular selection."""
    if space.get_select_type() == h5py.h5s.SEL_ALL:
        return [_Run(0, 1, n, 1) for n in shape]
    if space.get_select_type() != h5py.h5s.SEL_HYPERSLABS or not space.is_regular_hyperslab():
        return None
    return [_Run(*map(int, run)) for run in zip(*space.get_regular_hyperslab(), strict=True)]


def _joined(run: _Run) -> _Run:
    """Return the same as single elements, where they follow one another."""
    if run.n_blocks == 1 or run.stride == run.block:
        return _Run(run.start, 1, run.n_blocks * run.block, 1)
    return run


def _found(path: Path, file: h5py.File) -> str:
    """Return the name of the frames in a file: as it says, where they usually are, or the only ones."""
    for name in (_by_default(path, file), *_USUAL):
        if name and _may_be_frames(path, file, name):
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


def _by_default(path: Path, file: h5py.File) -> str:
    """Return what the attributes of NeXus lead to."""
    name = ""
    for _ in range(4):
        where, inner = follow(path, file, name)
        item = file.get(inner or "/") if where == path else None
        if not isinstance(item, h5py.Group):
            break
        further = item.attrs.get("default", item.attrs.get("signal"))
        further = further.decode(errors="replace") if isinstance(further, bytes) else further
        if not isinstance(further, str):
            return ""
        name = f"{name}/{further}".lstrip("/")
    return name


def _may_be_frames(path: Path, file: h5py.File, name: str) -> bool:
    """Whether there are frames under a name, or a link to another file, which may not be there yet."""
    where, inner = follow(path, file, name)
    return where != path or _is_stack(file.get(inner))


def _is_stack(item: Any) -> bool:
    return isinstance(item, h5py.Dataset) and item.ndim == 3 and item.dtype.kind in "ui"


def is_whole(path: Path, dataset: Any) -> bool:
    """Whether all that a virtual dataset is put together from is there; what is not reads as zeros."""
    for source in dataset.virtual_sources():
        lies_in = beside(path, source.file_name)
        if lies_in == path:
            continue
        if not lies_in.exists():
            return False
        with damage_told(lies_in), h5py.File(lies_in, "r") as file:
            frames = file.get(source.dset_name)
            if not isinstance(frames, h5py.Dataset) or not frames.size:
                return False
            last = (frames.shape[0] - 1, *[0] * (frames.ndim - 1))
            if frames.chunks and frames.id.get_chunk_info_by_coord(last).byte_offset is None:
                return False
    return True
