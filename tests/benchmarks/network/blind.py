"""What is left of a network's accuracy when the probe is not known: `blind_retained`.

The probe is found from the first 96 frames of each scan as the stage `probe` does, which takes twice as
many where they do not tell, and again. Where none is found, no accuracy is left. Errors are those of whole
mosaics without shift, ramp and scale, with the known probe as with the others.
"""

from typing import Any

import numpy as np

from launch.training.evaluate import EvaluationScan, evaluation_probe, simulate_scans, trained_families
from launch.training.recipe import Recipe
from operators.arrays import Probe, abs2
from operators.engine.backends import get_backend
from operators.engine.probe_search import probe_from_burst
from operators.network.interface import Network
from operators.optics.probe import with_power, zone_plate_probe
from stream.files.weights import ModelCard
from tests.benchmarks.network.scans import mosaic_error

SEED = 2**32 + 6000
BURST = 96
OFF = (0.7, 1.3)  # of the true defocus


def blind(network: Network, card: ModelCard) -> dict[str, float]:
    """Return how much of the accuracy survives, means over one fresh object of each trained family.

    `blind_retained` is the error with the known probe over that with one from the mean pattern alone, the
    incident photons estimated; `blind_retained_flux` the same with the photons known,
    `blind_retained_defocus` where a probe 30 % out of focus was given; `blind_uncorrected` is the last
    without any correction. `blind_refused` is the share of scans without a probe where the photons are
    estimated.
    """
    recipe = Recipe.model_validate(card.recipe)
    one_each = recipe.evaluated_with(objects_per_family=1)
    scans = simulate_scans(one_each, trained_families(recipe), SEED)
    retained = np.array([_retained(network, card, recipe, scan) for scan in scans])
    names = ("blind_retained", "blind_retained_flux", "blind_retained_defocus", "blind_uncorrected")
    refused = {"blind_refused": float((retained[:, 0] == 0).mean())}
    return dict(zip(names, retained.mean(axis=0).tolist(), strict=True)) | refused


def _retained(network: Network, card: ModelCard, recipe: Recipe, scan: EvaluationScan) -> list[float]:
    known = evaluation_probe(recipe)
    photons = float(abs2(known).sum())
    error = mosaic_error(network, known, scan)
    guesses = [_out_of_focus(recipe, photons, off) for off in OFF]

    def retained(probe: Probe | None) -> float:
        return 0.0 if probe is None else error / mosaic_error(network, probe, scan)

    return [
        retained(_found(scan, transmission=card.transmission)),
        retained(_found(scan, photons=photons)),
        float(np.mean([retained(_found(scan, photons=photons, guess=guess)) for guess in guesses])),
        float(np.mean([retained(guess) for guess in guesses])),
    ]


def _found(scan: EvaluationScan, n_frames: int | None = None, **options: Any) -> Probe | None:
    n_frames = n_frames or BURST
    burst, positions_px = scan.patterns[:n_frames], scan.corners[:n_frames].astype(np.float64)
    try:
        return probe_from_burst(burst, positions_px, run_update=get_backend("auto").update, **options)
    except ValueError:
        return None if n_frames >= len(scan.patterns) else _found(scan, 2 * n_frames, **options)


def _out_of_focus(recipe: Recipe, photons: float, off: float) -> Probe:
    radii = recipe.probe.pupil_radius_px, off * recipe.probe.disc_radius_px
    return with_power(zone_plate_probe(recipe.n_pixels, *radii)[None], photons)
