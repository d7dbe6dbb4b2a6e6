"""The error of single patches, as the published work judges, on many objects of trained and unseen families.

Objects differ far more than the patches of one object do: of each only every n-th position of a scan is
looked at, and the interval of the comparison comes from drawing objects anew.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from launch.training.evaluate import (
    Outcome,
    evaluation_probe,
    outcome_of,
    patch_squares,
    simulate_scans,
    trained_families,
)
from launch.training.recipe import Recipe
from operators.arrays import abs2
from operators.network.interface import Network
from operators.network.predictor import Predictor
from operators.optics.samples import HELD_OUT_FAMILIES

OBJECTS_PER_FAMILY = 10  # for each seed
N_POSITIONS = 10  # along each side of the field
FINE_PX = 2.0  # standard deviation of the low-pass; what it takes away is the fine structure of an object
N_RESAMPLES = 2000


class PatchErrors(NamedTuple):
    """What the patches of one object add up to, weighted with the illumination, and the object's detail.

    `variation` is that of the truth about its mean in each patch, `power` all of it; `fine` is the root mean
    square of what a low-pass takes away from the object.
    """

    family: str
    error: float
    variation: float
    power: float
    fine: float


def patch_figures(
    network: Network, recipe: Recipe, seeds: Sequence[int], objects_per_family: int = OBJECTS_PER_FAMILY
) -> dict[str, float]:
    """Return the errors of patches by name, those of a constant object beside them.

    `ood_increase` is by how much the loose error of families never trained on is above that of the others,
    each pooled over all objects; `ood_increase_low` and `ood_increase_high` end its 95 % interval over
    objects. The two sets are not equally hard: `ood_fine_structure` is that of the unseen objects over
    that of the trained ones (medians), and `ood_increase_as_fine` the increase over trained objects of as
    fine a structure, by a power law fitted to them.
    """
    sparse = sparse_scans(recipe, objects_per_family)
    trained, unseen = (
        list(errors_of_objects(network, sparse, families, seeds))
        for families in (trained_families(recipe), HELD_OUT_FAMILIES)
    )
    (c, loose, constant), (c_unseen, loose_unseen, constant_unseen) = pooled(trained), pooled(unseen)
    low, high = interval_of_increase(trained, unseen)
    fine, fine_unseen = (float(np.median([each.fine for each in errors])) for errors in (trained, unseen))
    return {
        "nrmse_loose_cnn": loose,
        "nrmse_c_cnn": c,
        "nrmse_loose_constant": constant,
        "nrmse_c_constant": 1.0,
        "nrmse_loose_cnn_unseen": loose_unseen,
        "nrmse_c_cnn_unseen": c_unseen,
        "nrmse_loose_constant_unseen": constant_unseen,
        "ood_increase": loose_unseen / loose - 1,
        "ood_increase_low": low,
        "ood_increase_high": high,
        "ood_increase_as_fine": _increase_as_fine(trained, unseen),
        "ood_fine_structure": fine_unseen / fine,
        "ood_objects": float(len(unseen)),
    }


def patch_error(
    network: Network, recipe: Recipe, seeds: Sequence[int], objects_per_family: int = OBJECTS_PER_FAMILY
) -> float:
    """Return the error `c` of patches of the trained families at the photons of the recipe's evaluation."""
    sparse = sparse_scans(recipe, objects_per_family)
    return pooled(list(errors_of_objects(network, sparse, trained_families(recipe), seeds)))[0]


def sparse_scans(recipe: Recipe, objects_per_family: int) -> Recipe:
    """Return the recipe with evaluation scans of fewer positions on a field of the same size."""
    evaluation = recipe.evaluation
    n_positions = min(N_POSITIONS, evaluation.n_positions)
    step_px = evaluation.step_px * (evaluation.n_positions - 1) / (n_positions - 1)
    return recipe.evaluated_with(
        n_positions=n_positions, step_px=step_px, objects_per_family=objects_per_family
    )


def errors_of_objects(
    network: Network, recipe: Recipe, families: Sequence[str], seeds: Sequence[int]
) -> Iterator[PatchErrors]:
    """Yield what the network makes of fresh objects of each family, for each seed."""
    probe = evaluation_probe(recipe)
    predictor, weights = Predictor(network, probe), abs2(probe).sum(axis=0)
    for seed in seeds:
        for family in families:
            # Families draw from streams of their own: what one needs does not change the objects of another.
            for scan in simulate_scans(recipe, [family], seed):
                yield _errors_of(family, outcome_of(predictor, weights, scan), weights)


def interval_of_increase(
    trained: Sequence[PatchErrors], unseen: Sequence[PatchErrors], share: float = 0.95
) -> tuple[float, float]:
    """Return between what the increase of the loose error lies where objects are drawn anew."""
    rng = np.random.default_rng(0)
    increases = [
        pooled(_redrawn(unseen, rng))[1] / pooled(_redrawn(trained, rng))[1] - 1 for _ in range(N_RESAMPLES)
    ]
    low, high = np.quantile(increases, (0.5 - share / 2, 0.5 + share / 2))
    return float(low), float(high)


def _redrawn(errors: Sequence[PatchErrors], rng: np.random.Generator) -> list[PatchErrors]:
    """Return as many objects of each family, drawn with replacement."""
    redrawn = []
    for family in sorted({each.family for each in errors}):
        own = [each for each in errors if each.family == family]
        redrawn += [own[i] for i in rng.integers(len(own), size=len(own))]
    return redrawn


def _errors_of(family: str, outcome: Outcome, weights: np.ndarray) -> PatchErrors:
    object_ = outcome.scan.object
    fine = object_ - ndimage.gaussian_filter(object_, FINE_PX)
    return PatchErrors(family, *patch_squares(outcome, weights), float(np.sqrt(abs2(fine).mean())))


def pooled(errors: Sequence[PatchErrors]) -> tuple[float, float, float]:
    """Return `c`, loose, and the loose error of a constant."""
    error, variation, power = np.sum([each[1:4] for each in errors], axis=0).tolist()
    return (error / variation) ** 0.5, (error / power) ** 0.5, (variation / power) ** 0.5


def _increase_as_fine(trained: Sequence[PatchErrors], unseen: Sequence[PatchErrors]) -> float:
    def logarithms(errors: Sequence[PatchErrors]) -> tuple[np.ndarray, np.ndarray]:
        return np.log([e.fine for e in errors]), np.log([(e.error / e.power) ** 0.5 for e in errors])

    law = np.polyfit(*logarithms(trained), 1)
    fine, loose = logarithms(unseen)
    return float(np.exp(np.mean(loose - np.polyval(law, fine))) - 1)
