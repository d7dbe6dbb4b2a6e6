"""Scans that ptypy has prepared: `.ptyd` files.

An HDF5 file with `meta/` (energy in keV, distance and psize in metres, center in pixels of a frame) and
`chunks/0`, `chunks/1` ..., each with `data` (frame, row, col), `positions` (frame, 2) in metres, (y, x) of
the probe on the sample, `indices` (frame,) and, where pixels are invalid, `weights` like `data`, zero there.
Chunks may be links to other files. Values that ptypy does not know are missing or "None". The optical axis is
where ptypy puts it unless told otherwise: at the array centre.
"""

import bisect
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from operators.arrays import Mask, Positions
from stream.files.base import ScanFile, ScanFileError, check_frames, geometry_of
from stream.files.hdf5 import FramesInFile

EV_PER_KEV = 1e3
FARTHEST_CENTRE_PX = 1.0  # from the array centre; less is a shift of the object's phase ramp


class ChunkedFrames:
    """The frames of all chunks as one stack, read when they are sliced."""

    def __init__(self, chunks: Sequence[h5py.Dataset]) -> None:
        self._chunks = chunks
        self._starts = [0, *itertools.accumulate(len(chunk) for chunk in chunks)]
        self.shape = (self._starts[-1], *chunks[0].shape[1:])
        self.dtype, self.ndim = chunks[0].dtype, chunks[0].ndim

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Returns the frames that `index` selects along the first axis."""
        numbers = np.arange(len(self))[index]
        frames = [self._frame(int(number)) for number in np.atleast_1d(numbers)]
        return np.stack(frames) if np.ndim(numbers) else frames[0]

    def _frame(self, number: int) -> NDArray[Any]:
        chunk = bisect.bisect_right(self._starts, number) - 1
        return np.asarray(self._chunks[chunk][number - self._starts[chunk]])


def is_ptyd(file: h5py.File) -> bool:
    """Says whether a file is of this format."""
    return "chunks" in file and "meta" in file


def read_ptyd(path: Path, file: h5py.File) -> ScanFile:
    """Returns the scan in an open file; its frames stay there until they are sliced.

    Raises
    ------
    ScanFileError
        If there are no chunks, or what they hold does not fit together.
    """
    chunks = [chunk for _, chunk in sorted(_items(file["chunks"]))]
    for name in ("data", "positions"):
        if not chunks or not all(isinstance(chunk.get(name), h5py.Dataset) for chunk in chunks):
            raise ScanFileError(f"{path}: wanted chunks/0, chunks/1 ... with data and positions in each")
    data = [chunk["data"] for chunk in chunks]
    for chunk in data:
        check_frames(path, chunk, chunk.name)
        if chunk.shape[1:] != data[0].shape[1:]:
            raise ScanFileError(
                f"{path}: {chunk.name} has frames of {chunk.shape[1:]}, not {data[0].shape[1:]}"
            )
    frames = ChunkedFrames(data)
    _check_centre(path, file["meta"], frames.shape[1])
    told = _told(path, file["meta"])
    return ScanFile(
        frames=FramesInFile(path, frames),
        positions_m=_positions_m(path, chunks),
        geometry=geometry_of(told, frames.shape[1]),
        told=told,
        probe=None,
        mask=_mask(path, chunks),
        name=path.stem,
        file=file,
    )


def _items(group: h5py.Group) -> list[tuple[int, h5py.Group]]:
    """Return the chunks by number, without links that lead nowhere."""
    return [(int(name), group[name]) for name in group if name.isdigit() and group.get(name) is not None]


def _positions_m(path: Path, chunks: Sequence[h5py.Group]) -> Positions:
    positions = []
    for chunk in chunks:
        values = np.asarray(chunk["positions"])
        if values.dtype.kind not in "fiu" or values.shape != (len(chunk["data"]), 2):
            raise ScanFileError(
                f"{path}: {chunk.name}/positions is {values.dtype} {values.shape}, "
                f"{len(chunk['data'])} frames want numbers ({len(chunk['data'])}, 2)"
            )
        positions.append(values.astype(np.float64))
    return np.concatenate(positions)


def _mask(path: Path, chunks: Sequence[h5py.Group]) -> Mask | None:
    """Return the pixels that are valid in every frame."""
    mask = None
    for chunk in chunks:
        weights = chunk.get("weights")
        if weights is None or not weights.size:
            continue
        if weights.shape[-2:] != chunk["data"].shape[1:]:
            raise ScanFileError(
                f"{path}: {weights.name} has shape {weights.shape}, data {chunk['data'].shape}"
            )
        for weight in weights if weights.ndim == 3 else [weights[...]]:
            mask = weight > 0 if mask is None else mask & (weight > 0)
    return mask


def _told(path: Path, meta: h5py.Group) -> dict[str, float]:
    energy, distance, pitch = (_numbers(meta, name) for name in ("energy", "distance", "psize"))
    if pitch.size and pitch.min() != pitch.max():
        raise ScanFileError(f"{path}: meta/psize is {pitch.tolist()} m, wanted square pixels")
    found = {
        "energy_ev": energy * EV_PER_KEV,
        "detector_distance_m": distance,
        "detector_pixel_m": pitch,
    }
    return {name: float(values[0]) for name, values in found.items() if values.size}


def _check_centre(path: Path, meta: h5py.Group, n_pixels: int) -> None:
    centre = _numbers(meta, "center")
    if centre.size and np.abs(centre - n_pixels // 2).max() > FARTHEST_CENTRE_PX:
        raise ScanFileError(
            f"{path}: meta/center is {centre.tolist()}, wanted the optical axis at the array centre, "
            f"{n_pixels // 2}: prepare the frames with ptypy's `shape` and `center`"
        )


def _numbers(meta: h5py.Group, name: str) -> NDArray[np.float64]:
    """Return a value of `meta` as (value,), empty where ptypy does not know it or has a word for it."""
    values = np.asarray(meta[name][()]) if isinstance(meta.get(name), h5py.Dataset) else np.empty(0)
    return values.reshape(-1).astype(np.float64) if values.dtype.kind in "fiu" else np.empty(0)
