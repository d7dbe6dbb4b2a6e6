"""How fine a Siemens star is resolved: the width of a spoke where its contrast has fallen to 0.7.

With the demo's photons iterations resolve the star down to the pixel, and there is nothing left to compare:
here the photons are so few that they do not.
"""

from collections.abc import Sequence

import numpy as np

from launch.beamline.simulation import DETECTOR_DISTANCE_M, DETECTOR_PIXEL_M, ENERGY_EV
from launch.training.evaluate import EvaluationScan, evaluation_probe
from launch.training.recipe import Recipe
from operators.geometry import Geometry, window_corners
from operators.metrics.errors import align_phase
from operators.network.interface import Network
from operators.network.predictor import Predictor
from operators.optics.forward import simulate_counts
from operators.optics.samples import object_from_texture, siemens_star
from operators.optics.trajectories import jittered_raster
from tests.benchmarks.network.arena import MANY_EPOCHS, Arena

PHOTONS = 1e4  # per frame
N_SPOKES = 36
RESOLVED = 0.7  # contrast over that of the truth
FINEST_PX = 1.0  # half-pitch: the object's Nyquist frequency, beyond which the truth itself has no spokes
RADII_PX = np.linspace(100.0, FINEST_PX * N_SPOKES / np.pi, 355)
N_ANGLES = 1440


def siemens(network: Network, recipe: Recipe, seeds: Sequence[int]) -> dict[str, float]:
    """Return the half-pitch that one pass, 20 epochs from there and 200 flat epochs of ePIE resolve, by name.

    Means over scans, one for each seed. `siemens_saturated` is the share of scans on which 200 epochs resolve
    all that there is: of these no ratio tells anything.
    """
    recipe = recipe.evaluated_with(photons_per_frame=PHOTONS)
    probe = evaluation_probe(recipe)
    predictor = Predictor(network, probe)
    resolved = []
    for seed in seeds:
        scan = siemens_scan(recipe, seed)
        arena = Arena(scan, probe)
        arm, mosaic = arena.network(predictor)
        objects = arm.object, arena.seeded(mosaic).object, arena.flat("epie", MANY_EPOCHS).object
        resolved.append([resolved_half_pitch_px(object_, scan.object) for object_ in objects])
    one_pass, seeded, flat = np.transpose(resolved)
    return {
        "siemens_halfpitch_px": float(seeded.mean()),
        "siemens_halfpitch_nm": float(seeded.mean()) * object_pixel_nm(recipe),
        "siemens_halfpitch_px_cnn": float(one_pass.mean()),
        "siemens_halfpitch_px_epie200": float(flat.mean()),
        "siemens_halfpitch_ratio": float(seeded.mean() / flat.mean()),
        "siemens_saturated": float(np.mean(flat <= FINEST_PX)),
        "siemens_photons": PHOTONS,
    }


def siemens_scan(recipe: Recipe, seed: int) -> EvaluationScan:
    """Return a scan of a star whose spokes meet in the middle of the field."""
    evaluation, rng = recipe.evaluation, np.random.default_rng(seed)
    n = evaluation.n_positions
    corners = window_corners(jittered_raster(n, n, evaluation.step_px, 1.0, rng))
    corners -= corners.min(axis=0)
    shape = tuple(int(side) for side in corners.max(axis=0) + recipe.n_pixels)
    star = siemens_star((shape[0], shape[1]), N_SPOKES, angle_rad=rng.uniform(0, 2 * np.pi))
    object_ = object_from_texture(star, recipe.material.complex)
    patterns = simulate_counts(object_, evaluation_probe(recipe), corners, rng).astype(np.float32)
    return EvaluationScan(object_, corners, patterns)


def resolved_half_pitch_px(object_: np.ndarray, truth: np.ndarray) -> float:
    """Return the half pitch, object pixels, down to which spokes are seen without a gap from outside.

    The spokes' harmonic of the phase around circles is compared with that of the truth, sign included:
    spokes that look dark where they are bright are not resolved. Never less than `FINEST_PX`, which says that
    all is resolved; where nothing is, what the outermost circle has.
    """
    object_ = align_phase(object_, truth)
    outside = np.inf, RADII_PX[0]
    for radius in RADII_PX:
        found, known = (_harmonic(np.angle(a), radius) for a in (object_, truth))
        contrast = (found / known).real
        if contrast < RESOLVED:
            crossing = np.interp(RESOLVED, (contrast, outside[0]), (radius, outside[1]))
            return float(half_pitch_px(crossing, N_SPOKES))
        outside = contrast, radius
    return FINEST_PX


def half_pitch_px(radius_px: float, n_spokes: int) -> float:
    """Return the width in pixels of one spoke at a radius: the resolution reached where it still shows."""
    return np.pi * radius_px / n_spokes


def object_pixel_nm(recipe: Recipe) -> float:
    """Return the object pixel in the demo's geometry."""
    geometry = Geometry(
        energy_ev=ENERGY_EV,
        detector_distance_m=DETECTOR_DISTANCE_M,
        detector_pixel_m=DETECTOR_PIXEL_M,
        n_pixels=recipe.n_pixels,
    )
    return geometry.object_pixel_m * 1e9


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
