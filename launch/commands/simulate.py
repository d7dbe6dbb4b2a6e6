"""The `simulate` command: a simulated scan as a CXI file, with the truth beside it.

The file reads like a measured one; what only a simulation knows lies in the group `truth`, where no reader
of CXI looks.
"""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from launch.beamline.simulation import SimulatedScan, Simulation
from launch.config.reading import read_settings
from launch.outputs import check_outputs
from stream.atomic import replacing
from stream.files.cxi import JOULES_PER_EV

CXI_VERSION = 150


def read_simulation(path: Path) -> Simulation:
    """Returns the simulation that a YAML file describes; its `recipe` is seen from the file's folder.

    Raises
    ------
    ConfigError
        Names the file and each wrong key, what was wanted and what came.
    """
    simulation = read_settings(path, Simulation)
    return replace(simulation, recipe=path.parent / simulation.recipe)


def write_scan(path: Path, scan: SimulatedScan, title: str, *, overwrite: bool = False) -> None:
    """Writes `scan` to a CXI file that `stream.files.cxi.read_scan` reads back.

    Raises
    ------
    FileExistsError
        If there is a file at `path`, which may be a measurement, and `overwrite` does not say to replace it.
    """
    check_outputs({"OUTPUT": path}, overwrite=overwrite)
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file["cxi_version"] = CXI_VERSION
        file["entry_1/title"] = title
        file["entry_1/sample_1/geometry_1/translation"] = sample_translation(scan.positions_m)
        _write_detector(file.create_group("entry_1/instrument_1/detector_1"), scan)
        source = file.create_group("entry_1/instrument_1/source_1")
        source["energy"] = scan.geometry.energy_ev * JOULES_PER_EV
        source["wavelength"] = scan.geometry.wavelength_m
        source["illumination"] = scan.nominal_probe
        data = file.create_group("entry_1/data_1")
        data["data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
        data["translation"] = h5py.SoftLink("/entry_1/sample_1/geometry_1/translation")
        file["truth/object"] = scan.object
        file["truth/probe"] = scan.probe
        file["truth/positions_px"] = scan.geometry.to_pixels(scan.true_positions_m)
        file["truth/flux"] = scan.flux


def sample_translation(positions_m: np.ndarray) -> np.ndarray:
    """Returns (frame, 3) float64, metres: x, y, z of the sample where the probe is at `positions_m` (y, x).

    CXI records the motion of the sample, which is opposite to that of the probe on it.
    """
    return np.column_stack([-positions_m[:, ::-1], np.zeros(len(positions_m))])


def _write_detector(detector: h5py.Group, scan: SimulatedScan) -> None:
    detector.create_dataset("data", data=scan.frames, chunks=(1, *scan.frames.shape[1:]), compression="lzf")
    detector["distance"] = scan.geometry.detector_distance_m
    for name in ("x_pixel_size", "y_pixel_size"):
        detector[name] = scan.geometry.detector_pixel_m
    detector["mask"] = (~scan.mask).astype(np.uint32)
    detector["background"] = scan.background
