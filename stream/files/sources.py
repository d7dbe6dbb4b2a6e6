"""Which files a recorded scan is read from: its own, those that HDF5 links to, patterns beside a product."""

from pathlib import Path

import h5py

from stream.files.hdf5 import damage_named, open_hdf5, sources_of
from stream.files.ptychodus import PATTERN_FILES, is_product


def files_of(path: Path) -> list[Path]:
    """Returns every file that reading the scan in `path` opens, itself included; none if there is no file.

    External links, external storage and the sources of virtual datasets are followed from file to file.

    Raises
    ------
    ScanFileError
        If an HDF5 file is damaged, or draws on one outside of its folder.
    """
    if not path.is_file():
        return []
    found = [path]
    if h5py.is_hdf5(path):
        with open_hdf5(path) as file, damage_named(path):
            found += [source.path for source in sources_of(path)]
            beside = [path.with_name(name) for name in PATTERN_FILES] if is_product(file) else []
        for other in filter(Path.is_file, beside):
            found += files_of(other)
    return list(dict.fromkeys(found))
