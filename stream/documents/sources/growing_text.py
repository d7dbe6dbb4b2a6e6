"""A table as text that grows: rows are read as they are written, half a line is waited for."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stream.documents.codec import DocumentError
from stream.files.tables import TextTable, axis_columns, find_columns

PIECE_BYTES = 1 << 20  # that are read at once
HEAD_BYTES = 256  # by which a file is known again that is written anew
LONGEST_LINE = 1 << 16


class GrowingText:
    """Reads columns of a growing text file, row by row.

    Parameters
    ----------
    path : Path
        As `stream.files.tables.read_table` takes it; opened to be read, without a lock.
    columns : sequence of str
        Names or numbers of y and x, "" for those called so, and of what else is wanted.

    Raises
    ------
    OSError
        If the file cannot be opened.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._path, self._columns = path, columns
        self._file = path.open("rb", buffering=0)
        self._table, self._indices = TextTable(), list[int]()
        self._n_bytes, self._rest, self._head = 0, b"", b""
        self._error: ValueError | None = None
        self._is_given_up = False

    def is_same(self) -> bool:
        """Whether the file goes on where it was left, and was not written anew."""
        try:
            there, held = self._path.stat(), os.fstat(self._file.fileno())
        except OSError:
            return True  # it is gone for a moment
        is_same = (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)
        head = os.pread(self._file.fileno(), len(self._head), 0)
        return is_same and there.st_size >= self._n_bytes and head == self._head

    def read(self) -> NDArray[np.float64]:
        """Returns rows that have become whole since the last time, (row, column) float64.

        Raises
        ------
        DocumentError
            If a line is no row: those after it cannot be numbered, and are not read.
        """
        if self._is_given_up:
            self._tell()
            return self._rows([])
        piece = os.pread(self._file.fileno(), PIECE_BYTES, self._n_bytes)
        if self._n_bytes < HEAD_BYTES:
            self._head += piece[: HEAD_BYTES - len(self._head)]
        self._n_bytes += len(piece)
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            self._give_up(ValueError(f"a line has more than {LONGEST_LINE} bytes"))
        rows = self._rows(lines)
        if not len(rows):
            self._tell()
        return rows

    def read_rest(self) -> NDArray[np.float64]:
        """Returns the last row, if the file ends without the end of its line and will get none."""
        rest, self._rest = self._rest, b""
        return self._rows([rest])

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _rows(self, lines: Sequence[bytes]) -> NDArray[np.float64]:
        rows: list[list[float]] = []
        try:
            for line in lines:
                row = self._table.take(line.decode("utf-8-sig", "replace"))
                if row is not None:
                    self._indices = self._indices or self._found()
                    rows.append([row[index] for index in self._indices])
        except ValueError as error:
            self._give_up(error)
        return np.array(rows, np.float64).reshape(-1, len(self._columns))

    def _found(self) -> list[int]:
        names, n_columns = self._table.names, self._table.n_columns
        y, x, *others = self._columns
        axes = axis_columns("its first row", names, n_columns, (y, x) if y else None)
        return [*axes, *find_columns("its first row", others, names, n_columns)]

    def _tell(self) -> None:
        """Raise once what is wrong with the file, after what came before it was taken."""
        error, self._error = self._error, None
        if error is not None:
            raise DocumentError(f"{self._path}: {error}; what follows it is not read") from error

    def _give_up(self, error: ValueError) -> None:
        self._error, self._is_given_up = error, True
