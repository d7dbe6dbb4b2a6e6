"""What every reader of recorded scans returns, and what it refuses."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from operators.arrays import Frames, Mask, Positions, Probe
from operators.geometry import Geometry


class ScanFileError(ValueError):
    """A file does not hold a scan that we can read."""


class Closable(Protocol):
    """An open file."""

    def close(self) -> None:
        """Closes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanFile:
    """A recorded scan as a file or a store has it; a context manager that closes its file.

    Attributes
    ----------
    frames : (frame, row, col) unsigned integer, counts
        Read from the file as they are sliced; zero frequency at the array centre.
    positions_m : (frame, 2) float64, metres
        Probe on the sample, (y, x); NaN where the file has none.
    geometry : Geometry or None
        None where the file does not give energy, distance and pixel size.
    probe : (mode, y, x) complex64 or None
    mask : (row, col) bool or None
        True = valid.
    name : str
    file : Closable or None
        Where the frames are; None where somebody else keeps that open.
    frame_numbers : (frame,) int64 or None
        None where the file does not number them: from 0.
    background : (row, col) float32, counts, or None
        Of a mean frame without sample.
    told : mapping of str to float
        What the file gives of the geometry, by the names of `Geometry`, where it does not give all.
    notes : tuple of str
        What a user should know of how the file was read.
    """

    frames: Frames
    positions_m: Positions
    geometry: Geometry | None
    probe: Probe | None
    mask: Mask | None
    name: str
    file: Closable | None = None
    frame_numbers: NDArray[np.int64] | None = None
    background: NDArray[np.float32] | None = None
    told: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.file is not None:
            self.file.close()


def check_frames(path: Path, frames: Any, name: str) -> None:
    """Refuses what is not a stack of square frames of real numbers.

    Raises
    ------
    ScanFileError
        Naming the file and what it holds.
    """
    if frames.ndim != 3 or frames.dtype.kind not in "uif" or frames.shape[1] != frames.shape[2]:
        raise ScanFileError(
            f"{path}: {name} is {frames.dtype} {frames.shape}, wanted square frames (frame, n, n)"
        )


def geometry_of(told: Mapping[str, float], n_pixels: int) -> Geometry | None:
    """Returns the geometry of which `told` gives energy, distance and pixel; None if one is missing."""
    if len(told) < 3:
        return None
    return Geometry(n_pixels=n_pixels, **told)


def as_modes(path: Path, probe: NDArray[Any], n_pixels: int) -> Probe:
    """Returns a probe (mode, y, x) complex64, also where the file has a single mode (y, x).

    Raises
    ------
    ScanFileError
        If it does not fit the frames.
    """
    if probe.ndim not in (2, 3) or probe.shape[-2:] != (n_pixels, n_pixels):
        raise ScanFileError(
            f"{path}: illumination has shape {probe.shape}, frames want (mode, {n_pixels}, {n_pixels})"
        )
    return probe.astype(np.complex64).reshape(-1, n_pixels, n_pixels)
