"""How fine a Siemens star is resolved: the width of a spoke where its contrast has fallen to a half."""

from collections.abc import Callable

import numpy as np

from launch.evaluate import SimulatedScan, evaluation_probe
from launch.recipe import Recipe
from launch.simulation import DETECTOR_DISTANCE_M, DETECTOR_PIXEL_M, ENERGY_EV
from operators.forward import simulate_counts
from operators.geometry import Geometry, window_corners
from operators.metrics import align_phase
from operators.objects import half_pitch_px, object_from_texture, siemens_star
from operators.scan import jittered_raster

N_SPOKES = 36
RESOLVED = 0.5  # contrast over that of the truth
RADII_PX = np.arange(100.0, 5.0, -0.5)
N_ANGLES = 1440


def siemens_scan(recipe: Recipe, seed: int) -> SimulatedScan:
    """Return a scan of a star whose spokes meet in the middle of the field."""
    evaluation, rng = recipe.evaluation, np.random.default_rng(seed)
    n = evaluation.n_positions
    corners = window_corners(jittered_raster(n, n, evaluation.step_px, 1.0, rng))
    corners -= corners.min(axis=0)
    shape = tuple(int(side) for side in corners.max(axis=0) + recipe.n_pixels)
    star = siemens_star((shape[0], shape[1]), N_SPOKES, angle_rad=rng.uniform(0, 2 * np.pi))
    object_ = object_from_texture(star, recipe.material.complex)
    patterns = simulate_counts(object_, evaluation_probe(recipe), corners, rng).astype(np.float32)
    return SimulatedScan(object_, corners, patterns)


def resolved_half_pitch_px(object_: np.ndarray, truth: np.ndarray) -> float:
    """Return the half pitch, object pixels, down to which spokes are seen without a gap from outside.

    The spokes' harmonic of the phase around circles is compared with that of the truth, sign included:
    spokes that look dark where they are bright are not resolved.
    """
    object_ = align_phase(object_, truth)
    for radius in RADII_PX:
        found, known = (_harmonic(np.angle(a), radius) for a in (object_, truth))
        if (found / known).real < RESOLVED:
            return half_pitch_px(radius, N_SPOKES)
    return half_pitch_px(RADII_PX[-1], N_SPOKES)


def object_pixel_nm(recipe: Recipe) -> float:
    """Return the object pixel in the demo's geometry."""
    geometry = Geometry(
        energy_ev=ENERGY_EV,
        detector_distance_m=DETECTOR_DISTANCE_M,
        detector_pixel_m=DETECTOR_PIXEL_M,
        n_pixels=recipe.n_pixels,
    )
    return geometry.object_pixel_m * 1e9


def mean_half_pitch_px(scans: list[SimulatedScan], arm: Callable[[int], np.ndarray]) -> float:
    """Return the mean over scans of what `arm`, called with the scan's index, resolves."""
    return float(np.mean([resolved_half_pitch_px(arm(i), scan.object) for i, scan in enumerate(scans)]))


def _harmonic(phase: np.ndarray, radius: float) -> complex:
    """Return the component of `phase` with one period per spoke around a circle about the middle."""
    angles = np.arange(N_ANGLES) * 2 * np.pi / N_ANGLES
    middle = (np.array(phase.shape) - 1) / 2
    y, x = middle[0] + radius * np.sin(angles), middle[1] + radius * np.cos(angles)
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    fy, fx = y - top, x - left
    values = (1 - fy) * ((1 - fx) * phase[top, left] + fx * phase[top, left + 1])
    values += fy * ((1 - fx) * phase[top + 1, left] + fx * phase[top + 1, left + 1])
    return complex((values * np.exp(-1j * N_SPOKES * angles)).mean())
