"""Which series there are where a detector writes: files or folders that match, the oldest first."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from stream.detector.files.tiff_series import TIFF

HDF5 = (".h5", ".hdf5", ".hdf", ".nxs", ".nexus", ".cxi")
_DATA_FILE = re.compile(r"(.*)_data_\d+")
_WILD = re.compile(r"[*?\[]")


def is_pattern(path: Path) -> bool:
    """Whether a path names what there will be, not one file or folder of frames."""
    return bool(_WILD.search(str(path)))


def series_at(path: Path) -> list[Path]:
    """Returns the files and folders of which each is a series, the one that began first as first.

    Parameters
    ----------
    path : Path
        A file; a folder of TIFFs, or of HDF5 files and folders of TIFFs; or a pattern of such names.

    Raises
    ------
    OSError
        If a folder cannot be listed.
    """
    found = [each for each in _matching(path) for each in _in_place(each)]
    return sorted(dict.fromkeys(found), key=_age)


def _matching(path: Path) -> Iterator[Path]:
    if not is_pattern(path):
        yield path
        return
    parts = path.parts
    wild = next(index for index, part in enumerate(parts) if _WILD.search(part))
    yield from Path(*parts[:wild]).glob(str(Path(*parts[wild:])))


def _in_place(path: Path) -> Iterator[Path]:
    """Yield the series at one place; data files belong to the master file beside them."""
    if not path.is_dir():
        master = _DATA_FILE.fullmatch(path.stem)
        if path.exists() and not (master and path.with_name(f"{master[1]}_master{path.suffix}").exists()):
            yield path
        return
    if _has_tiffs(path):
        yield path
    with os.scandir(path) as entries:  # an entry knows whether it is a folder without another look
        for entry in entries:
            if entry.name.lower().endswith(HDF5) and entry.is_file():
                yield from _in_place(Path(entry.path))
            elif entry.is_dir() and _has_tiffs(entry.path):
                yield Path(entry.path)


def _has_tiffs(folder: str | Path) -> bool:
    with os.scandir(folder) as entries:
        return any(TIFF.fullmatch(entry.name) for entry in entries)


def _age(path: Path) -> tuple[float, str]:
    try:
        return path.stat().st_mtime, path.name
    except OSError:
        return float("inf"), path.name
