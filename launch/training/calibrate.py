"""Fit error bars, of patches and of mosaics, on objects that neither training nor evaluation has seen.

`python -m launch.training.calibrate WEIGHTS` fits, and judges, weights on disk anew.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from launch.training.evaluate import (
    LIT,
    error_in_sigmas,
    evaluation_probe,
    judge,
    outcome_of,
    simulate_scans,
    trained_families,
)
from launch.training.recipe import Recipe
from operators.arrays import Array, Object, abs2
from operators.geometry import Bounds
from operators.mosaic.error_bars import ErrorModel, factor_asked_for, tile_errors
from operators.mosaic.error_model_fit import fit_error_model
from operators.mosaic.mosaic import Mosaic
from operators.mosaic.stitching import stitch
from operators.network.interface import Network
from operators.network.predictor import Predictor
from stream.files.weights import load_network, save_network

SIGMA_SEED = 2**32 + 1  # training seeds count from 0, those of the evaluation from there on
MOSAIC_SEED = SIGMA_SEED + 1000
TILE_PX = 64  # as published
LEAST_PIXELS = 256  # of a tile, from which on its offset is known
N_DOSES = 3  # over the photons of the training, from the least to the most
OBJECTS_PER_FAMILY = 3
"""At each dose: objects differ more in how well they are seen than the pixels of one object do."""


class MosaicErrors(NamedTuple):
    """Known pixels of a mosaic against the truth.

    Attributes
    ----------
    errors : (n,) float32, rad
        Without the offset of each tile.
    terms : (4, n) float32, rad^2
        See `operators.mosaic.error_bars.ErrorModel`.
    transmission : float
        Share of the light that came through.
    """

    errors: Array
    terms: Array
    transmission: float


def doses(recipe: Recipe) -> list[float]:
    """Return photons per frame over the range of a training, evenly spaced in their logarithm."""
    least, most = recipe.photons_per_frame
    return np.geomspace(least, most, N_DOSES if least < most else 1).tolist()


def calibrate_sigma(network: Network, recipe: Recipe, device: str = "cpu") -> None:
    """Scale a network's sigma so that at every dose its bands hold as many errors as they should.

    What it had for a scale is forgotten. Fitted on scans of the recipe's trained families at each of `doses`:
    at a dose the factor that `factor_asked_for` names, over the doses a power law.

    Parameters
    ----------
    network : Network
        Gets `sigma_scale` and `sigma_exponent`.
    recipe : Recipe
    device : str
        Where torch works.
    """
    network.sigma_scale.fill_(1)
    network.sigma_exponent.fill_(0)
    photons_per_frame, factors = doses(recipe), []
    for photons in photons_per_frame:
        with_dose = recipe.evaluated_with(photons_per_frame=photons, objects_per_family=OBJECTS_PER_FAMILY)
        probe = evaluation_probe(with_dose)
        predictor, weights = Predictor(network, probe, device=device), abs2(probe).sum(axis=0)
        scans = simulate_scans(with_dose, trained_families(recipe), SIGMA_SEED)
        ratios = np.concatenate(
            [error_in_sigmas(outcome_of(predictor, weights, scan), weights) for scan in scans]
        )
        factors.append(factor_asked_for(ratios, np.ones_like(ratios)))
    *slope, offset = np.polyfit(np.log(photons_per_frame), np.log(factors), min(1, len(factors) - 1))
    network.sigma_scale.fill_(math.exp(offset))
    network.sigma_exponent.fill_(sum(slope))  # of one dose there is none


def calibrate_mosaic(network: Network, recipe: Recipe) -> tuple[ErrorModel, float]:
    """Return the error model of the mosaics of a network whose own sigma is calibrated, and a transmission.

    The latter is the share of the light that such objects let through on average; where the beam's power is
    not known, it is what the network expects.

    Fitted on scans of the recipe's material, probe and trained families, at each of `doses`. A recipe
    whose scans are too small to tell gets the default.
    """
    measured = list(errors_of_mosaics(network, recipe, trained_families(recipe), MOSAIC_SEED))
    errors = np.concatenate([each.errors for each in measured])
    terms = np.concatenate([each.terms for each in measured], axis=1)
    model = fit_error_model(terms, errors) if errors.size else ErrorModel()
    return model, float(np.mean([each.transmission for each in measured]))


def errors_of_mosaics(
    network: Network, recipe: Recipe, families: Sequence[str], seed: int
) -> Iterator[MosaicErrors]:
    """Yield the errors of a mosaic of a fresh object of each family, at each of `doses`."""
    for i, photons in enumerate(doses(recipe)):
        with_dose = recipe.evaluated_with(photons_per_frame=photons, objects_per_family=1)
        probe = evaluation_probe(with_dose)
        predictor = Predictor(network, probe)
        for scan in simulate_scans(with_dose, families, seed + i):
            mosaic = stitch(*predictor.predict(scan.patterns), abs2(probe).sum(axis=0), scan.corners)
            transmission = float(scan.patterns.sum(dtype=np.float64)) / len(scan.patterns) / photons
            yield MosaicErrors(*mosaic_errors(mosaic, scan.object), transmission)


def mosaic_errors(mosaic: Mosaic, truth: Object) -> tuple[Array, Array]:
    """Return the errors of a mosaic, and beside them what is known about them; see `MosaicErrors`.

    Parameters
    ----------
    mosaic : Mosaic
    truth : (row, col) complex64
        From absolute pixel (0, 0) on, inside the mosaic's canvas.
    """
    whole = Bounds(0, 0, *truth.shape)
    picture, terms = mosaic.picture(whole), mosaic.error_terms(whole)
    known = picture.photons > LIT * picture.photons.max()
    errors, terms_of = [np.zeros(0, np.float32)], [np.zeros((4, 0), np.float32)]
    for top in range(0, whole.bottom, TILE_PX):
        for left in range(0, whole.right, TILE_PX):
            tile = slice(top, top + TILE_PX), slice(left, left + TILE_PX)
            if known[tile].sum() >= LEAST_PIXELS:
                parts = (part[tile] for part in (picture.object, truth, picture.photons, known))
                errors.append(tile_errors(*parts))
                terms_of.append(terms[(slice(None), *tile)][:, known[tile]])
    return np.concatenate(errors), np.concatenate(terms_of, axis=1)


def main(weights: Path) -> None:
    """Fit the error bars of weights on disk, judge them, and write both into the file and its card."""
    network, card = load_network(weights)
    recipe = Recipe.model_validate(card.recipe)
    calibrate_sigma(network, recipe)
    model, transmission = calibrate_mosaic(network, recipe)
    metrics = card.metrics | judge(network, recipe)
    card = replace(card, error_model=asdict(model), transmission=transmission, metrics=metrics)
    save_network(weights, network, card)
    law = f"sigma x {network.sigma_scale:.3g} x photons^{network.sigma_exponent:.3f}"
    print(f"{weights}: {law}, {model}, transmission {transmission:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
