"""Scans and results of ptychodus: a product, and the diffraction file beside it.

A product (`product.h5`, `product-in.h5`, any name; HDF5, or .npz as older versions wrote it) holds
`probe_position_indexes`, `probe_position_x_m` and `probe_position_y_m`, metres, of the probe on the sample
(pixels of the object count up with them), `probe` (coherent mode, incoherent mode, y, x; or without the
first), and as attributes, in .npz as arrays, `probe_energy_eV` or `photon_energy_eV` and
`detector_object_distance_m`. It has no patterns. They lie in the same folder, in `diffraction.h5`,
`patterns.h5` or the same as .npz: `patterns` (frame, row, col), zero frequency at the array centre, `indexes`
(frame,) and `bad_pixels` (row, col), True where invalid. A position belongs to the pattern of its index.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from operators.arrays import Positions, Probe
from operators.geometry import PLANCK_TIMES_LIGHT_EV_M, Geometry
from stream.files.arrays import read_archive
from stream.files.base import ScanFile, ScanFileError, as_modes, check_frames
from stream.files.hdf5 import FramesInFile, open_hdf5

INDEXES, X, Y = "probe_position_indexes", "probe_position_x_m", "probe_position_y_m"
ENERGIES, DISTANCE = ("probe_energy_eV", "photon_energy_eV"), "detector_object_distance_m"
WIDTHS = ("probe_pixel_width_m", "probe_pixel_height_m")  # in .npz; in HDF5 attributes of the probe
PATTERNS = "patterns"
PATTERN_FILES = ("diffraction.h5", "patterns.h5", "diffraction.npz", "patterns.npz")


def is_product(names: Any) -> bool:
    """Says whether a file with these data sets is a product."""
    return X in names and Y in names


def is_diffraction(names: Any) -> bool:
    """Says whether a file with these data sets has patterns alone."""
    return PATTERNS in names and "indexes" in names


def read_product(path: Path, product: h5py.File | Mapping[str, Any]) -> ScanFile:
    """Returns the scan of an open product, frames from the diffraction file beside it.

    Parameters
    ----------
    path : Path
        Of the product.
    product : h5py.File or mapping of arrays
        Still open when this returns.

    Raises
    ------
    ScanFileError
        If there is no diffraction file, something is missing, or the two do not fit each other.
    """
    if not _number(product, "far_field", default=1.0):
        raise ScanFileError(f"{path}: a product of near-field patterns, wanted far field")
    with ExitStack() as stack:
        contents = _patterns_beside(path, stack)
        frames = contents[PATTERNS]
        check_frames(path, frames, PATTERNS)
        bad = np.asarray(contents["bad_pixels"]) if "bad_pixels" in contents else None
        numbers = np.asarray(
            contents["indexes"] if "indexes" in contents else np.arange(len(frames)), np.int64
        )
        return ScanFile(
            frames=FramesInFile(path, frames),
            positions_m=_positions_m(path, product, numbers),
            geometry=_geometry(product, frames.shape[1]),
            told=_told(product),
            probe=_probe(path, product, frames.shape[1]),
            mask=None if bad is None else ~bad.astype(bool),
            name=path.stem,
            file=stack.pop_all(),
        )


def _patterns_beside(path: Path, stack: ExitStack) -> Any:
    """Return the arrays of the diffraction file beside the product; `stack` closes it."""
    for name in PATTERN_FILES:
        beside = path.with_name(name)
        if beside.is_file():
            is_archive = beside.suffix == ".npz"
            arrays = read_archive(beside) if is_archive else stack.enter_context(open_hdf5(beside))
            if PATTERNS in arrays:
                return arrays
    raise ScanFileError(
        f"{path}: a ptychodus product has no patterns: wanted one of {', '.join(PATTERN_FILES)} with "
        f"'{PATTERNS}' in the same folder"
    )


def _positions_m(path: Path, product: Any, numbers: NDArray[np.int64]) -> Positions:
    """Return the position of each pattern, NaN where the product has none of its index."""
    y, x = (np.asarray(product[name], np.float64) for name in (Y, X))
    indexes = np.asarray(product[INDEXES], np.int64) if INDEXES in product else np.arange(len(x))
    if not len(y) == len(x) == len(indexes):
        raise ScanFileError(f"{path}: {len(y)} and {len(x)} coordinates for {len(indexes)} positions")
    positions_m = np.full((len(numbers), 2), np.nan)
    row_of = {int(index): row for row, index in enumerate(indexes)}
    for pattern, number in enumerate(numbers.tolist()):
        if number >= 0 and number in row_of:  # patterns not there yet have the index -1
            positions_m[pattern] = y[row_of[number]], x[row_of[number]]
    if np.isnan(positions_m).all():
        raise ScanFileError(f"{path}: none of {len(numbers)} patterns has the index of a position")
    return positions_m


def _geometry(product: Any, n_pixels: int) -> Geometry | None:
    """Return the geometry whose object pixel is the product's."""
    told, width_m = _told(product), _pixel_width_m(product)
    if len(told) < 2 or not width_m:
        return None
    wavelength_m = PLANCK_TIMES_LIGHT_EV_M / told["energy_ev"]
    pitch_m = wavelength_m * told["detector_distance_m"] / (n_pixels * width_m)
    return Geometry(**told, detector_pixel_m=pitch_m, n_pixels=n_pixels)


def _told(product: Any) -> dict[str, float]:
    energy_ev = next((e for e in (_number(product, name) for name in ENERGIES) if e), None)
    found = {"energy_ev": energy_ev, "detector_distance_m": _number(product, DISTANCE)}
    return {name: value for name, value in found.items() if value}


def _pixel_width_m(product: Any) -> float | None:
    attributes = getattr(product.get("probe"), "attrs", None)
    names = WIDTHS if attributes is None else ("pixel_width_m", "pixel_height_m")
    width_m, height_m = (_number(product if attributes is None else attributes, name) for name in names)
    if width_m and height_m and not np.isclose(width_m, height_m, rtol=1e-6):
        raise ScanFileError(f"pixels of the probe are {width_m} x {height_m} m, wanted square ones")
    return width_m


def product_probe(path: Path, product: Any) -> Probe | None:
    """Returns the first coherent mode of a product's probe, (mode, y, x) complex64, None if it has none."""
    if "probe" not in product:
        return None
    probe = np.asarray(product["probe"])
    return as_modes(path, probe[0] if probe.ndim == 4 else probe, probe.shape[-1])


def _probe(path: Path, product: Any, n_pixels: int) -> Probe | None:
    probe = product_probe(path, product)
    return None if probe is None else as_modes(path, probe, n_pixels)


def _number(product: Any, name: str, default: float | None = None) -> float | None:
    """Return an attribute of a file, or a value of a mapping."""
    values = getattr(product, "attrs", product)
    return float(np.asarray(values[name]).reshape(-1)[0]) if name in values else default
