"""Positions out of a file that the configuration names."""

from pathlib import Path

import numpy as np

from operators.arrays import Positions
from operators.geometry import probe_positions
from stream.documents.position_reader import PositionFields
from stream.files.cxi import read_scan
from stream.files.tables import read_table


def load_positions(path: Path, fields: PositionFields) -> Positions:
    """Returns (frame, 2) float64, metres, the probe on the sample, (y, x); NaN where the file has none.

    Parameters
    ----------
    path : Path
        CXI, which says what its positions mean, or a table (`stream.files.tables.read_table`).
    fields : PositionFields
        Unit, signs and columns of a table.

    Raises
    ------
    ValueError
        If the file cannot be read as positions.
    """
    if path.suffix in (".cxi", ".h5", ".hdf5", ".ptyd"):
        with read_scan(path) as scan:
            return scan.positions_m
    if fields.unit is None:
        raise ValueError(f"{path}: say the unit of the positions (positions.unit: m, mm, um or nm)")
    raw = read_table(path, (fields.y, fields.x) if fields.y else None)
    positions_m = np.full(raw.shape, np.nan)
    is_number = np.isfinite(raw).all(axis=1)
    positions_m[is_number] = probe_positions(raw[is_number], unit=fields.unit, signs=fields.signs)
    return positions_m
