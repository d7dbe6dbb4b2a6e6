"""What refining in four processes costs that agree once an epoch, beside one that has all frames."""

from pathlib import Path
from typing import Any

import numpy as np

from launch.beamline.simulation import SimulatedScan
from launch.commands.simulate import write_scan
from launch.offline.reconstruct import reconstruct
from launch.offline.recorded import open_recorded
from launch.offline.task import ReconstructOptions
from launch.results.reconstruction import Reconstruction
from operators.arrays import centre_origin
from operators.geometry import Geometry
from tests.benchmarks.engines.data import N_PIXELS, error
from tests.benchmarks.engines.engine_scan import EngineScan

N_TILES, N_EPOCHS = 4, 24
GEOMETRY = Geometry(energy_ev=9e3, detector_distance_m=1.0, detector_pixel_m=75e-6, n_pixels=N_PIXELS)


def tiles_figures(scan: EngineScan, folder: Path) -> dict[str, Any]:
    """Returns the figures by name: errors against the truth after 24 epochs, gauge removed."""
    positions_m = GEOMETRY.to_metres(scan.corners.astype(np.float64))
    simulated = SimulatedScan(
        frames=centre_origin(scan.patterns).astype(np.uint32),
        positions_m=positions_m,
        true_positions_m=positions_m,
        object=scan.truth,
        probe=scan.probe[None],
        nominal_probe=scan.probe[None],
        flux=np.ones(len(positions_m)),
        mask=np.ones((N_PIXELS, N_PIXELS), bool),
        background=np.zeros((N_PIXELS, N_PIXELS), np.float32),
        geometry=GEOMETRY,
    )
    path = folder / "scan.cxi"
    write_scan(path, simulated, "benchmark of engines")
    serial, tiled = (_error(path, n_tiles, scan) for n_tiles in (1, N_TILES))
    return {
        "nrmse_24_serial": serial,
        f"nrmse_24_{N_TILES}_tiles": tiled,
        "tiles_error_over_serial": tiled / serial,
    }


def _error(path: Path, n_tiles: int, scan: EngineScan) -> float:
    options = ReconstructOptions(epochs=N_EPOCHS, scale_probe=False, tiles=n_tiles)
    with open_recorded(str(path)) as recorded:
        result: Reconstruction = reconstruct(recorded, options)
    row, column = result.bounds.origin
    return error(result.object, (-row, -column), scan)
