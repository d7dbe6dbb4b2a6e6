"""An HDF5 file that is read, and in words why it cannot be."""

import os
from pathlib import Path

import h5py

from stream.files.base import ScanFileError

# what the library's messages hold, and what they mean
_MEANINGS = {
    "signature": "it is no HDF5 file",
    "truncated": "its end is missing, as if it were still copied or its writer had died",
    "lock": "another program has it open to write",
}


def open_hdf5(path: Path) -> h5py.File:
    """Returns the file, open to be read.

    Raises
    ------
    ScanFileError
        Naming the file and what is wrong with it.
    """
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ScanFileError(f"{path}: {why_unread(error)}") from error


def why_unread(error: OSError) -> str:
    """Returns why HDF5 could not open or read something, without the words of its library."""
    told = str(error)
    known = next((meaning for words, meaning in _MEANINGS.items() if words in told), None)
    if known is not None:
        return known
    return os.strerror(error.errno) if error.errno else "HDF5 cannot read it: it is damaged"
