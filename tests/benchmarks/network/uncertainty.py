"""How true the error bars of mosaics are: on objects never seen, on families never trained, and in a run.

Errors are phases against the truth without the offset of each 64-pixel tile, where the mosaic is lit. Error
bars come from the model on the card, in a run also from the dial.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from launch.training.calibrate import doses, errors_of_mosaics, mosaic_errors
from launch.training.evaluate import (
    LIT,
    EvaluationScan,
    evaluation_probe,
    scan_figures,
    simulate_scans,
    trained_families,
)
from launch.training.recipe import Recipe
from operators.arrays import Array, abs2
from operators.geometry import Bounds
from operators.mosaic.error_bars import LEAST_95, Dial, ErrorModel, coverage, tile_errors
from operators.mosaic.mosaic import Mosaic
from operators.mosaic.stitching import stitch
from operators.network.interface import Network
from operators.network.predictor import Predictor
from operators.optics.samples import HELD_OUT_FAMILIES
from stream.files.weights import ModelCard
from stream.stages.stitching.composition import Refined
from stream.stages.stitching.error_bars import LEAST_PIXELS
from tests.benchmarks.network.patch_errors import sparse_scans
from tests.benchmarks.network.scans import refined_to, refiner_of, seed

SEED = 2**32 + 5000  # neither training, calibration nor evaluation draws from it
TILE_PX = 64
REFINED_EPOCHS = 30.0
N_DRAWS = 2  # objects of each family at each dose: of one, the worst family is the worst object
SUREST = 0.1  # share of the pixels, those with the shortest bars


def uncertainty(network: Network, card: ModelCard) -> dict[str, Any]:
    """Return the figures of merit of a network's error bars, by name.

    `coverage68`, `coverage95` pool the mosaics of fresh objects of all trained families at the least photons
    of the training, at the most and between, `ood_*` those of families never trained on, before the dial;
    `ause_ratio` is the mean over these doses, since telling few photons from many is no merit.
    `patch_coverage_by_photons` has what 68 and 95 % bars of patches hold at each. Pooled bars may be true
    while those of one family are not: `coverage95_worst` is of the family, `coverage95_worst_family`, whose
    95 % bands hold the fewest errors, `coverage95_surest` of the tenth of all pixels with the shortest bars.

    With `dial` are what a run makes of scans refined for 30 epochs. `ood_is_covered_or_alarmed` is the share
    of scans of the unseen families whose 95 % bands then hold 85 % of the true errors, or whose dial raises
    the alarm.
    """
    recipe, model = Recipe.model_validate(card.recipe), ErrorModel(**card.error_model)
    trained = trained_families(recipe)
    known = [_live(network, recipe, model, scan) for scan in simulate_scans(recipe, trained[:2], SEED)]
    outside = [
        _live(network, recipe, model, scan) for scan in simulate_scans(recipe, HELD_OUT_FAMILIES, SEED + 1)
    ]
    figures = bars(network, recipe, trained, model)
    figures |= {
        f"ood_{name}": value for name, value in bars(network, recipe, HELD_OUT_FAMILIES, model).items()
    }
    return figures | {
        "patch_coverage_by_photons": _patch_coverage(network, recipe),
        "dial_coverage95_true": float(np.mean([true for true, _ in known])),
        "dial_false_alarms": float(np.mean([is_alarmed for _, is_alarmed in known])),
        "ood_dial_coverage95_true": float(np.mean([true for true, _ in outside])),
        "ood_alarms": float(np.mean([is_alarmed for _, is_alarmed in outside])),
        "ood_is_covered_or_alarmed": float(
            np.mean([true >= LEAST_95 or is_alarmed for true, is_alarmed in outside])
        ),
    }


def bars(
    network: Network, recipe: Recipe, families: Sequence[str], model: ErrorModel, n_draws: int = N_DRAWS
) -> dict[str, Any]:
    """Return how true the bars of mosaics of these families are: pooled, by family, and of the surest pixels.

    As `coverage95_by_family` and `coverage_by_photons` each family's own and that of each dose; the other
    names as in `uncertainty`.
    """
    of_family = {family: _errors_and_sigma(network, recipe, family, model, n_draws) for family in families}
    of_dose = {
        photons: np.concatenate(parts, axis=1)
        for photons, *parts in zip(doses(recipe), *of_family.values(), strict=True)
    }
    errors, sigma = np.concatenate(list(of_dose.values()), axis=1)
    within = coverage(errors, sigma)
    by_family = {
        family: coverage(*np.concatenate(parts, axis=1)).within95 for family, parts in of_family.items()
    }
    worst = min(by_family, key=by_family.__getitem__)
    is_sure = sigma <= np.quantile(sigma, SUREST)
    return {
        "coverage68": within.within68,
        "coverage95": within.within95,
        "coverage95_worst": by_family[worst],
        "coverage95_worst_family": worst,
        "coverage95_by_family": by_family,
        "coverage95_surest": coverage(errors[is_sure], sigma[is_sure]).within95,
        "coverage_by_photons": {f"{photons:.3g}": coverage(*both) for photons, both in of_dose.items()},
        "ause_ratio": float(np.mean([ause(*both) for both in of_dose.values()])),
    }


def ause(errors: Array, sigma: Array, n_steps: int = 50) -> float:
    """Return how far sigma is from ranking the errors perfectly: 0 is perfect, 1 no better than chance.

    Both are real, of one shape and one unit; `n_steps` is the number of shares that are left out.

    The area between the root mean square of the errors that remain when the largest sigma are left out and
    the same when the largest errors are, over the area that a random order leaves (sparsification error;
    Ilg et al., ECCV 2018).

    Raises
    ------
    ValueError
        If all errors are equal: there is nothing to rank.
    """
    squares = np.square(np.ravel(errors).astype(np.float64))
    n_left = np.unique(np.rint(len(squares) * (1 - np.arange(n_steps) / n_steps)).astype(int))
    n_left = n_left[n_left > 0]

    def remaining(order: Array) -> Array:
        return np.sqrt(np.cumsum(squares[order])[n_left - 1] / n_left)

    best = remaining(np.argsort(squares, kind="stable"))
    ours = remaining(np.argsort(np.ravel(sigma), kind="stable"))
    by_chance = np.sqrt(squares.mean()) - best
    if not by_chance.sum() > 0:
        raise ValueError(f"all {len(squares)} errors are equal: there is nothing to rank")
    return float((ours - best).sum() / by_chance.sum())


def _patch_coverage(network: Network, recipe: Recipe) -> dict[str, tuple[float, float]]:
    """Return which share of the patches' errors 68 and 95 % bars hold, by photons per frame."""
    found = {}
    for photons in doses(recipe):
        dosed = sparse_scans(recipe, N_DRAWS).evaluated_with(photons_per_frame=photons)
        probe = evaluation_probe(dosed)
        scans = simulate_scans(dosed, trained_families(recipe), SEED)
        figures = scan_figures(Predictor(network, probe), abs2(probe).sum(axis=0), scans)
        found[f"{photons:.3g}"] = figures["coverage68"], figures["coverage95"]
    return found


def _errors_and_sigma(
    network: Network, recipe: Recipe, family: str, model: ErrorModel, n_draws: int
) -> list[np.ndarray]:
    """Return phase errors and their bars, (2, n) rad, of fresh objects, for each dose."""
    draws = [errors_of_mosaics(network, recipe, [family], SEED + 100 * draw) for draw in range(n_draws)]
    return [
        np.concatenate(
            [np.stack([each.errors, np.sqrt(model.variance(each.terms))]) for each in of_dose], axis=1
        )
        for of_dose in zip(*draws, strict=True)
    ]


def _live(network: Network, recipe: Recipe, model: ErrorModel, scan: EvaluationScan) -> tuple[float, bool]:
    """Return how many true errors the 95 % bands hold with the dial's factor, and whether it is alarmed."""
    probe = evaluation_probe(recipe)
    patches, sigma = Predictor(network, probe).predict(scan.patterns)
    mosaic = stitch(patches, sigma, abs2(probe).sum(axis=0), scan.corners, error_model=model)
    refiner = refiner_of(scan.patterns, scan.corners, probe)
    seed(refiner, scan, mosaic)
    before = Refined.of(refined_to(refiner, REFINED_EPOCHS - 1), mosaic, None)
    refined = Refined.of(refined_to(refiner, REFINED_EPOCHS), mosaic, before)
    dial = _dial(mosaic, refined, Bounds(0, 0, *scan.object.shape))
    errors, terms = mosaic_errors(mosaic, scan.object)
    return coverage(errors, dial.factor * np.sqrt(model.variance(terms))).within95, bool(dial.alarm)


def _dial(mosaic: Mosaic, refined: Refined, whole: Bounds) -> Dial:
    """Return the dial after all tiles, as `stream.stages.stitching.error_bars` shows them to it."""
    dial, picture = Dial(), mosaic.picture(whole)
    window = whole.slices_in(refined.bounds)
    object_, sigma, photons = refined.object[window], refined.sigma[window], refined.photons[window]
    known = np.isfinite(picture.sigma) & (photons > LIT * photons.max())
    for top in range(0, whole.bottom, TILE_PX):
        for left in range(0, whole.right, TILE_PX):
            tile = slice(top, top + TILE_PX), slice(left, left + TILE_PX)
            if known[tile].sum() >= LEAST_PIXELS:
                errors = tile_errors(picture.object[tile], object_[tile], picture.photons[tile], known[tile])
                dial.add(errors, picture.sigma[tile][known[tile]], sigma[tile][known[tile]])
    return dial
