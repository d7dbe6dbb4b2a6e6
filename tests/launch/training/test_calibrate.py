import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from launch.training.calibrate import calibrate_mosaic, calibrate_sigma, main
from launch.training.evaluate import EvaluationScan, evaluate, evaluation_probe, simulate_scans
from launch.training.recipe import Recipe, read_recipe
from launch.training.train import train
from operators.network.interface import Illumination, Network, Prediction
from operators.network.predictor import Predictor
from stream.files.weights import load_network, save_network
from tests.helpers.launch.tiny_recipe import TINY_RECIPE


class Constant(Network):
    """The same patch for every pattern, and an error bar that is further off with more photons."""

    def forward(self, intensities: Tensor, illumination: Illumination) -> Prediction:
        sigma = 0.001 * illumination.photons**0.2 * torch.ones_like(intensities)
        return Prediction(torch.full_like(intensities, 0.87, dtype=torch.complex64), sigma.log(), ())


@pytest.fixture(autouse=True)
def few_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    """To compile a network takes longer than to run it on so few."""
    monkeypatch.setattr("operators.network.predictor.has_openvino", lambda: False)
    monkeypatch.setattr("launch.training.calibrate.OBJECTS_PER_FAMILY", 2)


def test_calibrated_sigma_covers_68_percent_of_other_objects_at_every_dose() -> None:
    recipe, network = read_recipe().evaluated_with(n_positions=5), Constant(64)
    network.sigma_scale.fill_(7.0)
    calibrate_sigma(network, recipe)
    assert network.sigma_exponent.item() == pytest.approx(-0.2, abs=0.02)
    for photons in recipe.photons_per_frame:
        dosed = recipe.evaluated_with(photons_per_frame=photons)
        figures = evaluate(Predictor(network, evaluation_probe(dosed)), dosed)
        assert figures["coverage68"] == pytest.approx(0.683, abs=0.1)
        assert figures["coverage95"] > figures["coverage68"]


def test_error_bars_are_fitted_on_the_families_of_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: set[str] = set()

    def simulate(recipe: Recipe, families: tuple[str, ...], seed: int) -> Iterator[EvaluationScan]:
        drawn.update(families)
        yield from simulate_scans(recipe, families[:1], seed)

    monkeypatch.setattr("launch.training.calibrate.simulate_scans", simulate)
    small = read_recipe().evaluated_with(n_positions=5, objects_per_family=1)
    with_photographs = small.model_copy(update={"families": ("polygons", "natural")})
    calibrate_mosaic(Constant(64), with_photographs)
    assert drawn == {"polygons", "natural_unseen"}


def test_weights_on_disk_are_calibrated_and_judged_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launch.training.calibrate.OBJECTS_PER_FAMILY", 1)
    monkeypatch.setattr("launch.training.calibrate.N_DOSES", 2)
    path, recipe = tmp_path / "tiny.safetensors", Recipe.model_validate(TINY_RECIPE)
    trained = train(recipe, tmp_path)
    assert trained is not None
    network, _ = load_network(path)
    network.sigma_scale.fill_(9.0)
    save_network(path, network, replace(trained, error_model={}, metrics={"coverage68": 0.0, "own": 1.0}))
    main(path)
    _, card = load_network(path)
    assert card.model_id == trained.model_id, "the calibration comes out as it was"
    assert card.error_model == pytest.approx(trained.error_model)
    assert card.metrics == pytest.approx({**trained.metrics, "own": 1.0})
    assert all(math.isfinite(value) for value in card.metrics.values())
