"""Datasets of an HDF5 file that grow: read as their writer shares them (SWMR), or when it is closed."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stream.documents.stream_files import Dataset, NotYetError, open_captures, values_in
from stream.files.cxi import ENTRY, TRANSLATION

ROWS_AT_ONCE = 1 << 16
SETTLED_S = 1.0  # longer than a tick of any file system's clock


class GrowingDatasets:
    """Reads datasets of one file side by side, row by row.

    Parameters
    ----------
    path : Path
    columns : sequence of str
        Datasets of y and x and of what else is wanted; `NAME:k` is column k of a dataset (row, column).
        Without names a CXI file's translation is read, as positions of the probe.
    clock : callable
        Wall clock, seconds, as the times of files are.

    Raises
    ------
    OSError
        If there is no such file.
    """

    def __init__(self, path: Path, columns: Sequence[str], clock: Callable[[], float] = time.time) -> None:
        self._path, self._is_cxi, self._clock = path, not columns[0], clock
        self._datasets = [[_dataset(path, column)] for column in columns if column]
        if self._is_cxi:
            self._datasets[:0] = [
                [Dataset(path, f"{ENTRY}/{name}", column) for name in TRANSLATION] for column in (1, 0)
            ]
        self._n_rows, self._head = 0, np.zeros(0)
        self._identity = _identity(path)
        self._seen_ns, self._is_rewritten = (0, 0), False

    def is_same(self) -> bool:
        """Whether the file goes on where it was left, and was not written anew."""
        try:
            return not self._is_rewritten and _identity(self._path) == self._identity
        except OSError:
            return True  # it is gone for a moment

    def read(self) -> NDArray[np.float64]:
        """Returns rows that have come since the last time, (row, column) float64, up to the last of numbers.

        Raises
        ------
        NotYetError
            If they cannot be read by now.
        DocumentError
            If they are something else than numbers.
        """
        nothing = np.zeros((0, len(self._datasets)))
        status = self._path.stat()
        now_ns = status.st_mtime_ns, status.st_size
        if now_ns == self._seen_ns and self._clock() - status.st_mtime > SETTLED_S:
            return nothing
        stop = self._n_rows + ROWS_AT_ONCE
        with ExitStack() as held:
            items = [
                (one, held.enter_context(open_captures(one))) for one in map(self._there, self._datasets)
            ]
            n_rows = min(len(item) for _, item in items)
            head = np.concatenate([values_in(one, item, 0, 1) for one, item in items])
            values = [values_in(one, item, self._n_rows, min(stop, n_rows)) for one, item in items]
        is_head_new = bool(self._n_rows) and self._head.size and not np.array_equal(head, self._head)
        if n_rows < self._n_rows or is_head_new:
            self._is_rewritten = True
            return nothing
        rows = np.stack(values, axis=-1)
        if self._is_cxi:  # it has the motion of the sample
            rows[:, :2] *= -1
        # Room that was made beforehand is filled with what is no number.
        is_written = np.isfinite(rows[:, :2]).all(axis=1)
        rows = rows[: int(np.flatnonzero(is_written)[-1]) + 1 if is_written.any() else 0]
        self._n_rows += len(rows)
        if self._n_rows:
            self._head = head
        if self._n_rows < stop:
            self._seen_ns = now_ns
        return rows

    def read_rest(self) -> NDArray[np.float64]:
        """Returns nothing: there are no half rows."""
        return np.zeros((0, len(self._datasets)))

    def close(self) -> None:
        """Has nothing to close: the file is open while it is read."""

    def _there(self, datasets: Sequence[Dataset]) -> Dataset:
        """Return the first that is in the file, of those that may be."""
        for dataset in datasets[:-1]:
            try:
                with open_captures(dataset):
                    return dataset
            except NotYetError:
                continue
        return datasets[-1]


def _dataset(path: Path, column: str) -> Dataset:
    name, colon, index = column.rpartition(":")
    return Dataset(path, name, int(index)) if colon and index.isdigit() else Dataset(path, column)


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
