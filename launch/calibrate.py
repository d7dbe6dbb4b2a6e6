"""Fit how a mosaic's error bars are made, on simulated objects that neither training nor evaluation has seen.

Separate from `launch.evaluate`, which judges: what is fitted here must be judged on other objects. Called at
the end of a training; the error model travels on the model card. `python -m launch.calibrate WEIGHTS` does it
for weights that have none. (That of the shipped weights was fitted on nine of their ten families: not on
photographs.)
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from launch.evaluate import CALIBRATION_SEED, LIT, evaluation_probe, simulate_scans, trained_families
from launch.recipe import Recipe
from operators.arrays import Array, Object, abs2
from operators.calibration import ErrorModel, fit_error_model, tile_errors
from operators.geometry import Bounds
from operators.network_interface import Network
from operators.predict import Predictor
from operators.stitch import Mosaic, stitch
from stream.weights import load_network, save_network

MOSAIC_SEED = CALIBRATION_SEED + 1000
TILE_PX = 64  # as published
LEAST_PIXELS = 256  # of a tile, from which on its offset is known
DOSES = (0.25, 1.0, 4.0)
"""Of the evaluation's photons: a network's own error hardly depends on them, the photon floor does."""


class MosaicErrors(NamedTuple):
    """Known pixels of a mosaic against the truth.

    Attributes
    ----------
    errors : (n,) float32, rad
        Without the offset of each tile.
    terms : (4, n) float32, rad^2
        See `operators.calibration.ErrorModel`.
    transmission : float
        Share of the light that came through.
    """

    errors: Array
    terms: Array
    transmission: float


def calibrate_mosaic(network: Network, recipe: Recipe) -> tuple[ErrorModel, float]:
    """Return the error model of the mosaics of a network whose own sigma is calibrated, and a transmission.

    The latter is the share of the light that such objects let through on average; where the beam's power is
    not known, it is what the network expects.

    Fitted on scans of the recipe's material, probe and trained families, each at one of `DOSES`. A recipe
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
    """Yield the errors of a mosaic of a fresh object of each family, for each of `DOSES`."""
    for i, dose in enumerate(DOSES):
        photons = dose * recipe.evaluation.photons_per_frame
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
    """Fit the error model of weights on disk and write it onto their card."""
    network, card = load_network(weights)
    model, transmission = calibrate_mosaic(network, Recipe.model_validate(card.recipe))
    save_network(weights, network, replace(card, error_model=asdict(model), transmission=transmission))
    print(f"{weights}: {model}, transmission {transmission:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
