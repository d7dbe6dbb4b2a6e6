"""Scans in HDF5 and NumPy files that follow no convention: the user says where things lie in them.

Frames are a stack (frame, row, col), or one of a raster (row, column, y, x), which is read row by row.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 -- registers the filters that detectors compress with
import numpy as np
from numpy.typing import NDArray

from operators.arrays import Positions
from operators.geometry import METRES_PER_UNIT, probe_positions
from stream.files.arrays import read_archive, read_array
from stream.files.base import ScanFile, ScanFileError
from stream.files.hdf5 import FramesInFile, damage_named, open_hdf5
from stream.files.tables import Columns, chosen_columns, read_table

MOST_LISTED = 12
_SPELLINGS = {"micron": "um", "microns": "um", "µm": "um", "μm": "um", "meter": "m", "metre": "m"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where things lie in a file, and what its positions mean.

    Attributes
    ----------
    data : str
        Name of the frames; "" for the only array with three or four axes.
    positions : str
        Name of an array in the file, (frame, 2) or (2, frame), or of two, y and x, apart by a comma; or the
        path of a table of its own (`stream.files.tables`). "" where the file says itself.
    unit : str
        Of the positions: m, mm, um or nm; "" for that in the attribute `units` of the array.
    columns : (str, str) or None
        Names or numbers of the columns of y and x.
    signs : (int, int) or None
        Of y and x: -1 where a motor moves the sample instead of the probe.
    """

    data: str = ""
    positions: str = ""
    unit: str = ""
    columns: Columns | None = None
    signs: tuple[int, int] | None = None


class RasterFrames:
    """The frames of a raster, (row, column, y, x), as one stack, read when they are sliced."""

    def __init__(self, raster: Any) -> None:
        self._raster, self._n_columns = raster, raster.shape[1]
        self.shape = (raster.shape[0] * raster.shape[1], *raster.shape[2:])
        self.dtype, self.ndim = raster.dtype, 3

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Returns the frames that `index` selects along the first axis."""
        numbers = np.arange(len(self))[index]
        frames = [self._raster[divmod(int(number), self._n_columns)] for number in np.atleast_1d(numbers)]
        return np.stack(frames) if np.ndim(numbers) else frames[0]


def read_plain(path: Path, layout: Layout) -> ScanFile:
    """Returns the scan whose frames lie in `path` where `layout` says; no geometry, probe or mask.

    Raises
    ------
    ValueError
        Naming the file, the arrays it has and what was wanted.
    """
    with ExitStack() as stack:
        arrays = stack.enter_context(opened_arrays(path))
        frames = _frames(path, arrays, layout.data)
        grid = (frames.shape[0], frames.shape[1]) if frames.ndim == 4 else None
        frames = FramesInFile(path, RasterFrames(frames) if grid else frames)
        positions_m = _positions_m(path, arrays, layout, len(frames), grid)
        file = stack.pop_all()
    return ScanFile(
        frames=frames,
        positions_m=positions_m,
        geometry=None,
        probe=None,
        mask=None,
        name=path.stem,
        file=file,
        notes=(f"{grid[0]} x {grid[1]} frames of a raster are read row by row",) if grid else (),
    )


def read_positions(path: Path, layout: Layout, n_frames: int) -> Positions:
    """Returns the positions of the `n_frames` frames of a scan in `path`, from where `layout` says.

    (frame, 2) float64, metres, probe on the sample, (y, x); NaN where none is known.

    Raises
    ------
    ValueError
        As `read_plain`.
    """
    if not path.is_file():
        return _positions_m(path, {}, layout, n_frames, None)
    with opened_arrays(path) as arrays:
        return _positions_m(path, arrays, layout, n_frames, None)


@contextmanager
def opened_arrays(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yields the arrays of a file by name, those of HDF5 as they lie in it, a memory map of .npy.

    Raises
    ------
    ValueError
        If the file is neither.
    """
    with ExitStack() as stack:
        if path.suffix == ".npy":
            arrays: Mapping[str, Any] = {"": read_array(path, is_mapped=True)}
        elif path.suffix == ".npz":
            arrays = read_archive(path)
        else:
            stack.enter_context(damage_named(path))
            arrays = _Datasets(stack.enter_context(open_hdf5(path)))
        yield arrays


class _Datasets(Mapping[str, h5py.Dataset]):
    """The datasets of an HDF5 file by path; links are followed where they are asked for by name."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file

    def __getitem__(self, name: str) -> h5py.Dataset:
        found = self._file.get(name)
        if not isinstance(found, h5py.Dataset):
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        names: list[str] = []
        self._file.visititems(
            lambda name, item: names.append(f"/{name}") if isinstance(item, h5py.Dataset) else None
        )
        return iter(names)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _frames(path: Path, arrays: Mapping[str, Any], name: str) -> Any:
    if name:
        if name not in arrays:
            raise ScanFileError(f"{path}: there is no array {name}; {_listed(arrays)}")
        frames = arrays[name]
    else:
        stacks = [array for array in arrays.values() if _is_stack(array)]
        if len(stacks) != 1:
            raise ScanFileError(f"{path}: say which array holds the frames, --data; {_listed(arrays)}")
        (frames,) = stacks
    if not _is_stack(frames):
        raise ScanFileError(
            f"{path}: {name or 'the array'} is {frames.dtype} {frames.shape}, "
            f"wanted frames (frame, row, col) or (row, column, y, x) of real numbers; {_listed(arrays)}"
        )
    return frames


def _is_stack(array: Any) -> bool:
    return array.ndim in (3, 4) and array.dtype.kind in "uif" and min(array.shape[-2:]) > 2


def _positions_m(
    path: Path, arrays: Mapping[str, Any], layout: Layout, n_frames: int, grid: tuple[int, int] | None
) -> Positions:
    if not layout.positions:
        raise ScanFileError(
            f"{path}: give the positions, --positions FILE or the name of an array; {_listed(arrays)}"
        )
    names = layout.positions.split(",")
    if all(name in arrays for name in names):
        where = f"{path}: {layout.positions}"
        raw, found = _raw(where, [arrays[name] for name in names], layout, grid)
    elif Path(layout.positions).is_file():
        where, found = layout.positions, ""
        raw = read_table(Path(layout.positions), layout.columns)
    else:
        raise ScanFileError(
            f"{path}: {layout.positions} is neither a file nor an array in it; {_listed(arrays)}"
        )
    if len(raw) != n_frames:
        raise ScanFileError(f"{where} has {len(raw)} positions, {path} has {n_frames} frames")
    unit = layout.unit or _SPELLINGS.get(found, found)
    if unit not in METRES_PER_UNIT:
        says = f"says {found!r}" if found else "does not say the unit of the positions"
        raise ScanFileError(f"{where} {says}: give --unit, one of {', '.join(METRES_PER_UNIT)}")
    positions_m = np.full(raw.shape, np.nan)
    known = np.isfinite(raw).all(axis=1)
    positions_m[known] = probe_positions(raw[known], unit=unit, signs=layout.signs or (1, 1))
    return positions_m


def _raw(
    where: str, found: list[Any], layout: Layout, grid: tuple[int, int] | None
) -> tuple[NDArray[np.float64], str]:
    """Return (frame, 2), y first, in the file's unit, and that unit, "" if it is not said."""
    unit = str(getattr(found[0], "attrs", {}).get("units", ""))
    parts = [np.asarray(array) for array in found]
    if len(parts) == 2:
        if grid and (parts[0].shape, parts[1].shape) == ((grid[0],), (grid[1],)):
            parts = list(np.meshgrid(*parts, indexing="ij"))
        sizes = [part.size for part in parts]
        if sizes[0] != sizes[1]:
            raise ScanFileError(f"{where}: {sizes[0]} values of y and {sizes[1]} of x")
        return np.stack([part.reshape(-1) for part in parts], axis=1).astype(np.float64), unit
    (table,) = parts
    if grid and table.ndim == 3:
        table = table.reshape(-1, table.shape[-1])
    if table.ndim == 2 and table.shape[0] in (2, 3) and table.shape[1] > 3:
        table = table.T
    return chosen_columns(where, table, (), layout.columns), unit


def _listed(arrays: Mapping[str, Any]) -> str:
    """Return the arrays that could be frames or positions, in words."""
    named = [(name, array) for name, array in arrays.items() if array.dtype.kind in "uif" and array.size > 1]
    if not named:
        return "there is no array of numbers"
    named.sort(key=lambda pair: -pair[1].size)
    shown = ", ".join(f"{name or 'the array'} {array.shape}" for name, array in named[:MOST_LISTED])
    return f"found {shown}" + (f" and {len(named) - MOST_LISTED} more" if len(named) > MOST_LISTED else "")
