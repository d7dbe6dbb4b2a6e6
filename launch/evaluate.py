"""How good a network is on objects that it has not seen: patches, mosaics, and how true its error bars are.

Separate from training because it needs no torch of its own: it runs a `Predictor` exactly as the inference
stage does and stitches as the stitcher does. Called at the end of a training; the figures go onto the model
card.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from launch.recipe import EvaluationRecipe, Recipe
from operators.arrays import Corners, Object, Patches, Patterns, Probe, abs2
from operators.forward import simulate_counts
from operators.geometry import Bounds, window_corners
from operators.metrics import NRMSE, align_phase, nrmse
from operators.network import Predictor
from operators.objects import FAMILIES, HELD_OUT_FAMILIES, object_from_texture, texture
from operators.patches import extract_patches
from operators.probe import with_power
from operators.scan import jittered_raster
from operators.stitch import stitch

BRIGHT = 0.1
"""Error bars are judged where the illumination exceeds this share of its peak."""
LIT = 0.3
"""Mosaics are judged where they received this share of their most photons: not on the fringe of the scan."""

# Training seeds count from 0: these are never among them.
CALIBRATION_SEED = 2**32 + 1
EVALUATION_SEED = 2**32 + 2


class SimulatedScan(NamedTuple):
    """A scan of a known object."""

    object: Object
    corners: Corners
    patterns: Patterns


class Outcome(NamedTuple):
    """What a network made of one scan; the truth beside each estimate, patches aligned to it."""

    patches: Patches
    true_patches: Patches
    sigma: NDArray[np.float32]
    mosaic: NRMSE


def evaluate(predictor: Predictor, recipe: Recipe) -> dict[str, float]:
    """Return the figures of merit of a network on held-out objects, by name.

    `patch_*` pool all patches of all scans of the trained families, `mosaic_*` are means over scans of one
    pass stitched; `unseen_*` are the same for families that training never draws from. `c` and `loose` are
    defined at `operators.metrics.nrmse`; a constant scores 1 in `c`, and `constant_loose` in `loose`.
    """
    probe = evaluation_probe(recipe)
    weights = abs2(probe[0])
    seen = [_outcome(predictor, probe, scan) for scan in simulate_scans(recipe, FAMILIES, EVALUATION_SEED)]
    unseen = [
        _outcome(predictor, probe, scan)
        for scan in simulate_scans(recipe, HELD_OUT_FAMILIES, EVALUATION_SEED)
    ]
    figures = _errors(seen, weights) | {
        f"unseen_{name}": value for name, value in _errors(unseen, weights).items()
    }
    ratios = np.concatenate([_error_in_sigmas(outcome, weights) for outcome in seen])
    unseen_ratios = np.concatenate([_error_in_sigmas(outcome, weights) for outcome in unseen])
    return figures | {
        "coverage68": float((ratios < 1).mean()),
        "coverage95": float((ratios < 1.96).mean()),
        "unseen_coverage68": float((unseen_ratios < 1).mean()),
        "unseen_coverage95": float((unseen_ratios < 1.96).mean()),
    }


def calibrate_sigma(predictor: Predictor, recipe: Recipe) -> float:
    """Return the factor by which sigma must grow for 68.3 % of the phase errors to lie within it.

    Fitted on scans of the trained families that neither training nor `evaluate` use.
    """
    probe = evaluation_probe(recipe)
    weights = abs2(probe[0])
    scans = simulate_scans(recipe, FAMILIES, CALIBRATION_SEED)
    ratios = [_error_in_sigmas(_outcome(predictor, probe, scan), weights) for scan in scans]
    return float(np.quantile(np.concatenate(ratios), 0.6827))


def simulate_scans(recipe: Recipe, families: Sequence[str], seed: int) -> Iterator[SimulatedScan]:
    """Yield scans of fresh objects, `objects_per_family` of each family."""
    rng = np.random.default_rng(seed)
    for family in families:
        for _ in range(recipe.evaluation.objects_per_family):
            yield _simulate_scan(recipe, family, rng)


def _simulate_scan(recipe: Recipe, family: str, rng: np.random.Generator) -> SimulatedScan:
    corners = _corners(recipe.evaluation, rng)
    rows, columns = corners.max(axis=0) + recipe.n_pixels
    object_ = object_from_texture(texture(family, (rows, columns), rng), recipe.material.complex)
    patterns = simulate_counts(object_, evaluation_probe(recipe), corners, rng).astype(np.float32)
    return SimulatedScan(object_, corners, patterns)


def _corners(evaluation: EvaluationRecipe, rng: np.random.Generator) -> Corners:
    n = evaluation.n_positions
    corners = window_corners(jittered_raster(n, n, evaluation.step_px, 1.0, rng))
    return corners - corners.min(axis=0)


def evaluation_probe(recipe: Recipe) -> Probe:
    """Return the nominal probe with the photons of the evaluation scans: what to build the predictor for."""
    return with_power(recipe.probe.nominal(recipe.n_pixels)[None], recipe.evaluation.photons_per_frame)


def _outcome(predictor: Predictor, probe: Probe, scan: SimulatedScan) -> Outcome:
    weights = abs2(probe[0])
    patches, sigma = predictor.predict(scan.patterns)
    true_patches = extract_patches(scan.object, scan.corners, probe.shape[-1])
    mosaic = stitch(patches, sigma, weights, scan.corners)
    picture = mosaic.picture(Bounds(0, 0, *scan.object.shape))
    lit = picture.photons > LIT * picture.photons.max()
    aligned = np.stack([align_phase(a, b, weights) for a, b in zip(patches, true_patches, strict=True)])
    return Outcome(aligned, true_patches, sigma, nrmse(picture.object, scan.object, lit))


def _errors(outcomes: Sequence[Outcome], weights: NDArray[np.float32]) -> dict[str, float]:
    pooled = [_squares(outcome, weights) for outcome in outcomes]
    error, variation, power = np.sum(pooled, axis=0)
    return {
        "patch_c": float(np.sqrt(error / variation)),
        "patch_loose": float(np.sqrt(error / power)),
        "mosaic_c": float(np.mean([outcome.mosaic.c for outcome in outcomes])),
        "mosaic_loose": float(np.mean([outcome.mosaic.loose for outcome in outcomes])),
        "constant_loose": float(np.sqrt(variation / power)),
    }


def _squares(outcome: Outcome, weights: NDArray[np.float32]) -> list[float]:
    """Return the weighted squares of error, variation about each patch's mean, and truth, summed."""
    truth, share = outcome.true_patches, weights / weights.sum()
    means = (share * truth).sum(axis=(1, 2), keepdims=True)
    parts = (outcome.patches - truth, truth - means, truth)
    return [float((share * abs2(part)).sum()) for part in parts]


def _error_in_sigmas(outcome: Outcome, weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the modulus of each phase error over its predicted sigma, in the bright part of the patches."""
    bright = weights > BRIGHT * weights.max()
    error = np.angle(outcome.patches * outcome.true_patches.conj())
    return np.abs(error[:, bright]) / outcome.sigma[:, bright]
