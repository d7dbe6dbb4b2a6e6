import csv
from pathlib import Path

import pytest
import torch

from launch.recipe import Recipe
from launch.train import Report, learning_rate, progress_bar, train
from stream.weights import load_network
from tests.launch.tiny_recipe import TINY_RECIPE


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def recipe() -> Recipe:
    return Recipe.model_validate(TINY_RECIPE)


class PowerCutError(Exception):
    """Ends a training from its report."""


def cut_at(step: int) -> object:
    def on_report(report: Report) -> None:
        if report.step == step:
            raise PowerCutError

    return on_report


def test_a_training_leaves_weights_card_and_log(tmp_path: Path, recipe: Recipe) -> None:
    card = train(recipe, tmp_path)
    network, loaded_card = load_network(tmp_path / "tiny.safetensors")
    assert loaded_card == card
    assert card.recipe == recipe.model_dump(mode="json")
    assert card.probe["disc_radius_px"] == pytest.approx((6.3, 7.7))
    assert network.sigma_scale > 0
    assert network.largest_intensity > 0
    rows = list(csv.DictReader((tmp_path / "tiny.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == [2, 4, 6]
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.safetensors", "tiny.json", "tiny.csv"}


def test_the_same_recipe_gives_the_same_weights(tmp_path: Path, recipe: Recipe) -> None:
    first, second = (train(recipe, tmp_path / name) for name in ("first", "second"))
    other = train(recipe.model_copy(update={"seed": 4}), tmp_path / "other")
    assert first.sha256 == second.sha256 != other.sha256
    assert first.metrics == second.metrics


def test_an_interrupted_training_ends_as_if_it_had_not_been(tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(PowerCutError):
        train(recipe, tmp_path / "cut", on_report=cut_at(4))
    assert not (tmp_path / "cut" / "tiny.safetensors").exists()
    resumed: list[Report] = []
    card = train(recipe, tmp_path / "cut", on_report=resumed.append)
    assert [report.step for report in resumed] == [6]
    assert card.sha256 == train(recipe, tmp_path / "whole").sha256
    logs = [(tmp_path / name / "tiny.csv").read_text() for name in ("cut", "whole")]
    assert logs[0] == logs[1]


def test_a_training_cut_before_its_evaluation_is_only_evaluated(tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(PowerCutError):
        train(recipe, tmp_path, on_report=cut_at(6))
    reports: list[Report] = []
    train(recipe, tmp_path, on_report=reports.append)
    assert reports == []
    assert (tmp_path / "tiny.safetensors").exists()


def test_the_checkpoint_of_another_recipe_is_refused(tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(PowerCutError):
        train(recipe, tmp_path, on_report=cut_at(2))
    with pytest.raises(ValueError, match=r"tiny\.checkpoint belongs to another recipe"):
        train(recipe.model_copy(update={"batch_size": 5}), tmp_path)


@pytest.mark.slow
def test_a_short_training_beats_the_constant_object(tmp_path: Path, recipe: Recipe) -> None:
    longer = recipe.model_copy(
        update={"n_steps": 400, "batch_size": 16, "n_textures": 50, "report_every": 100}
    )
    card = train(longer, tmp_path)
    assert card.metrics["patch_c"] < 0.75
    assert card.metrics["mosaic_c"] < card.metrics["patch_c"]
    assert card.metrics["coverage68"] == pytest.approx(0.68, abs=0.1)


def test_the_learning_rate_rises_and_falls_to_zero(recipe: Recipe) -> None:
    recipe = recipe.model_copy(update={"n_steps": 100, "warm_up_steps": 10})
    rates = [learning_rate(recipe, step) for step in range(100)]
    assert rates.index(max(rates)) == 9
    assert max(rates) == pytest.approx(recipe.learning_rate, rel=0.05)
    assert rates[-1] == pytest.approx(0)


def test_the_progress_bar_follows_the_reports(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(recipe) as show:
        show(Report(step=6, learning_rate=0.0, c=0.4321, sigma_loss=0.0))
    shown = capsys.readouterr().out
    assert "c 0.432" in shown
    assert "6/6" in shown
