"""A small result whose object has no symmetry, so that every mix-up of axes and signs shows."""

import numpy as np

from launch.results.reconstruction import Reconstruction
from operators.geometry import Bounds, Geometry
from operators.optics.probe import zone_plate_probe

N = 16
SHAPE = (60, 48)


def small_result() -> Reconstruction:
    """A Reconstruction of nine frames on whole pixels; its window corners lie in `bounds`."""
    rng = np.random.default_rng(0)
    y, x = np.indices(SHAPE)
    geometry = Geometry(energy_ev=8800, detector_distance_m=2.0, detector_pixel_m=75e-6, n_pixels=N)
    corners = np.add(rng.integers(0, np.subtract(SHAPE, N), (9, 2)), (-7, 12))
    return Reconstruction(
        object=(np.exp(0.5j * (x > 24)) * (0.6 + 0.4 * (y > 30)) * (1 - 0.2 * (x > y))).astype(np.complex64),
        bounds=Bounds(-7, 12, SHAPE[0] - 7, SHAPE[1] + 12),
        probe=zone_plate_probe(N, 3.0, 4.0)[None] * np.array([1, 0.2j], np.complex64)[:, None, None],
        photons=np.exp(-(((y - 30) / 15) ** 2) - ((x - 24) / 12) ** 2).astype(np.float32),
        positions_m=geometry.to_metres(corners.astype(float)),
        frame_numbers=np.array([0, 1, 2, 3, 5, 6, 7, 8, 11]),
        geometry=geometry,
        error_history=np.array([0.3, 0.1, np.nan, 0.05]),
        maps={"sigma": np.ones(SHAPE, np.float32)},
    )
