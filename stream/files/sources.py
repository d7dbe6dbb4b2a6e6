"""Which files a recorded scan is read from: its own, those that HDF5 links to, patterns beside a product."""

from collections.abc import Iterator
from pathlib import Path

import h5py

from stream.files.hdf5 import open_hdf5
from stream.files.ptychodus import PATTERN_FILES, is_product

HERE = "."  # as HDF5 calls the file itself, where it names the sources of a virtual dataset


def files_of(path: Path) -> list[Path]:
    """Returns every file that reading the scan in `path` opens, itself included; none if there is no file.

    External links, external storage and the sources of virtual datasets are followed from file to file.
    """
    found: list[Path] = []
    waiting = [path] if path.is_file() else []
    while waiting:
        one = waiting.pop()
        if one in found:
            continue
        found.append(one)
        if h5py.is_hdf5(one):
            with open_hdf5(one) as file:
                waiting += [one.parent / name for name in _named_in(file, set()) if name != HERE]
                waiting += [one.with_name(name) for name in PATTERN_FILES] if is_product(file) else []
        waiting = [other for other in waiting if other.is_file()]
    return found


def _named_in(group: h5py.Group, seen: set[object]) -> Iterator[str]:
    """Yield the names of other files that a group and all below it draw on."""
    if group.id in seen:  # a hard link to a group above it
        return
    seen.add(group.id)
    for name in group:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            yield link.filename
        elif isinstance(link, h5py.HardLink):
            item = group[name]
            if isinstance(item, h5py.Group):
                yield from _named_in(item, seen)
            elif isinstance(item, h5py.Dataset):
                yield from (file for file, _, _ in item.external or ())
                yield from (source.file_name for source in item.virtual_sources()) if item.is_virtual else ()
