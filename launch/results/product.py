"""A result as a product of ptychodus, the counterpart of what `stream.files.ptychodus` reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from launch.results.reconstruction import Reconstruction
from operators.arrays import abs2
from stream.atomic import replacing
from stream.files.ptychodus import DISTANCE, ENERGIES, INDEXES, X, Y


def write_product(path: Path, result: Reconstruction, provenance: Mapping[str, Any]) -> None:
    """Writes `result` as HDF5; the file appears when it is complete.

    Parameters
    ----------
    path : Path
    result : Reconstruction
    provenance : mapping
        Plain values that say how it was made: `scan` is the name of the product, all of them its comment.
    """
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        _write_attributes(file, path, result, provenance)
        _write_positions(file, result)
        _write_arrays(file, result)
        file["loss_epochs"], file["loss_values"] = result.losses


def _write_attributes(
    file: h5py.File, path: Path, result: Reconstruction, provenance: Mapping[str, Any]
) -> None:
    known = {name: value for name, value in provenance.items() if value is not None}
    file.attrs["name"] = str(provenance.get("scan", path.stem))
    file.attrs["comments"] = "\n".join(f"{name}: {value}" for name, value in known.items())
    file.attrs[DISTANCE] = result.geometry.detector_distance_m
    file.attrs[ENERGIES[1]] = result.geometry.energy_ev
    file.attrs["probe_photon_count"] = float(abs2(result.probe).sum())
    file.attrs["exposure_time_s"] = file.attrs["mass_attenuation_m2_per_kg"] = 0.0  # its word for unknown
    file.attrs["tomography_angle_deg"] = 0.0
    file.attrs["far_field"] = True


def _write_positions(file: h5py.File, result: Reconstruction) -> None:
    file[INDEXES] = result.frame_numbers
    file[Y], file[X] = result.positions_m.T


def _write_arrays(file: h5py.File, result: Reconstruction) -> None:
    pixel_m, (y_m, x_m) = result.geometry.object_pixel_m, result.centre_m
    object_ = file.create_dataset("object", data=result.object[None])  # one layer
    probe = file.create_dataset("probe", data=result.probe[None])  # one coherent mode
    for array in (object_, probe):
        array.attrs["pixel_width_m"] = array.attrs["pixel_height_m"] = pixel_m
    object_.attrs["center_x_m"], object_.attrs["center_y_m"] = x_m, y_m
    file["object_layer_spacing_m"] = np.zeros(0)
