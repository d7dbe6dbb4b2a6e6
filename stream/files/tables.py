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
    y, x = _indices(where, table.shape[1], list(names), columns)
    return np.asarray(table[:, [y, x]], np.float64)


def _indices(where: str, n_columns: int, names: list[str], columns: Columns | None) -> tuple[int, int]:
    found = f"{n_columns} columns" + (f" called {', '.join(names)}" if names else "")
    if columns is not None:
        lower = [name.lower() for name in names]
        chosen = [
            int(c) if c.isdigit() else lower.index(c.lower())
            for c in columns
            if c.isdigit() or c.lower() in lower
        ]
        if len(chosen) < 2 or max(chosen) >= n_columns:
            raise ValueError(f"{where}: wanted columns {' and '.join(columns)}, found {found}")
        return chosen[0], chosen[1]
    y, x = ([k for k, name in enumerate(names) if axis in re.split("[^a-z]+", name.lower())] for axis in "yx")
    if len(y) == len(x) == 1:
        return y[0], x[0]
    if n_columns == 2:
        return 0, 1
    raise ValueError(f"{where}: found {found}: say which are y and x, by name or number (from 0)")


def _read_text(path: Path) -> tuple[list[str], list[list[float]]]:
    names: list[str] = []
    rows: list[list[float]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        cells = re.split(r"\s*[,;\t]\s*|\s+", line.lstrip("# ").strip().strip(",;"))
        if not any(cells) or (line.lstrip().startswith("#") and rows):
            continue
        try:
            values = [float(cell) for cell in cells]
        except ValueError:
            if rows:
                raise ValueError(f"line {number} is {line.strip()[:60]!r}, wanted numbers") from None
            names = cells
            continue
        if line.lstrip().startswith("#"):
            continue
        if rows and len(values) != len(rows[0]):
            raise ValueError(f"line {number} has {len(values)} values, those before it {len(rows[0])}")
        rows.append(values)
    if not rows:
        raise ValueError("there is no line of numbers")
    return (names if len(names) == len(rows[0]) else []), rows
