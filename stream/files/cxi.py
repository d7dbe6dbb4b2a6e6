"""Recorded scans as other programs write them: whichever format it is, and CXI.

A file's conventions are not ours: here sample motion becomes probe motion, joules become electronvolts and a
mask of defects becomes one of valid pixels.
"""

import zipfile
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 -- registers the filters that detectors compress with
import numpy as np
from numpy.typing import NDArray

from operators.arrays import Probe
from operators.geometry import PLANCK_TIMES_LIGHT_EV_M
from stream.files.arrays import read_archive
from stream.files.base import ScanFile, ScanFileError, as_modes, check_frames, geometry_of
from stream.files.hdf5 import FramesInFile, damage_named, open_hdf5
from stream.files.ptychodus import is_diffraction, is_product, product_probe, read_product
from stream.files.ptypy import is_ptyd, read_ptyd

__all__ = ["JOULES_PER_EV", "ScanFile", "ScanFileError", "read_illumination", "read_scan"]

JOULES_PER_EV = 1.602176634e-19
ENTRY = "entry_1"
FRAMES = ("instrument_1/detector_1/data", "data_1/data")
TRANSLATION = ("sample_1/geometry_1/translation", "data_1/translation", "instrument_1/detector_1/translation")
DISTANCE, PITCH = "instrument_1/detector_1/distance", "instrument_1/detector_1/{}_pixel_size"
ENERGY, WAVELENGTH = "instrument_1/source_1/energy", "instrument_1/source_1/wavelength"
PROBE, MASK = "instrument_1/source_1/illumination", "instrument_1/detector_1/mask"
BACKGROUND = "instrument_1/detector_1/background"  # ours: CXI has no name for what is still to subtract


def read_scan(path: Path) -> ScanFile:
    """Returns the scan in a file; its frames stay in the file until they are sliced.

    Parameters
    ----------
    path : Path
        CXI, ptypy's .ptyd, or a product of ptychodus (.h5 or .npz) beside its diffraction file; what it is
        is told by its content.

    Raises
    ------
    ScanFileError
        If it is none of them, or frames or positions are missing or do not fit each other.
    """
    if path.suffix == ".npz":
        return _read_npz(path)
    file = open_hdf5(path)
    try:
        with damage_named(path):
            return _read_hdf5(path, file)
    except BaseException:
        file.close()
        raise


def is_scan(path: Path) -> bool:
    """Says whether `read_scan` knows what a file is; whether it reads it may depend on what is missing."""
    if path.suffix == ".npz":
        return zipfile.is_zipfile(path) and is_product(read_archive(path))
    if not h5py.is_hdf5(path):
        return False
    with open_hdf5(path) as file, damage_named(path):
        return is_ptyd(file) or is_product(file) or is_diffraction(file) or ENTRY in file


def read_illumination(path: Path) -> Probe | None:
    """Returns the probe in a file that `read_scan` reads, or in a result, which has no frames.

    (mode, y, x) complex64; None if there is none.

    Raises
    ------
    ScanFileError
        If the file is neither.
    """
    if path.suffix != ".npz":
        with open_hdf5(path) as file, damage_named(path):
            probe = file.get(f"{ENTRY}/{PROBE}")
            if probe is not None:
                return as_modes(path, np.asarray(probe), probe.shape[-1])
            if is_product(file):
                return product_probe(path, file)
    with read_scan(path) as scan:
        return scan.probe


def _read_hdf5(path: Path, file: h5py.File) -> ScanFile:
    if is_ptyd(file):
        return read_ptyd(path, file)
    if is_product(file):
        with file:
            return read_product(path, file)
    if is_diffraction(file):
        raise ScanFileError(f"{path}: patterns without positions; name the ptychodus product beside it")
    return _read_entry(path, file)


def _read_npz(path: Path) -> ScanFile:
    arrays = read_archive(path)
    if is_product(arrays):
        return read_product(path, arrays)
    found = ", ".join(arrays)
    raise ScanFileError(f"{path}: wanted probe_position_x_m of a ptychodus product, found {found}")


def _read_entry(path: Path, file: h5py.File) -> ScanFile:
    entry = file.get(ENTRY)
    if entry is None:
        raise ScanFileError(
            f"{path}: wanted the group '{ENTRY}' of a CXI file, chunks and meta of a .ptyd file or "
            f"probe_position_x_m of a ptychodus product, found {', '.join(file)}"
        )
    frames = _first(path, entry, FRAMES)
    check_frames(path, frames, frames.name)
    translation = _first(path, entry, TRANSLATION)[()]
    if np.asarray(translation).dtype.kind not in "iuf":
        raise ScanFileError(f"{path}: translation holds {translation!r}, wanted numbers")
    translation = np.asarray(translation, np.float64)
    if translation.ndim != 2 or translation.shape[1] < 2 or len(translation) != len(frames):
        raise ScanFileError(
            f"{path}: translation has shape {translation.shape}, {len(frames)} frames want ({len(frames)}, 3)"
        )
    told = _told(entry)
    return ScanFile(
        frames=FramesInFile(path, frames),
        # CXI gives the motion of the sample, (x, y, z); the probe moves the other way on it.
        positions_m=-translation[:, [1, 0]],
        geometry=geometry_of(told, frames.shape[1]),
        told=told,
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
    raise ScanFileError(
        f"{path}: wanted one of {', '.join(f'{entry.name}/{name}' for name in names)}; where it has them "
        "elsewhere, name them: --data, --positions"
    )


def _told(entry: h5py.Group) -> dict[str, float]:
    pitch_x_m, pitch_y_m = (_number(entry, PITCH.format(axis)) for axis in "xy")
    if None not in (pitch_x_m, pitch_y_m) and pitch_x_m != pitch_y_m:
        raise ScanFileError(
            f"{entry.file.filename}: pixels of {pitch_x_m} x {pitch_y_m} m, wanted square ones"
        )
    found = {
        "energy_ev": _energy_ev(entry),
        "detector_distance_m": _number(entry, DISTANCE),
        "detector_pixel_m": pitch_x_m if pitch_y_m is not None else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _energy_ev(entry: h5py.Group) -> float | None:
    energy_j, wavelength_m = _number(entry, ENERGY), _number(entry, WAVELENGTH)
    if energy_j:
        return energy_j / JOULES_PER_EV
    return PLANCK_TIMES_LIGHT_EV_M / wavelength_m if wavelength_m else None


def _number(entry: h5py.Group, name: str) -> float | None:
    """Return a positive number, None where there is none or zero stands for it."""
    value = np.asarray(entry[name][()]).reshape(-1) if name in entry else np.zeros(1)
    if value.dtype.kind not in "iuf" or not value.size or not 0 <= value[0] < np.inf:
        shown = value[0] if value.size else "nothing"
        raise ScanFileError(
            f"{entry.file.filename}: {entry.name}/{name} is {shown}, wanted a positive number"
        )
    return float(value[0]) or None


def _probe(path: Path, entry: h5py.Group, n_pixels: int) -> Probe | None:
    if PROBE not in entry:
        return None
    return as_modes(path, np.asarray(entry[PROBE]), n_pixels)


def _background(path: Path, entry: h5py.Group, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    if BACKGROUND not in entry:
        return None
    background = np.asarray(entry[BACKGROUND], np.float32)
    if background.shape != shape:
        raise ScanFileError(f"{path}: background has shape {background.shape}, frames have {shape}")
    return background
