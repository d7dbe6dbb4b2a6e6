"""Arrays in files of NumPy's, without pickle, and in words where there are none."""

import zlib
from pathlib import Path
from tokenize import TokenError
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

# what NumPy, zipfile and zlib raise of bytes that are not as they were written
_DAMAGES = (OSError, ValueError, EOFError, BadZipFile, zlib.error, TokenError, RuntimeError, MemoryError)


def read_array(path: Path, *, is_mapped: bool = False) -> NDArray:
    """Returns the array in a .npy file, where `is_mapped` a map of it that is read as it is sliced.

    Raises
    ------
    ValueError
        Names the file, and what is wrong with it.
    """
    try:
        array = np.load(path, mmap_mode="r" if is_mapped else None, allow_pickle=False)
    except _DAMAGES as error:
        reason = _reason(error, "it holds no array of numbers")
        raise ValueError(f"{path}: wanted a .npy file as numpy.save writes it: {reason}") from error
    if isinstance(array, np.lib.npyio.NpzFile):
        array.close()
        raise ValueError(f"{path}: wanted a .npy file with one array, found an archive of several (.npz)")  # noqa: TRY004
    return array


def read_archive(path: Path) -> dict[str, NDArray]:
    """Returns the arrays in an .npz file by name.

    Raises
    ------
    ValueError
        Names the file, and what is wrong with it.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("one array")  # noqa: TRY004
        with archive:
            # Any zip opens, and what is no array in it comes as bytes.
            arrays = {name: array for name, array in archive.items() if isinstance(array, np.ndarray)}
        if not arrays:
            raise ValueError("no array")
    except _DAMAGES as error:
        reason = _reason(error, "it is none, or damaged")
        raise ValueError(f"{path}: wanted arrays as numpy.savez writes them (.npz): {reason}") from error
    return arrays


def _reason(error: Exception, otherwise: str) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else otherwise
