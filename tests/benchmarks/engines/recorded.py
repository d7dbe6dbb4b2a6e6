"""What the engine makes of a real scan whose probe is known from the data alone."""

from dataclasses import replace

import numpy as np

from launch.offline.reconstruct import half_data_correlation, reconstruct
from launch.offline.recorded import RecordedScan, open_recorded
from launch.offline.task import ReconstructOptions
from launch.results.reconstruction import Reconstruction
from operators.engine.config import RefinerConfig
from operators.metrics.errors import phase_correlation_coefficient
from operators.metrics.gauge import remove_gauge
from tests.helpers.recorded_data import SHARED_DATA

SIEMENS = SHARED_DATA / "siemens"
DISTURBANCE_PX = 3.0


def recorded_figures() -> dict[str, float]:
    """Returns the figures by name; none where the scan is absent."""
    if not SIEMENS.is_dir():
        return {}
    # the scan's positions lie between pixels, which limits what halves of it agree on
    options = ReconstructOptions(refiner=RefinerConfig(subpixel=True), n_modes=3, probe="data")
    with open_recorded(str(SIEMENS / "siemens.cxi")) as scan:
        result = reconstruct(scan, options)
        correlation = half_data_correlation(scan, options)
        return {
            "siemens_error_40": float(result.error_history[-1]),
            "siemens_frc_half": correlation.crossing(1 / 2),
            "siemens_frc_one_seventh": correlation.crossing(1 / 7),
            "siemens_phase_correlation": _correlation_with_reference(result),
            "siemens_positions_px": _position_error_px(scan),
        }


def distance_px(known_px: np.ndarray, found_px: np.ndarray) -> float:
    """Returns the root mean square distance of positions, but for offset, scale and shear.

    Energy and distance of the scan are nominal: what they may be wrong by looks like a scale.
    """
    basis = np.column_stack([known_px, np.ones(len(known_px))])
    difference = found_px - basis @ np.linalg.lstsq(basis, found_px, rcond=None)[0]
    return float(np.sqrt((difference**2).sum(axis=1).mean()))


def _correlation_with_reference(result: Reconstruction) -> float:
    """Returns the correlation of the phases where half a window around each pixel has been measured.

    Both are cut where their positions say, to a pixel: what is left for the gauge to find moves no border of
    either picture into the comparison.
    """
    with np.load(SIEMENS / "reference.npz", allow_pickle=False) as file:
        known, known_px = file["O"], file["pos"][result.frame_numbers]
    found_px = result.geometry.to_pixels(result.positions_m) - result.bounds.origin
    top, left = np.rint((known_px - found_px).mean(axis=0)).astype(int)
    rows, columns = result.object.shape
    inside = np.s_[64 : rows - 64, 64 : columns - 64]
    found, known = result.object[inside], known[top : top + rows, left : left + columns][inside]
    return float(phase_correlation_coefficient(remove_gauge(found, known), known))


def _position_error_px(scan: RecordedScan) -> float:
    """Returns how far positions disturbed by 3 pixels rms still are from the file's."""
    assert scan.geometry is not None
    pixel_m = scan.geometry.object_pixel_m
    sigma_px = DISTURBANCE_PX / np.sqrt(2)  # of each axis
    noise_px = np.random.default_rng(5).normal(0, sigma_px, scan.positions_m.shape)
    disturbed = replace(scan, positions_m=scan.positions_m + pixel_m * noise_px)
    refiner = RefinerConfig(refines_positions=True)
    result = reconstruct(disturbed, ReconstructOptions(refiner=refiner, n_modes=3, epochs=60))
    return distance_px(scan.positions_m / pixel_m, result.positions_m / pixel_m)
