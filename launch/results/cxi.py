"""Results as CXI, with everything another program needs.

It follows version 1.6 with the names PyNX gives to results. Probe and object also are CXI's own `image_1` and
`image_2`, by links to the same arrays: ptychodus looks for a product there.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from launch.results.reconstruction import Reconstruction
from launch.results.resolution import resolution_figures
from operators.arrays import Positions, abs2
from operators.geometry import Bounds, Geometry
from operators.metrics.errors import FRC
from stream.atomic import replacing
from stream.files.cxi import JOULES_PER_EV
from stream.files.hdf5 import open_hdf5, why_unread

DESCRIPTION = (
    "Object and probe by ptychostream. Translations are the motion of the sample, as CXI has them: on the "
    "sample the probe moves by minus as much, in x and in y."
)
FRC_FIELDS = ("frequency", "correlation", "n_pixels")


def write_cxi(path: Path, result: Reconstruction, provenance: Mapping[str, Any]) -> None:
    """Writes `result`; the file appears when it is complete.

    Parameters
    ----------
    path : Path
    result : Reconstruction
    provenance : mapping
        Plain values that say how it was made: run, model, configuration, epochs, frames ...
    """
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file["cxi_version"], file["number_of_entries"] = 160, 1
        file.attrs.update(default="entry_1", creator="ptychostream")
        entry = _group(file, "entry_1", "NXentry")
        entry["title"] = str(provenance.get("scan", path.stem))
        entry["experiment_description"] = DESCRIPTION
        entry["start_time"] = datetime.now(UTC).isoformat()
        entry["program_name"] = f"ptychostream {version('ptychostream')}"
        _write_instrument(entry, result)
        _write_positions(entry, result)
        _write_results(entry, result)
        _write_images(entry, result)
        _write_scan_maps(entry, result)
        _write_process(entry, result, provenance)


def add_halves(path: Path, halves: FRC) -> dict[str, Any]:
    """Adds the agreement of halves to a result, and returns the figures of the resolution that it now has.

    Raises
    ------
    ValueError
        If the file is not a result of ptychostream.
    """
    figures = resolution_figures(halves, read_result(path).geometry.object_pixel_m)
    with replacing(path) as temporary:
        shutil.copyfile(path, temporary)
        with h5py.File(temporary, "r+") as file:
            process = file["entry_1/process_1"]
            for name in ("frc", *figures):
                process.pop(name, None)
            _write_halves(process, halves)
            _write_values(process, figures)
    return figures


def read_result(path: Path) -> Reconstruction:
    """Returns what `write_cxi` wrote.

    Raises
    ------
    ValueError
        If the file is not a result of ptychostream.
    """
    with _opened(path) as entry:
        detector, source = entry["instrument_1/detector_1"], entry["instrument_1/source_1"]
        object_result, probe = entry["result_1"], entry["result_2/data"][...]
        return Reconstruction(
            object=object_result["data"][...],
            bounds=Bounds(*(int(edge) for edge in object_result["bounds"])),
            probe=probe,
            photons=object_result["photons"][...],
            positions_m=-entry["sample_1/geometry_1/translation"][...][:, [1, 0]],
            frame_numbers=entry["sample_1/geometry_1/frame_number"][...],
            geometry=Geometry(
                energy_ev=float(source["energy"][()]) / JOULES_PER_EV,
                detector_distance_m=float(detector["distance"][()]),
                detector_pixel_m=float(detector["x_pixel_size"][()]),
                n_pixels=probe.shape[-1],
            ),
            error_history=_read_errors(entry["process_1"]),
            maps={name: data[...] for name, data in object_result["maps"].items()},
            halves=_read_halves(entry["process_1"]),
            moments=entry["scan_maps/moments"][...] if "scan_maps" in entry else None,
            travel_m=_read_motion(entry, "travel", -1),
            spread_m=_read_motion(entry, "spread", 1),
        )


def read_halves(path: Path) -> FRC | None:
    """Returns the agreement of halves of the result in `path`, and nothing else of it; None if it has none.

    Raises
    ------
    ValueError
        If the file is not a result of ptychostream.
    """
    with _opened(path) as entry:
        return _read_halves(entry["process_1"])


@contextmanager
def _opened(path: Path) -> Iterator[h5py.Group]:
    """Yields the entry of a result; ValueError if there is none, or a part of it is missing."""
    with open_hdf5(path) as file:
        try:
            yield file["entry_1"]
        except KeyError as error:
            raise ValueError(f"{path}: wanted a result written by ptychostream, found other HDF5") from error
        except OSError as error:
            raise ValueError(f"{path}: {why_unread(error)}") from error


def _read_motion(entry: h5py.Group, name: str, sign: int) -> Positions | None:
    """Return (frame, 2), (y, x), what is on record of the captures of a frame."""
    recorded = entry.get(f"sample_1/geometry_1/{name}")
    return None if recorded is None else sign * recorded[...][:, [1, 0]]


def _read_errors(process: h5py.Group) -> np.ndarray:
    """Return the error of every epoch; the first files have it under what is the name of a figure now."""
    return process["error_history" if "error_history" in process else "amplitude_error"][...]


def _read_halves(process: h5py.Group) -> FRC | None:
    if "frc" not in process:
        return None
    return FRC(**{name: process["frc"][name][...] for name in FRC_FIELDS})


def _group(parent: h5py.Group, name: str, kind: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = kind
    return group


def _write_instrument(entry: h5py.Group, result: Reconstruction) -> None:
    geometry, instrument = result.geometry, _group(entry, "instrument_1", "NXinstrument")
    source = _group(instrument, "source_1", "NXsource")
    source["energy"], source["wavelength"] = geometry.energy_ev * JOULES_PER_EV, geometry.wavelength_m
    source["energy"].attrs["units"], source["wavelength"].attrs["units"] = "J", "m"
    source["illumination"] = h5py.SoftLink("/entry_1/result_2/data")
    detector, pitch_m = _group(instrument, "detector_1", "NXdetector"), geometry.detector_pixel_m
    detector["distance"] = geometry.detector_distance_m
    detector["x_pixel_size"] = detector["y_pixel_size"] = pitch_m
    detector["basis_vectors"] = np.array([[0, -pitch_m, 0], [-pitch_m, 0, 0]]).T


def _write_positions(entry: h5py.Group, result: Reconstruction) -> None:
    geometry = _group(_group(entry, "sample_1", "NXsample"), "geometry_1", "NXgeometry")
    y, x = result.positions_m.T
    # CXI: motion of the sample, (x, y, z)
    geometry["translation"] = np.stack([-x, -y, np.zeros_like(x)], axis=1)
    geometry["frame_number"] = result.frame_numbers
    if result.travel_m is not None and result.spread_m is not None:
        # As the translation: of the sample, (x, y, z).
        for name, values in (("travel", -result.travel_m), ("spread", result.spread_m)):
            geometry[name] = np.stack([values[:, 1], values[:, 0], np.zeros(len(values))], axis=1)


def _write_results(entry: h5py.Group, result: Reconstruction) -> None:
    pixel_m = result.geometry.object_pixel_m
    for number, name in ((1, "object"), (2, "probe")):
        group = _group(entry, f"result_{number}", "NXdata")
        group.attrs["signal"] = "data"
        group["data"], group["title"], group["data_space"] = getattr(result, name), name, "real"
        group["x_pixel_size"] = group["y_pixel_size"] = pixel_m
        entry[name] = h5py.SoftLink(f"/entry_1/result_{number}")
    bounds, group = result.bounds, entry["result_1"]
    group["bounds"] = np.array([bounds.top, bounds.left, bounds.bottom, bounds.right])
    group["photons"] = result.photons
    maps = group.create_group("maps")
    for name, values in result.maps.items():
        maps[name] = values
    entry.attrs["default"] = "object"


def _write_scan_maps(entry: h5py.Group, result: Reconstruction) -> None:
    """Write what the patterns show without probe and model, in cells of half a step of the scan."""
    maps, cell_px = result.scan_maps()
    if not maps:
        return
    group, pixel_m = _group(entry, "scan_maps", "NXdata"), result.geometry.object_pixel_m
    group.attrs["signal"] = "intensity"
    for name, values in maps.items():
        group[name] = values
    group["x_pixel_size"] = group["y_pixel_size"] = cell_px * pixel_m
    group["moments"] = result.moments


def _write_images(entry: h5py.Group, result: Reconstruction) -> None:
    """Write what CXI calls images, and what ptychodus wants beside them."""
    pixel_m = result.geometry.object_pixel_m
    for number, name, data, data_type in (
        (1, "probe", "result_2", "amplitude"),
        (2, "object", "result_1", "electron density"),
    ):
        image, shape = _group(entry, f"image_{number}", "NXdata"), getattr(result, name).shape[-2:]
        image.attrs["signal"] = "data"
        image["data"] = h5py.SoftLink(f"/entry_1/{data}/data")
        image["title"], image["data_type"], image["data_space"] = name, data_type, "real"
        image["image_size"] = np.array([shape[1] * pixel_m, shape[0] * pixel_m, 0.0])
        for other in ("source_1", "detector_1"):
            image[other] = h5py.SoftLink(f"/entry_1/instrument_1/{other}")
    extras = entry.create_group("ptychodus")
    extras["probe_position_indexes"] = result.frame_numbers
    extras["probe_photon_count"] = float(abs2(result.probe).sum())
    for axis in ("width", "height"):
        extras[f"probe_pixel_{axis}_m"] = extras[f"object_pixel_{axis}_m"] = pixel_m
    # Like the translations that it reads as they are: motion of the sample.
    y_m, x_m = result.centre_m
    extras["object_center_x_m"], extras["object_center_y_m"] = -x_m, -y_m
    epochs, errors = result.losses
    extras["loss_epochs"], extras["loss_values"] = epochs, errors


def _write_process(entry: h5py.Group, result: Reconstruction, provenance: Mapping[str, Any]) -> None:
    process = _group(entry, "process_1", "NXprocess")
    process["program"], process["version"] = "ptychostream", version("ptychostream")
    process["error_history"] = np.asarray(result.error_history, np.float64)
    if result.halves is not None:
        _write_halves(process, result.halves)
    _write_values(process, provenance)


def _write_halves(process: h5py.Group, halves: FRC) -> None:
    frc = process.create_group("frc")
    for name in (*FRC_FIELDS, "half_bit"):
        frc[name] = getattr(halves, name)


def _write_values(process: h5py.Group, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if value is not None:
            process[name] = value
