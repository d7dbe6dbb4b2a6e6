"""What refining in four processes costs that agree once an epoch, beside one that has all frames."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from launch.beamline.simulation import SimulatedScan
from launch.commands.simulate import write_scan
from launch.offline.reconstruct import reconstruct
from launch.offline.recorded import open_recorded
from launch.offline.task import ReconstructOptions
from launch.results.cxi import Reconstruction
from operators.arrays import centre_origin
from operators.geometry import Geometry
from tests.benchmarks._engines_data import N_PIXELS, Benchmark, error

N_TILES, N_EPOCHS = 4, 24
GEOMETRY = Geometry(energy_ev=9e3, detector_distance_m=1.0, detector_pixel_m=75e-6, n_pixels=N_PIXELS)


def tiles_figures(benchmark: Benchmark) -> dict[str, Any]:
    """Returns the figures by name: errors against the truth after 24 epochs, gauge removed."""
    positions_m = GEOMETRY.to_metres(benchmark.corners.astype(np.float64))
    scan = SimulatedScan(
        frames=centre_origin(benchmark.patterns).astype(np.uint32),
        positions_m=positions_m,
        true_positions_m=positions_m,
        object=benchmark.truth,
        probe=benchmark.probe[None],
        nominal_probe=benchmark.probe[None],
        flux=np.ones(len(positions_m)),
        mask=np.ones((N_PIXELS, N_PIXELS), bool),
        background=np.zeros((N_PIXELS, N_PIXELS), np.float32),
        geometry=GEOMETRY,
    )
    with tempfile.TemporaryDirectory(prefix="tiles-") as folder:
        path = Path(folder) / "benchmark.cxi"
        write_scan(path, scan, "engines benchmark")
        serial, tiled = (_error(path, n_tiles, benchmark) for n_tiles in (1, N_TILES))
    return {
        "nrmse_24_serial": serial,
        f"nrmse_24_{N_TILES}_tiles": tiled,
        "tiles_error_over_serial": tiled / serial,
    }


def _error(path: Path, n_tiles: int, benchmark: Benchmark) -> float:
    options = ReconstructOptions(epochs=N_EPOCHS, scale_probe=False, tiles=n_tiles)
    with open_recorded(str(path)) as recorded:
        result: Reconstruction = reconstruct(recorded, options)
    row, column = result.bounds.origin
    return error(result.object, (-row, -column), benchmark)
