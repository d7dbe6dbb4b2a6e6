"""What 30 processor seconds of learning from a scan bring, and what they cost.

The material was never trained. The first half of the scan is refined as far as a run gets and learned from;
the error is that of the patches of the second half against the truth.
"""

import time
from collections.abc import Callable

import numpy as np
import torch

from launch.config.sections import FinetuneConfig
from launch.training.evaluate import evaluation_probe, simulate_scans
from launch.training.finetune import BLENDS
from launch.training.recipe import Recipe
from launch.training.tuning import LabelledPatterns, Tuner
from operators.arrays import Array, Patches, abs2
from operators.network.interface import Network
from operators.patches import extract_patches
from stream.files.weights import ModelCard
from tests.benchmarks.network.scans import refined_to, refiner_of

SEED = 2**32 + 7000
UNSEEN = {
    "absorption": (0.9, 0.9),
    "phase_shift_rad": (0.3, 0.3),
}  # the trained one shifts the phase and hardly absorbs
FAMILY = "voronoi"
BUDGET_S = 30.0
REFINED_EPOCHS = 30.0


def finetune(
    network: Network, card: ModelCard, processor_clock: Callable[[], float] = time.process_time
) -> dict[str, float]:
    """Return by what share the error on unseen ground falls, and that on old samples rises, by name.

    As in a run, the largest blend of old and new weights that forgets no more than is allowed is used.
    """
    recipe = Recipe.model_validate(card.recipe)
    other = recipe.model_copy(update={"material": recipe.material.model_copy(update=UNSEEN)})
    scan = next(simulate_scans(other, (FAMILY,), SEED))
    probe, half = evaluation_probe(recipe), len(scan.corners) // 2
    refiner = refiner_of(scan.patterns[:half], scan.corners[:half], probe, algorithm="epie")
    snapshot = refined_to(refiner, REFINED_EPOCHS)
    n_pixels = recipe.n_pixels
    labels = extract_patches(snapshot.object, scan.corners[:half] - snapshot.bounds.origin, n_pixels)
    truth = extract_patches(scan.object, scan.corners[half:], n_pixels)
    shares = scan.patterns / np.float32(abs2(probe).sum())
    seen, unseen = _samples(shares[:half], labels), _samples(shares[half:], truth)

    tuner = Tuner(network, recipe, torch.from_numpy(probe), FinetuneConfig())
    ends_at = processor_clock() + BUDGET_S
    while processor_clock() < ends_at:
        tuner.step(seen)
    before, most = tuner.error(network, unseen), FinetuneConfig().most_forgotten
    for share in BLENDS:
        tuned = tuner.blended(share)
        forgotten = tuner.forgotten(tuned)
        if forgotten <= most:
            break
    return {
        "finetune_gain": 1 - tuner.error(tuned, unseen) / before,
        "finetune_forgetting": forgotten,
        "finetune_error_before": before,
        "finetune_blend": share,
        "finetune_steps": float(tuner.n_steps),
    }


def _samples(intensities: Array, objects: Patches) -> LabelledPatterns:
    return LabelledPatterns(torch.from_numpy(intensities), torch.from_numpy(objects))
