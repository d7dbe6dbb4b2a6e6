"""Tables of positions: `.npy`, and text with or without names of its columns."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stream.files.arrays import read_array

Columns = tuple[str, str]  # of y and of x: names, or numbers from 0


def read_table(path: Path, columns: Columns | None = None) -> NDArray[np.float64]:
    """Returns two columns of a table, (row, 2) float64, y first, in the file's unit.

    Parameters
    ----------
    path : Path
        .npy, or text: values apart by commas, semicolons, tabs or spaces, one row to a line. The first line,
        or one that begins with "#", may name the columns.
    columns : (str, str), optional
        Names or numbers of the columns of y and x; otherwise those called y and x, or else the only two.

    Raises
    ------
    ValueError
        Naming the file, what it holds, and what was wanted.
    """
    if path.suffix == ".npy":
        return chosen_columns(str(path), read_array(path), (), columns)
    try:
        names, rows = _read_text(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: wanted positions as numbers, .npy or text: {error}") from error
    return chosen_columns(str(path), np.array(rows, np.float64), names, columns)


def chosen_columns(
    where: str, table: NDArray, names: Sequence[str], columns: Columns | None
) -> NDArray[np.float64]:
    """Returns two columns of a table (row, column), y first, as `read_table` does; `where` is for errors."""
    if table.dtype.names:
        names = table.dtype.names
        table = np.stack([table[name] for name in names], axis=-1)
    if table.ndim != 2 or table.dtype.kind not in "uif" or table.shape[1] < 2:
        raise ValueError(
            f"{where}: wanted positions (frame, 2), y and x in columns, found {table.dtype} {table.shape}"
        )
    y, x = axis_columns(where, list(names), table.shape[1], columns)
    return np.asarray(table[:, [y, x]], np.float64)


def find_columns(where: str, wanted: Sequence[str], names: Sequence[str], n_columns: int) -> list[int]:
    """Returns which columns of a table have these names, whatever their case, or numbers from 0.

    Raises
    ------
    ValueError
        If one is missing.
    """
    lower = [name.lower() for name in names]
    found = [
        int(column) if column.isdigit() else lower.index(column.lower())
        for column in wanted
        if column.isdigit() or column.lower() in lower
    ]
    if len(found) < len(wanted) or max(found, default=0) >= n_columns:
        raise ValueError(f"{where}: wanted columns {' and '.join(wanted)}, found {_listed(names, n_columns)}")
    return found


def axis_columns(
    where: str, names: Sequence[str], n_columns: int, columns: Columns | None = None
) -> tuple[int, int]:
    """Returns which columns of a table are y and x; `columns` as `read_table` takes them.

    Raises
    ------
    ValueError
        If that is not clear.
    """
    if columns is not None:
        y, x = find_columns(where, columns, names, n_columns)
        return y, x
    ys, xs = (
        [k for k, name in enumerate(names) if axis in re.split("[^a-z]+", name.lower())] for axis in "yx"
    )
    if len(ys) == len(xs) == 1:
        return ys[0], xs[0]
    if n_columns == 2:
        return 0, 1
    found = _listed(names, n_columns)
    raise ValueError(f"{where}: found {found}: say which are y and x, by name or number (from 0)")


def _listed(names: Sequence[str], n_columns: int) -> str:
    return f"{n_columns} columns" + (f" called {', '.join(names)}" if names else "")


class TextTable:
    """A table as text, line by line.

    Attributes
    ----------
    names : list of str
        Of the columns, if a line above the numbers names them.
    n_columns : int
        0 before the first line of numbers.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.n_columns = self._n_lines = 0

    def take(self, line: str) -> list[float] | None:
        """Returns the numbers of the next line, None for one that has none: names, a comment, nothing.

        Raises
        ------
        ValueError
            If the line is no row of this table.
        """
        self._n_lines += 1
        is_comment = line.lstrip().startswith("#")
        cells = re.split(r"\s*[,;\t]\s*|\s+", line.lstrip("# ").strip().strip(",;"))
        if not any(cells) or (is_comment and self.n_columns):
            return None
        try:
            values = [float(cell) for cell in cells]
        except ValueError:
            if self.n_columns:
                shown = line.strip()[:60]
                raise ValueError(f"line {self._n_lines} is {shown!r}, wanted numbers") from None
            self.names = cells
            return None
        if is_comment:
            return None
        if self.n_columns and len(values) != self.n_columns:
            raise ValueError(
                f"line {self._n_lines} has {len(values)} values, those before it {self.n_columns}"
            )
        if not self.n_columns:
            self.n_columns = len(values)
            self.names = self.names if len(self.names) == len(values) else []
        return values


def _read_text(path: Path) -> tuple[list[str], list[list[float]]]:
    table = TextTable()
    taken = map(table.take, path.read_text(encoding="utf-8-sig").splitlines())
    rows = [values for values in taken if values is not None]
    if not rows:
        raise ValueError("there is no line of numbers")
    return table.names, rows
