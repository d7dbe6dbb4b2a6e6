"""The parts of `bench network` on scans of a few frames: they run, and figures mean what they say."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from launch.config_stages import DEMO_WEIGHTS
from launch.recipe import Recipe
from operators.network_interface import Network
from stream.weights import ModelCard, load_network
from tests.benchmarks import _network_patches
from tests.benchmarks._network_patches import PatchErrors, interval_of_increase, patch_figures, sparse_scans


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="module")
def shipped() -> tuple[Network, ModelCard]:
    return load_network(DEMO_WEIGHTS)


@pytest.fixture(scope="module")
def recipe(shipped: tuple[Network, ModelCard]) -> Recipe:
    """That of the shipped weights with two families and scans of 25 frames."""
    whole = Recipe.model_validate(shipped[1].recipe)
    few = whole.model_copy(update={"families": ("polygons", "siemens")})
    return few.evaluated_with(n_positions=5, objects_per_family=1)


def patch_errors(family: str, loose: float) -> PatchErrors:
    return PatchErrors(family, error=loose**2, variation=0.1, power=1.0, fine=0.1)


def test_the_error_of_patches_is_that_of_trained_and_of_unseen_families(
    shipped: tuple[Network, ModelCard], recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_network_patches, "N_POSITIONS", 3)
    figures = patch_figures(shipped[0], recipe, seeds=(1, 2), objects_per_family=1)
    assert figures["nrmse_loose_cnn"] < figures["nrmse_loose_constant"]
    assert figures["ood_increase_low"] <= figures["ood_increase"] <= figures["ood_increase_high"]
    assert figures["ood_objects"] == 4
    assert all(math.isfinite(value) for value in figures.values())


def test_a_sparse_scan_covers_the_field_of_the_whole_one(recipe: Recipe) -> None:
    whole = recipe.evaluated_with(n_positions=25).evaluation
    sparse = sparse_scans(recipe.evaluated_with(n_positions=25), 3).evaluation
    assert sparse.n_positions < whole.n_positions
    assert sparse.step_px * (sparse.n_positions - 1) == pytest.approx(whole.step_px * (whole.n_positions - 1))


def test_the_interval_of_an_increase_is_as_wide_as_objects_differ() -> None:
    rng = np.random.default_rng(0)
    trained = [patch_errors("polygons", 0.1) for _ in range(20)]
    alike = [patch_errors("glyphs", 0.13) for _ in range(20)]
    different = [patch_errors("glyphs", loose) for loose in rng.uniform(0.08, 0.18, 20)]
    assert interval_of_increase(trained, alike) == pytest.approx((0.3, 0.3))
    low, high = interval_of_increase(trained, different)
    assert low < 0.3 < high
    assert high - low > 0.05


def test_families_that_differ_do_not_widen_the_interval() -> None:
    """What is drawn anew are objects of the same families, not families."""
    trained = [patch_errors(family, loose) for family, loose in (("smooth", 0.05), ("siemens", 0.2)) * 5]
    unseen = [patch_errors("glyphs", 0.2) for _ in range(5)]
    low, high = interval_of_increase(trained, unseen)
    assert low == pytest.approx(high)
