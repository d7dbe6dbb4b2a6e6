from pathlib import Path

import numpy as np
import pytest
import torch

from launch.config.config import DEMO_WEIGHTS as WEIGHTS
from launch.config.config import FAST_WEIGHTS
from launch.training.evaluate import (
    evaluate,
    evaluation_probe,
    scan_figures,
    simulate_scans,
)
from launch.training.recipe import DEMO_RECIPE, Recipe, read_recipe
from operators.arrays import abs2
from operators.network.predictor import Predictor
from stream.files.weights import ModelCard, load_network

FAST_RECIPE = DEMO_RECIPE.with_name("train-fast.yaml")


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """The demo's recipe, with scans small enough for a test."""
    small = read_recipe().evaluation.model_copy(update={"n_positions": 6, "objects_per_family": 1})
    return read_recipe().model_copy(update={"evaluation": small})


@pytest.fixture(scope="module")
def predictor(recipe: Recipe) -> Predictor:
    return Predictor(load_network(WEIGHTS)[0], evaluation_probe(recipe))


@pytest.fixture(scope="module")
def card() -> ModelCard:
    return load_network(WEIGHTS)[1]


def test_the_shipped_weights_come_from_the_demo_recipe(card: ModelCard) -> None:
    assert Recipe.model_validate(card.recipe) == read_recipe()


def test_the_fast_weights_come_from_their_recipe_and_from_the_others(card: ModelCard) -> None:
    network, fast = load_network(FAST_WEIGHTS)
    assert Recipe.model_validate(fast.recipe) == read_recipe(FAST_RECIPE)
    assert fast.parent == card.model_id
    assert network.n_pixels == load_network(WEIGHTS)[0].n_pixels
    assert fast.probe == card.probe, "what one is trained for the other is, too"
    assert fast.photons_per_frame == card.photons_per_frame


@pytest.mark.slow
@pytest.mark.parametrize("weights", [WEIGHTS, FAST_WEIGHTS], ids=["demo", "demo-fast"])
def test_the_figures_on_the_card_can_be_measured_again(weights: Path) -> None:
    network, card = load_network(weights)
    recipe = Recipe.model_validate(card.recipe)
    predictor = Predictor(network, evaluation_probe(recipe), dtype=torch.float32)
    assert evaluate(predictor, recipe) == pytest.approx(card.metrics, rel=1e-3)


def test_the_shipped_weights_see_small_scans_of_unseen_objects(predictor: Predictor, recipe: Recipe) -> None:
    figures = evaluate(predictor, recipe)
    assert figures["mosaic_c"] < figures["patch_c"] < 0.4
    assert figures["unseen_mosaic_c"] < figures["unseen_patch_c"] < 0.7
    assert figures["coverage68"] == pytest.approx(0.68, abs=0.1)


def test_the_fast_weights_see_small_scans_nearly_as_well(recipe: Recipe) -> None:
    figures = evaluate(Predictor(load_network(FAST_WEIGHTS)[0], evaluation_probe(recipe)), recipe)
    assert figures["mosaic_c"] < figures["patch_c"] < 0.5
    assert figures["unseen_mosaic_c"] < figures["unseen_patch_c"] < 0.8
    assert figures["coverage68"] == pytest.approx(0.68, abs=0.1)


def test_bad_pixels_and_gaps_cost_the_shipped_network_little(recipe: Recipe) -> None:
    probe = evaluation_probe(recipe)
    weights, network = abs2(probe).sum(axis=0), load_network(WEIGHTS)[0]
    scan, *_ = simulate_scans(recipe, ("voronoi",), seed=5)

    def error(mask: np.ndarray, *, is_told: bool) -> float:
        predictor = Predictor(network, probe, mask=mask if is_told else None)
        masked = scan._replace(patterns=scan.patterns * mask)
        return scan_figures(predictor, weights, [masked])["patch_c"]

    complete = np.ones((64, 64), bool)
    dead, gap = np.random.default_rng(0).random((64, 64)) > 0.01, complete.copy()
    gap[:, 4:7] = False
    assert error(dead, is_told=True) < 1.05 * error(complete, is_told=True)
    assert error(gap, is_told=True) < 1.5 * error(complete, is_told=True)
    assert error(gap, is_told=False) > 2 * error(gap, is_told=True)


def test_shipped_predictions_do_not_depend_on_batch_mates(predictor: Predictor, recipe: Recipe) -> None:
    scan, *_ = simulate_scans(recipe, ("polygons",), seed=5)
    order = np.random.default_rng(0).permutation(len(scan.patterns))
    for straight, shuffled in zip(
        predictor.predict(scan.patterns), predictor.predict(scan.patterns[order]), strict=True
    ):
        np.testing.assert_allclose(straight[order], shuffled, rtol=1e-5, atol=1e-5)  # runs of two sizes
