"""Recorded scans in CXI files, as other programs write them.

Separate because a file's conventions are not ours: here sample motion becomes probe motion, joules become
electronvolts and a mask of defects becomes one of valid pixels. Called by `replay`, `reconstruct`, the
positions stage and configuration.
"""

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import hdf5plugin  # noqa: F401 -- registers the filters that detectors compress with
import numpy as np
from numpy.typing import NDArray

from operators.arrays import Frames, Mask, Positions, Probe
from operators.geometry import PLANCK_TIMES_LIGHT_EV_M, Geometry

JOULES_PER_EV = 1.602176634e-19
ENTRY = "entry_1"
FRAMES = ("instrument_1/detector_1/data", "data_1/data")
TRANSLATION = ("sample_1/geometry_1/translation", "data_1/translation", "instrument_1/detector_1/translation")
DISTANCE, PITCH = "instrument_1/detector_1/distance", "instrument_1/detector_1/{}_pixel_size"
ENERGY, WAVELENGTH = "instrument_1/source_1/energy", "instrument_1/source_1/wavelength"
PROBE, MASK = "instrument_1/source_1/illumination", "instrument_1/detector_1/mask"
BACKGROUND = "instrument_1/detector_1/background"  # ours: CXI has no name for what is still to subtract


class ScanFileError(ValueError):
    """A file does not hold a scan that we can read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanFile:
    """A recorded scan; a context manager that closes its file.

    Attributes
    ----------
    frames : (frame, row, col) unsigned integer, counts
        Read from the file as they are sliced; zero frequency at the array centre.
    positions_m : (frame, 2) float64, metres
        Probe on the sample, (y, x).
    geometry : Geometry or None
        None where the file does not give energy, distance and pixel size.
    probe : (mode, y, x) complex64 or None
    mask : (row, col) bool or None
        True = valid.
    background : (row, col) float32, counts, or None
        Of a mean frame without sample.
    name : str
    file : h5py.File
    """

    frames: Frames
    positions_m: Positions
    geometry: Geometry | None
    probe: Probe | None
    mask: Mask | None
    background: NDArray[np.float32] | None
    name: str
    file: h5py.File

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()


def read_scan(path: Path) -> ScanFile:
    """Returns the scan in a CXI file; its frames stay in the file until they are sliced.

    Raises
    ------
    ScanFileError
        If the file is not HDF5, or frames or positions are missing or do not fit each other.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ScanFileError(f"{path}: wanted a CXI (HDF5) file: {error}") from error
    try:
        return _read_entry(path, file)
    except BaseException:
        file.close()
        raise


def _read_entry(path: Path, file: h5py.File) -> ScanFile:
    entry = file.get(ENTRY)
    if entry is None:
        raise ScanFileError(f"{path}: wanted the group '{ENTRY}' of a CXI file, found {', '.join(file)}")
    frames = _first(path, entry, FRAMES)
    if frames.ndim != 3 or frames.dtype.kind not in "uif" or frames.shape[1] != frames.shape[2]:
        raise ScanFileError(
            f"{path}: {frames.name} is {frames.dtype} {frames.shape}, wanted square frames (frame, n, n)"
        )
    translation = np.asarray(_first(path, entry, TRANSLATION), np.float64)
    if translation.ndim != 2 or translation.shape[1] < 2 or len(translation) != len(frames):
        raise ScanFileError(
            f"{path}: translation has shape {translation.shape}, {len(frames)} frames want ({len(frames)}, 3)"
        )
    return ScanFile(
        frames=frames,
        # CXI gives the motion of the sample, (x, y, z); the probe moves the other way on it.
        positions_m=-translation[:, [1, 0]],
        geometry=_geometry(entry, frames.shape[1]),
        probe=_probe(path, entry, frames.shape[1]),
        mask=None if MASK not in entry else np.asarray(entry[MASK]) == 0,
        background=_background(path, entry, frames.shape[1:]),
        name=path.stem,
        file=file,
    )


def _first(path: Path, entry: h5py.Group, names: tuple[str, ...]) -> h5py.Dataset:
    for name in names:
        if isinstance(entry.get(name), h5py.Dataset):
            return entry[name]
    raise ScanFileError(f"{path}: wanted one of {', '.join(f'{entry.name}/{name}' for name in names)}")


def _geometry(entry: h5py.Group, n_pixels: int) -> Geometry | None:
    energy_ev = _energy_ev(entry)
    values = [_number(entry, DISTANCE), *(_number(entry, PITCH.format(axis)) for axis in "xy")]
    if energy_ev is None or None in values:
        return None
    distance_m, pitch_x_m, pitch_y_m = values
    if pitch_x_m != pitch_y_m:
        raise ScanFileError(
            f"{entry.file.filename}: pixels of {pitch_x_m} x {pitch_y_m} m, wanted square ones"
        )
    return Geometry(
        energy_ev=energy_ev, detector_distance_m=distance_m, detector_pixel_m=pitch_x_m, n_pixels=n_pixels
    )


def _energy_ev(entry: h5py.Group) -> float | None:
    energy_j, wavelength_m = _number(entry, ENERGY), _number(entry, WAVELENGTH)
    if energy_j:
        return energy_j / JOULES_PER_EV
    return PLANCK_TIMES_LIGHT_EV_M / wavelength_m if wavelength_m else None


def _number(entry: h5py.Group, name: str) -> Any:
    return float(np.asarray(entry[name]).reshape(-1)[0]) if name in entry else None


def _probe(path: Path, entry: h5py.Group, n_pixels: int) -> Probe | None:
    if PROBE not in entry:
        return None
    probe = np.asarray(entry[PROBE], np.complex64)
    if probe.ndim not in (2, 3) or probe.shape[-2:] != (n_pixels, n_pixels):
        raise ScanFileError(
            f"{path}: illumination has shape {probe.shape}, frames want (mode, {n_pixels}, {n_pixels})"
        )
    return probe.reshape(-1, n_pixels, n_pixels)


def _background(path: Path, entry: h5py.Group, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    if BACKGROUND not in entry:
        return None
    background = np.asarray(entry[BACKGROUND], np.float32)
    if background.shape != shape:
        raise ScanFileError(f"{path}: background has shape {background.shape}, frames have {shape}")
    return background
