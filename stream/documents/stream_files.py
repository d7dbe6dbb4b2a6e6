"""HDF5 files that documents name: where they lie here, and what of them is written by now."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard
from urllib.parse import unquote, urlsplit

import h5py
import numpy as np
from numpy.typing import NDArray

from stream.documents.codec import Document, DocumentError
from stream.files.base import ScanFileError
from stream.files.hdf5 import OutsideError, open_growing
from stream.wire.foreign import in_short, printable

MIMETYPE = "application/x-hdf5"
MAX_CHARACTERS = 4096  # of a path, and of the name of a dataset
MOST_SHOWN = 200  # of a path, in a sentence
MAX_CHUNK_BYTES = 2**28  # HDF5 unpacks a whole chunk to read one value of it


class NotYetError(Exception):
    """What a document promised cannot be read yet; the text says why."""


class Dataset(NamedTuple):
    """One value per capture, in a file."""

    path: Path
    name: str
    column: int | None = None  # of a dataset with several, (capture, column)

    def __str__(self) -> str:
        column = "" if self.column is None else f", column {self.column}"
        return f"{self.path}, dataset {self.name}{column}"


class StreamFiles:
    """Says which files documents may name, and finds them.

    Parameters
    ----------
    folders : sequence of Path
        Files in these and below are read, no others: whoever reaches the socket could name any.
    root_map : mapping of str to Path
        Folders as the documents name them, and as they are mounted here; these are read as well.
    """

    def __init__(self, folders: Sequence[Path] = (), root_map: Mapping[str, Path] | None = None) -> None:
        self._roots = {_plain(root): folder for root, folder in (root_map or {}).items()}
        self._allowed = [folder.resolve() for folder in (*folders, *self._roots.values())]

    def dataset(self, resource: Document) -> Dataset:
        """Returns what a `stream_resource` document names.

        Raises
        ------
        DocumentError
            If it names no dataset of an HDF5 file, or one outside of the folders.
        """
        mimetype, parameters = resource.get("mimetype"), resource.get("parameters")
        if not isinstance(mimetype, str) or mimetype != MIMETYPE:
            raise DocumentError(f"stream_resource of type {in_short(mimetype)}: wanted {MIMETYPE}")
        name = parameters.get("dataset") if isinstance(parameters, dict) else None
        if not (_is_name(name) and name.strip("/")):
            raise DocumentError(
                f"stream_resource with parameters {in_short(parameters)}: wanted the name of a 'dataset'"
            )
        return Dataset(self._path(resource.get("uri")), name)

    def _path(self, uri: Any) -> Path:
        try:
            parts = urlsplit(uri if _is_name(uri) else "")
            named = unquote(parts.path, errors="strict")
        except ValueError:
            parts, named = urlsplit(""), ""
        if parts.scheme != "file" or not named.startswith("/") or not _is_name(named):
            raise DocumentError(f"stream_resource with uri {in_short(uri)}: wanted file://host/path")
        # realpath: neither ".." nor a symlink leads out of the folders
        path = Path(os.path.realpath(self._mounted(named)))
        if any(path.is_relative_to(folder) for folder in self._allowed):
            return path
        allowed = ", ".join(map(str, self._allowed)) or "none so far"
        raise DocumentError(
            f"{printable(str(path), MOST_SHOWN)} is in none of the folders from which files of documents are "
            f"read ({printable(allowed, MOST_SHOWN // 2)}): name its folder in positions.folders, or in "
            "positions.root_map where that is mounted here"
        )

    def _mounted(self, named: str) -> Path:
        plain = _plain(named)
        for root in sorted(self._roots, key=len, reverse=True):
            if plain == root or plain.startswith(f"{root}/") or not root:
                return self._roots[root] / plain[len(root) :].lstrip("/")
        return Path(named)


def read_captures(dataset: Dataset, first: int, stop: int) -> NDArray[np.float64]:
    """Returns values `first` to `stop`, float64, as many of them as are written; `open_captures` raises."""
    with open_captures(dataset) as item:
        return values_in(dataset, item, first, stop)


def values_in(dataset: Dataset, item: Any, first: int, stop: int) -> NDArray[np.float64]:
    """Returns values `first` to `stop` of what `open_captures` gives, float64."""
    column = () if dataset.column is None else (dataset.column,)
    return np.asarray(item[(slice(first, stop), *column)], np.float64).reshape(-1)


@contextmanager
def open_captures(dataset: Dataset) -> Iterator[Any]:
    """Gives an h5py dataset as it is by now; the file may be growing, and is read without locks.

    Raises
    ------
    NotYetError
        If there is no such file or dataset yet, or its writer does not share it.
    DocumentError
        If it is there and holds something else than one number per capture.
    """
    try:
        # A pipe or a device would never end.
        if not dataset.path.is_file():
            raise NotYetError(f"there is no file {dataset.path}")
        with open_growing(dataset.path, dataset.name) as item:
            if item is None:
                raise NotYetError(f"{dataset.path} has no dataset {dataset.name}")
            _check(dataset, item)
            yield item
    except OutsideError as error:
        raise DocumentError(str(error)) from error
    except ScanFileError as error:
        raise NotYetError(str(error)) from error
    except OSError as error:  # of the file system: a folder that may not be entered, a mount that is gone
        raise NotYetError(f"{dataset.path}: {error.strerror or error}") from error


def _check(dataset: Dataset, item: Any) -> None:
    if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "iufb":
        raise DocumentError(f"{dataset} holds no numbers")
    if dataset.column is not None:
        if item.ndim != 2 or item.shape[1] <= dataset.column:
            raise DocumentError(f"{dataset} has shape {item.shape}: wanted columns")
    elif item.ndim == 0 or any(length != 1 for length in item.shape[1:]):
        raise DocumentError(f"{dataset} has shape {item.shape}: wanted one value per capture")
    if item.chunks and int(np.prod(item.chunks)) * item.dtype.itemsize > MAX_CHUNK_BYTES:
        raise DocumentError(f"{dataset} has chunks of {item.chunks}: wanted at most {MAX_CHUNK_BYTES} bytes")


def _plain(path: str) -> str:
    """Return a path as two systems may write it: with slashes, none of them first or last."""
    return path.replace("\\", "/").strip("/")


def _is_name(value: Any) -> TypeGuard[str]:
    return (
        isinstance(value, str)
        and 0 < len(value) <= MAX_CHARACTERS
        and value.isprintable()  # neither a zero byte nor half a character
    )
