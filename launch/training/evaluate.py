"""How good a network is on objects that it has not seen: patches, mosaics, and its error bars."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from launch.training.recipe import EvaluationRecipe, Recipe
from launch.training.samples import draw_object, unseen
from operators.arrays import Corners, Object, Patches, Patterns, Probe, abs2
from operators.geometry import Bounds, window_corners
from operators.metrics.errors import NRMSE, align_phase, nrmse
from operators.mosaic.error_bars import coverage
from operators.mosaic.stitching import stitch
from operators.network.gaps import fill_patterns
from operators.network.interface import Network
from operators.network.predictor import Predictor
from operators.optics.detector_effects import draw_detector
from operators.optics.forward import simulate_counts
from operators.optics.probe import with_power
from operators.optics.samples import HELD_OUT_FAMILIES
from operators.optics.trajectories import jittered_raster
from operators.patches import extract_patches

BRIGHT = 0.1
"""Error bars are judged where the illumination exceeds this share of its peak."""
LIT = 0.3
"""Mosaics are judged where they received this share of their most photons: not on the fringe of the scan."""

# Training seeds count from 0: these are never among them.
EVALUATION_SEED = 2**32 + 2
DRAWN_PROBES_SEED = 2**32 + 3


class EvaluationScan(NamedTuple):
    """A scan of a known object.

    Attributes
    ----------
    object : (row, col) complex64
    corners : (frame, 2) int64, object pixels
        Top-left pixel of each window.
    patterns : (frame, ky, kx) float32, photons
        Corner-origin.
    """

    object: Object
    corners: Corners
    patterns: Patterns


class Outcome(NamedTuple):
    """What a network made of one scan.

    Attributes
    ----------
    scan : EvaluationScan
    patches : (frame, y, x) complex64
        As predicted: the mosaic is stitched from them, without knowledge of the truth.
    aligned, true_patches : (frame, y, x) complex64
        Each patch in the phase that brings it closest to its truth, and that truth.
    sigma : (frame, y, x) float32, rad
    """

    scan: EvaluationScan
    patches: Patches
    aligned: Patches
    true_patches: Patches
    sigma: NDArray[np.float32]


class Score(NamedTuple):
    """What of an outcome counts: weighted squares summed over its patches, its mosaic, its error bars.

    Attributes
    ----------
    error, variation, power : float
        Of the patches' difference from the truth, the truth's from its mean, and the truth itself.
    mosaic : NRMSE
    error_in_sigmas : (n,) float32
        Modulus of each phase error over its sigma, where the patches are bright.
    """

    error: float
    variation: float
    power: float
    mosaic: NRMSE
    error_in_sigmas: NDArray[np.float32]


def judge(network: Network, recipe: Recipe, device: str = "cpu") -> dict[str, float]:
    """Return all figures of merit that the recipe asks for, by name; torch works on `device`."""
    # In single precision, which is the same on any machine.
    predictor = Predictor(network, evaluation_probe(recipe), device=device, dtype=torch.float32)
    figures = evaluate(predictor, recipe)
    if recipe.evaluation.draws_probes:
        # Of compiling convolutions for every probe nothing is gained.
        predictor_for = partial(Predictor, network, device=device, dtype=torch.float32, openvino=False)
        figures |= evaluate_drawn_probes(predictor_for, recipe)
    return figures


def evaluate(predictor: Predictor, recipe: Recipe) -> dict[str, float]:
    """Return the figures of merit of a network on held-out objects, by name.

    The predictor was made for `evaluation_probe(recipe)`.

    The scans have what the recipe's `effects` do to them, each a detector of its own.

    `patch_*` pool all patches of all scans of the trained families, `mosaic_*` are means over scans of one
    pass stitched; `unseen_*` are the same for families that training never draws from. `c` and `loose` are
    defined at `operators.metrics.errors.nrmse`; a constant scores 1 in `c`, and `constant_loose` in `loose`.
    """
    weights = abs2(evaluation_probe(recipe)).sum(axis=0)
    figures: dict[str, float] = {}
    for prefix, families in (("", trained_families(recipe)), ("unseen_", HELD_OUT_FAMILIES)):
        of_scans = scan_figures(predictor, weights, simulate_scans(recipe, families, EVALUATION_SEED))
        figures |= {prefix + name: value for name, value in of_scans.items()}
    return figures


def evaluate_drawn_probes(predictor_for: Callable[[Probe], Predictor], recipe: Recipe) -> dict[str, float]:
    """Return the figures of `evaluate`, as `drawn_probe_*`, of scans that each have a probe of their own.

    The probes are drawn as those of the training, and the network is told of each.

    Parameters
    ----------
    predictor_for : callable
        Returns the predictor for a probe, (mode, y, x) complex64, photons.
    recipe : Recipe
    """
    rng, scores = np.random.default_rng(DRAWN_PROBES_SEED), []
    for family in trained_families(recipe):
        for _ in range(recipe.evaluation.objects_per_family):
            drawn = recipe.probe.random(recipe.n_pixels, rng)
            probe = with_power(drawn, recipe.evaluation.photons_per_frame)
            scan, weights = _simulate_scan(recipe, family, probe, rng), abs2(probe).sum(axis=0)
            scores.append(score_of(outcome_of(predictor_for(probe), weights, scan), weights))
    return {f"drawn_probe_{name}": value for name, value in pooled_figures(scores).items()}


def trained_families(recipe: Recipe) -> tuple[str, ...]:
    """Return the families of a recipe as evaluation draws them: other photographs, otherwise the same."""
    return tuple(unseen(family) for family in recipe.families)


def evaluation_probe(recipe: Recipe) -> Probe:
    """Return the nominal probe with the photons of the evaluation scans, (mode, y, x) complex64.

    It is what to build the predictor for.
    """
    return with_power(recipe.probe.nominal_modes(recipe.n_pixels), recipe.evaluation.photons_per_frame)


def simulate_scans(recipe: Recipe, families: Sequence[str], seed: int) -> Iterator[EvaluationScan]:
    """Yield scans of fresh objects, `objects_per_family` of each family."""
    rng = np.random.default_rng(seed)
    for family in families:
        for _ in range(recipe.evaluation.objects_per_family):
            yield _simulate_scan(recipe, family, evaluation_probe(recipe), rng)


def _simulate_scan(recipe: Recipe, family: str, probe: Probe, rng: np.random.Generator) -> EvaluationScan:
    corners = _corners(recipe.evaluation, rng)
    rows, columns = corners.max(axis=0) + recipe.n_pixels
    object_ = draw_object(family, recipe.material, (rows, columns), rng)
    detector = flux = None
    if recipe.effects is not None:
        detector = draw_detector(recipe.effects.random(rng), recipe.n_pixels, rng)
        flux = recipe.effects.flux(rng.standard_normal(len(corners)))
    counts = simulate_counts(object_, probe, corners, rng, detector=detector, flux=flux)
    patterns = counts.astype(np.float32)
    if detector is not None:
        patterns = fill_patterns(patterns, detector.valid, probe)
    return EvaluationScan(object_, corners, patterns)


def _corners(evaluation: EvaluationRecipe, rng: np.random.Generator) -> Corners:
    n = evaluation.n_positions
    corners = window_corners(jittered_raster(n, n, evaluation.step_px, 1.0, rng))
    return corners - corners.min(axis=0)


def outcome_of(predictor: Predictor, weights: NDArray[np.float32], scan: EvaluationScan) -> Outcome:
    """Return what a network makes of one scan; `weights` is the illumination |P|^2, (y, x) float32."""
    patches, sigma = predictor.predict(scan.patterns)
    true_patches = extract_patches(scan.object, scan.corners, weights.shape[-1])
    aligned = np.stack([align_phase(a, b, weights) for a, b in zip(patches, true_patches, strict=True)])
    return Outcome(scan, patches, aligned, true_patches, sigma)


def scan_figures(
    predictor: Predictor, weights: NDArray[np.float32], scans: Iterable[EvaluationScan]
) -> dict[str, float]:
    """Return the figures of `evaluate` over some scans, without a prefix; `weights` as for `outcome_of`."""
    return pooled_figures([score_of(outcome_of(predictor, weights, scan), weights) for scan in scans])


def pooled_figures(scores: Sequence[Score]) -> dict[str, float]:
    """Return the figures of `evaluate` over some scores, without a prefix."""
    error, variation, power = np.sum([score[:3] for score in scores], axis=0)
    ratios = np.concatenate([score.error_in_sigmas for score in scores])
    within = coverage(ratios, np.ones_like(ratios))
    return {
        "patch_c": float(np.sqrt(error / variation)),
        "patch_loose": float(np.sqrt(error / power)),
        "mosaic_c": float(np.mean([score.mosaic.c for score in scores])),
        "mosaic_loose": float(np.mean([score.mosaic.loose for score in scores])),
        "constant_loose": float(np.sqrt(variation / power)),
        "coverage68": within.within68,
        "coverage95": within.within95,
    }


def score_of(outcome: Outcome, weights: NDArray[np.float32]) -> Score:
    """Return what of an outcome counts; `weights` as for `outcome_of`."""
    mosaic, ratios = _mosaic_error(outcome, weights), error_in_sigmas(outcome, weights)
    return Score(*patch_squares(outcome, weights), mosaic, ratios)


def patch_squares(outcome: Outcome, weights: NDArray[np.float32]) -> tuple[float, float, float]:
    """Return error, variation and power as a `Score` has them; `weights` as for `outcome_of`."""
    truth, share = outcome.true_patches, weights / weights.sum()
    means = (share * truth).sum(axis=(1, 2), keepdims=True)
    error, variation, power = (
        float((share * abs2(part)).sum()) for part in (outcome.aligned - truth, truth - means, truth)
    )
    return error, variation, power


def _mosaic_error(outcome: Outcome, weights: NDArray[np.float32]) -> NRMSE:
    mosaic = stitch(outcome.patches, outcome.sigma, weights, outcome.scan.corners)
    picture = mosaic.picture(Bounds(0, 0, *outcome.scan.object.shape))
    return nrmse(picture.object, outcome.scan.object, picture.photons > LIT * picture.photons.max())


def error_in_sigmas(outcome: Outcome, weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the modulus of each phase error over its sigma, (n,) float32, where the patches are bright.

    `weights` as for `outcome_of`.
    """
    bright = weights > BRIGHT * weights.max()
    error = np.angle(outcome.aligned * outcome.true_patches.conj())
    return (np.abs(error[:, bright]) / outcome.sigma[:, bright]).ravel()
