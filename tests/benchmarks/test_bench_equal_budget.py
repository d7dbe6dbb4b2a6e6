"""PtychoNet and the default network side by side in `bench network`: the same data, the same budget."""

from pathlib import Path

import pytest
import torch

from launch.training.recipe import Recipe, read_recipe
from operators.network.registry import NETWORKS
from tests.benchmarks import _network_equal_budget
from tests.benchmarks._network_equal_budget import LEARNING, RECIPES, recipe_of, trained_for
from tests.helpers.tiny_recipe import TINY_RECIPE

OWN = {*LEARNING, "name", "network_config"}


def test_both_learn_from_the_same_data_and_are_judged_by_the_same() -> None:
    one, other = (recipe_of(name, read_recipe()).model_dump(exclude=OWN) for name in RECIPES)
    assert one == other
    assert one["families"] == read_recipe().families
    assert one["probe"]["n_probes"] == 1


@pytest.mark.parametrize("name", RECIPES)
def test_each_learns_as_its_own_recipe_says(name: str) -> None:
    recipe = Recipe.model_validate(recipe_of(name, read_recipe()).model_dump())
    assert recipe.network == name
    assert recipe.loss == {"ptychonet": "amplitude_phase", "physics": "complex"}[name]
    NETWORKS[name](**recipe.network_config)


def test_a_larger_budget_is_worth_more_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr("launch.training.calibrate.OBJECTS_PER_FAMILY", 1)
    monkeypatch.setattr("launch.training.calibrate.N_DOSES", 1)
    monkeypatch.setattr(_network_equal_budget, "seconds_per_step", lambda recipe, folder: 0.1)
    recipe = Recipe.model_validate(TINY_RECIPE)
    few, more = (trained_for(recipe, budget_s) for budget_s in (0.2, 0.6))
    assert (few[2], more[2]) == (2 * recipe.batch_size, 6 * recipe.batch_size)
    assert few[0].sha256 != more[0].sha256
    assert more[1] > 0


def test_a_step_is_timed_without_a_training_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_network_equal_budget, "TIMED_STEPS", 2)
    assert _network_equal_budget.seconds_per_step(Recipe.model_validate(TINY_RECIPE), tmp_path) > 0
    assert not list(tmp_path.glob("*.safetensors"))
