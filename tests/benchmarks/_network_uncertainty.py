"""How true the error bars of mosaics are: on objects never seen, on families never trained, and in a run.

Called by `bench network`. Errors are phases against the truth without the offset of each 64-pixel tile,
where the mosaic is lit. Error bars come from the model on the card, in a run also from the dial.
"""

from typing import Any

import numpy as np

from launch.calibrate import errors_of_mosaics, mosaic_errors
from launch.evaluate import LIT, SimulatedScan, evaluation_probe, simulate_scans
from launch.recipe import Recipe
from operators.arrays import abs2
from operators.backends import get_backend
from operators.calibration import LEAST_95, Dial, ErrorModel, ause, coverage, tile_errors
from operators.geometry import Bounds
from operators.network_interface import Network
from operators.objects import FAMILIES, HELD_OUT_FAMILIES
from operators.predict import Predictor
from operators.refiner import Refiner, RefinerConfig
from operators.stitch import Mosaic, stitch
from stream.calibration import LEAST_PIXELS
from stream.composition import Refined
from stream.weights import ModelCard
from tests.benchmarks._network_scans import refined_to, seed

SEED = 2**32 + 5000  # neither training, calibration nor evaluation draws from it
TILE_PX = 64
REFINED_EPOCHS = 30.0
TARGETS = {
    "coverage68": ("in", (0.63, 0.73)),
    "coverage95": ("in", (0.92, 0.98)),
    "ause_ratio": ("<=", 0.5),
    "ood_is_covered_or_alarmed": (">=", 1.0),
}


def uncertainty(network: Network, card: ModelCard) -> dict[str, Any]:
    """Return the figures of merit of a network's error bars, by name.

    `coverage68`, `coverage95`, `ause_ratio` pool the mosaics of one fresh object of each trained family at
    each of three doses, `ood_*` those of families never trained on, before the dial. With `dial` are what a
    run makes of scans refined for 30 epochs. `ood_is_covered_or_alarmed` is the share of scans of the unseen
    families whose 95 % bands then hold 85 % of the true errors, or whose dial raises the alarm.
    """
    recipe, model = Recipe.model_validate(card.recipe), ErrorModel(**card.error_model)
    within = _pooled(network, recipe, FAMILIES, model)
    unseen = _pooled(network, recipe, HELD_OUT_FAMILIES, model)
    known = [_live(network, recipe, model, scan) for scan in simulate_scans(recipe, FAMILIES[:2], SEED)]
    outside = [
        _live(network, recipe, model, scan) for scan in simulate_scans(recipe, HELD_OUT_FAMILIES, SEED + 1)
    ]
    return {
        "coverage68": within[0],
        "coverage95": within[1],
        "ause_ratio": within[2],
        "ood_coverage68": unseen[0],
        "ood_coverage95": unseen[1],
        "ood_ause_ratio": unseen[2],
        "dial_coverage95_true": float(np.mean([true for true, _ in known])),
        "dial_false_alarms": float(np.mean([is_alarmed for _, is_alarmed in known])),
        "ood_dial_coverage95_true": float(np.mean([true for true, _ in outside])),
        "ood_alarms": float(np.mean([is_alarmed for _, is_alarmed in outside])),
        "ood_is_covered_or_alarmed": float(
            np.mean([true >= LEAST_95 or is_alarmed for true, is_alarmed in outside])
        ),
    }


def _pooled(
    network: Network, recipe: Recipe, families: tuple[str, ...], model: ErrorModel
) -> tuple[float, float, float]:
    measured = list(errors_of_mosaics(network, recipe, families, SEED))
    errors = np.concatenate([each.errors for each in measured])
    sigma = np.sqrt(model.variance(np.concatenate([each.terms for each in measured], axis=1)))
    return *coverage(errors, sigma), ause(errors, sigma)


def _live(network: Network, recipe: Recipe, model: ErrorModel, scan: SimulatedScan) -> tuple[float, bool]:
    """Return how many true errors the 95 % bands hold with the dial's factor, and whether it is alarmed."""
    probe = evaluation_probe(recipe)
    patches, sigma = Predictor(network, probe).predict(scan.patterns)
    mosaic = stitch(patches, sigma, abs2(probe).sum(axis=0), scan.corners, error_model=model)
    refiner = Refiner(
        RefinerConfig(probe_step=0, batch_size=8),
        probe,
        run_update=get_backend("auto").update,
    )
    refiner.append(range(len(scan.corners)), scan.patterns, scan.corners.astype(np.float64))
    seed(refiner, probe, scan, mosaic)
    before = Refined.of(refined_to(refiner, REFINED_EPOCHS - 1), mosaic, None)
    refined = Refined.of(refined_to(refiner, REFINED_EPOCHS), mosaic, before)
    dial = _dial(mosaic, refined, Bounds(0, 0, *scan.object.shape))
    errors, terms = mosaic_errors(mosaic, scan.object)
    return coverage(errors, dial.factor * np.sqrt(model.variance(terms))).within95, bool(dial.alarm)


def _dial(mosaic: Mosaic, refined: Refined, whole: Bounds) -> Dial:
    """Return the dial after all tiles, as `stream.calibration` shows them to it."""
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
