import copy
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from launch.config.config import DEMO_WEIGHTS
from launch.training.data import Simulator
from launch.training.descent import descend
from launch.training.recipe import Recipe
from launch.training.train import (
    TrainingReport,
    finish,
    initial_weights,
    learning_rate,
    progress_bar,
    start_network,
    told_where_to_go_on,
    train,
)
from operators.optics import forward
from stream.files.weights import ModelCard, load_network
from tests.helpers.launch.tiny_recipe import TINY_RECIPE

pytestmark = pytest.mark.usefixtures("short_calibration")


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return Recipe.model_validate(TINY_RECIPE)


@dataclass(frozen=True)
class Trained:
    """What one training by the recipe left, for tests that only read it."""

    folder: Path
    card: ModelCard

    @property
    def weights(self) -> Path:
        return self.folder / "tiny.safetensors"


@pytest.fixture(scope="module")
def trained(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory, short_calibration: None) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    card = train(recipe, folder)
    assert card is not None
    return Trained(folder, card)


class PowerCutError(Exception):
    """Ends a training from its report."""


def cut_at(step: int) -> object:
    def on_report(report: TrainingReport) -> None:
        if report.step == step:
            raise PowerCutError

    return on_report


def test_a_training_leaves_weights_card_and_log(trained: Trained, recipe: Recipe) -> None:
    card = trained.card
    network, loaded_card = load_network(trained.weights)
    assert loaded_card == card
    assert card.recipe == recipe.model_dump(mode="json")
    assert card.probe["disc_radius_px"] == pytest.approx((6.3, 7.7))
    assert network.sigma_scale > 0
    assert network.largest_intensity > 0
    rows = list(csv.DictReader((trained.folder / "tiny.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == [2, 4, 6]
    assert {path.name for path in trained.folder.iterdir()} == {"tiny.safetensors", "tiny.json", "tiny.csv"}


@pytest.mark.slow
def test_the_same_recipe_gives_the_same_weights(tmp_path: Path, recipe: Recipe) -> None:
    first, second = (train(recipe, tmp_path / name) for name in ("first", "second"))
    other = train(recipe.model_copy(update={"seed": 4}), tmp_path / "other")
    assert first.sha256 == second.sha256 != other.sha256
    assert first.metrics == second.metrics


def test_an_interrupted_training_ends_as_if_it_had_not_been(
    tmp_path: Path, recipe: Recipe, trained: Trained
) -> None:
    with pytest.raises(PowerCutError):
        train(recipe, tmp_path, on_report=cut_at(4))
    assert not (tmp_path / "tiny.safetensors").exists()
    resumed: list[TrainingReport] = []
    card = train(recipe, tmp_path, on_report=resumed.append)
    assert [report.step for report in resumed] == [6]
    assert card.sha256 == trained.card.sha256
    logs = [(folder / "tiny.csv").read_text() for folder in (tmp_path, trained.folder)]
    assert logs[0] == logs[1]


def test_a_training_cut_before_its_evaluation_is_only_evaluated(tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(PowerCutError):
        train(recipe, tmp_path, on_report=cut_at(6))
    reports: list[TrainingReport] = []
    train(recipe, tmp_path, on_report=reports.append)
    assert reports == []
    assert (tmp_path / "tiny.safetensors").exists()


def test_a_training_goes_on_where_random_numbers_have_another_state(tmp_path: Path, recipe: Recipe) -> None:
    """A GPU's generator, whose state is shorter; what it would have drawn next cannot be drawn here."""
    with pytest.raises(PowerCutError):
        train(recipe, tmp_path, on_report=cut_at(4))
    checkpoint = tmp_path / "tiny.checkpoint"
    with safe_open(checkpoint, framework="pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    save_file(tensors | {"generator": tensors["generator"][:16]}, checkpoint, metadata)
    resumed: list[TrainingReport] = []
    assert train(recipe, tmp_path, on_report=resumed.append) is not None
    assert [report.step for report in resumed] == [6]


def test_who_ends_a_training_is_told_where_it_goes_on(
    tmp_path: Path, recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt), told_where_to_go_on(recipe, tmp_path):
        raise KeyboardInterrupt
    assert capsys.readouterr().out == "ended before step 2, the first that is kept\n"
    (tmp_path / "tiny.checkpoint").touch()
    with pytest.raises(KeyboardInterrupt), told_where_to_go_on(recipe, tmp_path):
        raise KeyboardInterrupt
    assert capsys.readouterr().out == f"ended; the same command goes on from {tmp_path}/tiny.checkpoint\n"


def test_finished_weights_and_a_log_of_something_else_are_kept_and_a_checkpoint_goes_on(
    tmp_path: Path, recipe: Recipe, trained: Trained
) -> None:
    with pytest.raises(FileExistsError, match=r"tiny\.safetensors, .*tiny\.json, .*tiny\.csv: there already"):
        train(recipe, trained.folder)
    (tmp_path / "tiny.csv").write_text("mine")
    with pytest.raises(FileExistsError, match=r"tiny\.csv: there already"):
        train(recipe, tmp_path)
    with pytest.raises(ValueError, match="would replace what is read"):
        again = {"initial_weights": Path("tiny.safetensors")}
        train(recipe.model_copy(update=again), trained.folder, overwrite=True)
    assert (tmp_path / "tiny.csv").read_text() == "mine"


def test_the_checkpoint_of_another_recipe_is_refused(tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(PowerCutError):
        train(recipe, tmp_path, on_report=cut_at(2))
    with pytest.raises(ValueError, match=r"tiny\.checkpoint belongs to another recipe"):
        train(recipe.model_copy(update={"batch_size": 5}), tmp_path)


def test_a_training_goes_on_from_weights_and_its_card_says_from_which(
    tmp_path: Path, recipe: Recipe, trained: Trained
) -> None:
    changes = {"name": "second", "initial_weights": trained.weights, "learning_rate": 1e-9}
    second = train(recipe.model_copy(update=changes), tmp_path)
    assert second is not None
    assert second.parent == trained.card.model_id != second.model_id
    networks = [load_network(path)[0] for path in (trained.weights, tmp_path / "second.safetensors")]
    for one, other in zip(*(network.parameters() for network in networks), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_error_bars_are_calibrated_anew_whatever_the_weights_bring(
    tmp_path: Path, recipe: Recipe, trained: Trained
) -> None:
    network, _ = load_network(trained.weights)
    scale = network.sigma_scale.item()
    network.sigma_scale.fill_(5 * scale)
    network.sigma_exponent.fill_(0.3)
    finish(recipe, network, "", tmp_path, "cpu")
    again, _ = load_network(tmp_path / "tiny.safetensors")
    assert again.sigma_scale.item() == pytest.approx(scale, rel=1e-3)
    assert again.sigma_exponent == 0, "there is nothing to fit to one dose"


def test_a_training_goes_on_in_a_smaller_window(tmp_path: Path, recipe: Recipe, trained: Trained) -> None:
    smaller = recipe.network_config | {"crop": recipe.network_config["crop"] - 8}
    changes = {"name": "second", "initial_weights": trained.weights, "network_config": smaller}
    card = train(recipe.model_copy(update=changes), tmp_path)
    assert card is not None
    assert load_network(tmp_path / "second.safetensors")[0].config.crop == smaller["crop"]


def test_a_training_begins_with_the_first_stages_of_a_network_of_more(
    tmp_path: Path, recipe: Recipe, trained: Trained
) -> None:
    assert load_network(trained.weights)[0].config.n_stages > 1
    fewer = recipe.network_config | {"n_stages": 1}
    changes = {"initial_weights": trained.weights, "network_config": fewer, "learning_rate": 1e-9}
    card = train(recipe.model_copy(update=changes), tmp_path)
    assert card is not None
    paths = trained.weights, tmp_path / trained.weights.name
    before, after = (dict(load_network(path)[0].named_parameters()) for path in paths)
    assert set(after) == {name for name in before if not name.startswith("stages.1.")}
    for name, values in after.items():
        torch.testing.assert_close(values, before[name], atol=1e-6, rtol=0)


def test_the_shipped_weights_to_begin_with_go_by_their_name(tmp_path: Path, recipe: Recipe) -> None:
    named = recipe.model_copy(update={"initial_weights": Path("demo")})
    assert initial_weights(named, tmp_path) == DEMO_WEIGHTS
    assert initial_weights(recipe, tmp_path) is None


def test_weights_of_another_network_to_go_on_from_are_refused(
    tmp_path: Path, recipe: Recipe, trained: Trained
) -> None:
    wider = recipe.network_config | {"widths": [16, 48]}
    changes = {"name": "second", "initial_weights": trained.weights, "network_config": wider}
    with pytest.raises(ValueError, match=r"tiny\.safetensors holds physics.*32.*the recipe wants.*48"):
        train(recipe.model_copy(update=changes), tmp_path)


@pytest.mark.parametrize("changes", [{"loss": "amplitude_phase"}, {"optimiser": "adam"}])
def test_loss_and_optimiser_are_those_of_the_recipe(
    tmp_path: Path, recipe: Recipe, trained: Trained, changes: dict[str, object]
) -> None:
    card = train(recipe.model_copy(update=changes), tmp_path)
    assert card is not None
    assert card.sha256 != trained.card.sha256


def test_gradients_are_cut_only_where_the_recipe_says_at_what(recipe: Recipe) -> None:
    network, _ = start_network(recipe, Path(), "cpu")
    batch = Simulator(recipe).draw(4, torch.Generator().manual_seed(0))
    steps = {}
    for most in (None, 1e9, 1e-3):
        learning = copy.deepcopy(network)
        optimiser = torch.optim.SGD(learning.parameters(), lr=1.0)
        descend(recipe.model_copy(update={"gradient_clip": most}), learning, optimiser, batch)
        moved = zip(learning.parameters(), network.parameters(), strict=True)
        steps[most] = float(sum((after - before).detach().square().sum() for after, before in moved)) ** 0.5
    assert steps[None] == pytest.approx(steps[1e9])
    assert steps[None] > 2e-3
    assert steps[1e-3] == pytest.approx(1e-3, rel=0.01)


@pytest.mark.parametrize("name", ["ptychonet", "ptychonn"])
def test_networks_of_the_literature_are_trained_by_the_same_loop(
    tmp_path: Path, recipe: Recipe, name: str
) -> None:
    config = {"n_pixels": 32, "widths": [8, 16]}
    card = train(recipe.model_copy(update={"network": name, "network_config": config}), tmp_path)
    assert card is not None
    assert card.network == name
    assert np.isfinite(list(card.metrics.values())).all()


@pytest.mark.slow
def test_a_network_is_trained_calibrated_and_judged_on_imperfect_detectors_and_probes(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    detect = forward.detect
    monkeypatch.setattr(forward, "detect", lambda *values: seen.append(values) or detect(*values))
    probe = {"coherence_px": [10, 40], "travel_px": [0, 2], "blur_px": [0, 1], "n_modes": 3}
    effects = {"gain_spread": [0, 0.05], "dead_share": 0.01, "hot_share": 0.01, "background": [0, 1]}
    effects |= {"beam_stop_px": [0, 2], "gap_px": [0, 3], "saturation": [500, 5000], "flux_spread": 0.1}
    fields = TINY_RECIPE | {"probe": TINY_RECIPE["probe"] | probe, "effects": effects | {"n_detectors": 3}}
    fields["evaluation"] = TINY_RECIPE["evaluation"] | {"draws_probes": True}
    recipe = Recipe.model_validate(fields)
    card = train(recipe, tmp_path)
    assert card is not None
    assert Recipe.model_validate(card.recipe) == recipe
    assert np.isfinite(list(card.metrics.values())).all()
    assert {name.removeprefix("drawn_probe_") for name in card.metrics if name.startswith("drawn_")} == {
        name for name in card.metrics if not name.startswith(("drawn_", "unseen_"))
    }
    assert seen, "scans to judge by were counted by imperfect detectors"


def test_convolutions_are_trained_in_bfloat16_where_the_recipe_says_so(
    tmp_path: Path, recipe: Recipe, trained: Trained
) -> None:
    assert not recipe.bfloat16
    card = train(recipe.model_copy(update={"bfloat16": True}), tmp_path)
    assert card is not None
    logs = []
    for folder, metrics in ((trained.folder, trained.card.metrics), (tmp_path, card.metrics)):
        assert np.isfinite(list(metrics.values())).all()
        network, _ = load_network(folder / "tiny.safetensors")
        assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
        rows = csv.DictReader((folder / "tiny.csv").read_text().splitlines())
        logs.append([float(row["c"]) for row in rows])
    assert logs[1] != logs[0]
    assert logs[1] == pytest.approx(logs[0], rel=0.05)


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


def test_a_rate_that_falls_in_steps_is_halved_at_each(recipe: Recipe) -> None:
    changes = {"n_steps": 100, "warm_up_steps": 1, "schedule": "steps", "decay_steps": 40}
    recipe = recipe.model_copy(update=changes)
    rates = [learning_rate(recipe, step) / recipe.learning_rate for step in (0, 39, 40, 79, 80, 99)]
    assert rates == pytest.approx([1, 1, 0.5, 0.5, 0.25, 0.25])


def test_a_trapezoid_stays_up_until_its_last_steps(recipe: Recipe) -> None:
    changes = {"n_steps": 100, "warm_up_steps": 10, "schedule": "trapezoid", "decay_steps": 20}
    recipe = recipe.model_copy(update=changes)
    rates = [learning_rate(recipe, step) / recipe.learning_rate for step in (0, 9, 50, 79, 89, 99)]
    assert rates == pytest.approx([0.1, 1, 1, 1, 0.5, 0])


def test_the_progress_bar_follows_the_reports(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(recipe) as show:
        show(TrainingReport(step=6, learning_rate=0.0, c=0.4321, sigma_loss=0.0))
    shown = capsys.readouterr().out
    assert "c 0.432" in shown
    assert "6/6" in shown
