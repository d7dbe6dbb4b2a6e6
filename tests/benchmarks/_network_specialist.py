"""What a network makes of the unseen families that was trained on nothing else: how much harder they are.

`bench network` compares families that training never draws from with those that it does. What a network that
knows them still loses there is how much harder they are, and no training of it on others would undo that.
Takes a quarter of an hour on one core, so it is no part of the benchmark:
`python -m tests.benchmarks._network_specialist`.
"""

import tempfile
from pathlib import Path

import torch
from rich.console import Console

from launch.config.stages import DEMO_WEIGHTS
from launch.training.evaluate import trained_families
from launch.training.recipe import Recipe
from launch.training.train import progress_bar, train
from operators.network.interface import Network
from operators.optics.samples import HELD_OUT_FAMILIES
from stream.files.weights import load_network
from tests.benchmarks._network_patches import (
    OBJECTS_PER_FAMILY,
    errors_of_objects,
    interval_of_increase,
    pooled,
    sparse_scans,
)
from tests.benchmarks.network import MORE_SEEDS

N_STEPS = 9000
N_TEXTURES = 1500


def specialist_of(recipe: Recipe, n_steps: int, folder: Path) -> Network:
    """Return the shipped network after a training on nothing but the families that it never saw."""
    changes = {
        "name": "specialist",
        "families": HELD_OUT_FAMILIES,  # which no recipe on disk may name
        "initial_weights": DEMO_WEIGHTS,
        "n_textures": N_TEXTURES,
        # just as they are judged
        **dict.fromkeys(("blended", "toned", "warped"), 0.0),
        "n_steps": n_steps,
        "batch_size": 16,
        "learning_rate": 7e-4,
        "schedule": "cosine",
        "warm_up_steps": 200,
    }
    few_scans = recipe.evaluated_with(n_positions=6, objects_per_family=1)
    own = few_scans.model_copy(update=changes)
    with progress_bar(own) as on_report:
        train(own, folder, on_report=on_report)
    return load_network(folder / "specialist.safetensors")[0]


def specialist_figures(
    n_steps: int = N_STEPS, objects_per_family: int = OBJECTS_PER_FAMILY
) -> dict[str, float]:
    """Return the loose error of patches of the unseen families over that of the trained ones, less 1.

    `ood_increase` is that of the shipped network, `specialist_increase` of the one that knows the unseen
    families and nothing else, beside the shipped network's error on the trained ones; `_low` and `_high` end
    its 95 % interval. `ood_over_specialist` compares the two on the unseen families: what not knowing them
    costs.
    """
    torch.set_num_threads(1)
    shipped, card = load_network(DEMO_WEIGHTS)
    recipe = Recipe.model_validate(card.recipe)
    with tempfile.TemporaryDirectory(prefix="specialist-") as folder:
        specialist = specialist_of(recipe, n_steps, Path(folder))
    scans = sparse_scans(recipe, objects_per_family)
    trained = list(errors_of_objects(shipped, scans, trained_families(recipe), MORE_SEEDS))
    unseen, known = (
        list(errors_of_objects(network, scans, HELD_OUT_FAMILIES, MORE_SEEDS))
        for network in (shipped, specialist)
    )
    on_trained, on_unseen, by_specialist = (pooled(errors)[1] for errors in (trained, unseen, known))
    low, high = interval_of_increase(trained, known)
    return {
        "ood_increase": on_unseen / on_trained - 1,
        "ood_over_specialist": on_unseen / by_specialist - 1,
        "specialist_increase": by_specialist / on_trained - 1,
        "specialist_increase_low": low,
        "specialist_increase_high": high,
    }


if __name__ == "__main__":
    Console().print(specialist_figures())
