"""The parts of the benchmark `network` on scans of a few frames: they run, and figures mean what they say."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from launch.config.config import DEMO_WEIGHTS
from launch.training.evaluate import evaluation_probe, simulate_scans, trained_families
from launch.training.recipe import Recipe, read_recipe
from operators.arrays import Probe
from operators.mosaic.error_bars import ErrorModel
from operators.network.interface import Network
from operators.network.predictor import Predictor
from stream.files.weights import ModelCard, load_network
from tests.benchmarks.network import blind as blind_probe
from tests.benchmarks.network import comparison, effects, patch_errors, recorded
from tests.benchmarks.network.arena import Arena
from tests.benchmarks.network.blind import blind
from tests.benchmarks.network.effects import effects_figures
from tests.benchmarks.network.patch_errors import (
    PatchErrors,
    interval_of_increase,
    patch_error,
    patch_figures,
    sparse_scans,
)
from tests.benchmarks.network.recorded import recorded_figures
from tests.benchmarks.network.uncertainty import ause, bars
from tests.helpers.recorded_data import needs_shared_data


@pytest.fixture(autouse=True)
def no_compiled_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """To compile one takes longer than to run it on so few patterns."""
    monkeypatch.setattr("operators.network.predictor.has_openvino", lambda: False)


@pytest.fixture(scope="module")
def shipped() -> tuple[Network, ModelCard]:
    return load_network(DEMO_WEIGHTS)


@pytest.fixture(scope="module")
def recipe(shipped: tuple[Network, ModelCard]) -> Recipe:
    """That of the shipped weights with two families and scans of 25 frames."""
    whole = Recipe.model_validate(shipped[1].recipe)
    few = whole.model_copy(update={"families": ("polygons", "siemens")})
    return few.evaluated_with(n_positions=5, objects_per_family=1)


@pytest.fixture(scope="module")
def arena(recipe: Recipe) -> Arena:
    """Wide enough for slow variations of phase."""
    scan = next(simulate_scans(recipe.evaluated_with(n_positions=12), ["polygons"], seed=1))
    return Arena(scan, evaluation_probe(recipe))


def errors_of_one(family: str, loose: float) -> PatchErrors:
    return PatchErrors(family, error=loose**2, variation=0.1, power=1.0, fine=0.1)


def test_the_error_of_patches_is_that_of_trained_and_of_unseen_families(
    shipped: tuple[Network, ModelCard], recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patch_errors, "N_POSITIONS", 3)
    figures = patch_figures(shipped[0], recipe, seeds=(1, 2), objects_per_family=1)
    assert figures["nrmse_loose_cnn"] < figures["nrmse_loose_constant"]
    assert figures["ood_increase_low"] <= figures["ood_increase"] <= figures["ood_increase_high"]
    assert figures["ood_objects"] == 4
    assert all(math.isfinite(value) for value in figures.values())


def test_fewer_photons_cost_patches_something(
    shipped: tuple[Network, ModelCard], recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patch_errors, "N_POSITIONS", 3)
    few, many = (
        patch_error(shipped[0], recipe.evaluated_with(photons_per_frame=photons), [1], objects_per_family=2)
        for photons in (1e4, 1e6)
    )
    assert 0 < many < few < 1


def test_what_a_beamline_does_costs_something_and_not_all(
    shipped: tuple[Network, ModelCard], recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effects, "N_POSITIONS", 6)
    figures = effects_figures(shipped[0], recipe.model_copy(update={"families": ("polygons",)}))
    assert figures["ideal_patch_c"] < figures["background_patch_c"] < figures["blur_patch_c"]
    assert figures["blur_told_patch_c"] < figures["blur_patch_c"]
    assert figures["blur_told_coverage95"] > figures["blur_coverage95"]
    assert all(figures[f"{name}_patch_c"] < 1 for name in ("bad_pixels", "gap", "beam_stop", "blur"))


def test_a_sparse_scan_covers_the_field_of_the_whole_one(recipe: Recipe) -> None:
    whole = recipe.evaluated_with(n_positions=25).evaluation
    sparse = sparse_scans(recipe.evaluated_with(n_positions=25), 3).evaluation
    assert sparse.n_positions < whole.n_positions
    assert sparse.step_px * (sparse.n_positions - 1) == pytest.approx(whole.step_px * (whole.n_positions - 1))


def test_the_interval_of_an_increase_is_as_wide_as_objects_differ() -> None:
    rng = np.random.default_rng(0)
    trained = [errors_of_one("polygons", 0.1) for _ in range(20)]
    alike = [errors_of_one("glyphs", 0.13) for _ in range(20)]
    different = [errors_of_one("glyphs", loose) for loose in rng.uniform(0.08, 0.18, 20)]
    assert interval_of_increase(trained, alike) == pytest.approx((0.3, 0.3))
    low, high = interval_of_increase(trained, different)
    assert low < 0.3 < high
    assert high - low > 0.05


def test_families_that_differ_do_not_widen_the_interval() -> None:
    """What is drawn anew are objects of the same families, not families."""
    trained = [errors_of_one(family, loose) for family, loose in (("smooth", 0.05), ("siemens", 0.2)) * 5]
    unseen = [errors_of_one("glyphs", 0.2) for _ in range(5)]
    low, high = interval_of_increase(trained, unseen)
    assert low == pytest.approx(high)


def test_a_flat_start_is_levelled_only_where_that_is_asked_for(arena: Arena) -> None:
    """The arm from the mosaic is levelled: only a levelled flat start differs by nothing but the start."""
    as_published, levelled = (arena.flat("epie", 20, levels=levels) for levels in (False, True))
    assert not np.array_equal(as_published.object, levelled.object)
    assert arena.flat("epie", 20) is as_published


def test_epochs_to_an_error_are_those_of_the_arm_that_was_asked(arena: Arena) -> None:
    for levels in (False, True):
        reached = arena.flat("epie", 8, levels=levels).error.c
        assert arena.epochs_to("epie", reached, (2, 8), levels=levels) == pytest.approx(8)
        assert arena.epochs_to("epie", 0.0, (2, 8), levels=levels) == 8


def test_what_network_and_iterations_make_of_a_scan_has_a_figure(
    shipped: tuple[Network, ModelCard], recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stops in ("RPIE_STOPS", "EPIE_STOPS"):
        monkeypatch.setattr(comparison, stops, (2, 4))
    monkeypatch.setattr(comparison, "MANY_EPOCHS", 4)
    predictor = Predictor(shipped[0], evaluation_probe(recipe))
    specimens = [comparison._specimen(recipe, predictor, family, seed=1) for family in recipe.families]
    figures = comparison._mosaics(specimens) | comparison._refined(specimens) | comparison._costs(specimens)
    assert all(math.isfinite(value) and value > 0 for value in figures.values())
    for end in ("", "_levelled"):
        ratio = figures["nrmse_c_cnn20"] / figures[f"nrmse_c_epie200{end}"]
        assert figures[f"cnn20_over_epie200{end}"] == pytest.approx(ratio)


def test_ranking_is_scored_from_perfect_to_chance() -> None:
    rng = np.random.default_rng(0)
    sigma = rng.uniform(0.1, 1, 20_000)
    errors = rng.normal(0, sigma)
    assert ause(errors, np.abs(errors)) == pytest.approx(0, abs=1e-9)
    assert ause(errors, rng.random(20_000)) == pytest.approx(1, abs=0.05)
    assert 0.2 < ause(errors, sigma) < 0.8
    assert ause(errors, -np.abs(errors)) > 1.5
    assert ause(errors, sigma) == pytest.approx(ause(errors, 3 * sigma)), "a common factor ranks nothing"
    with pytest.raises(ValueError, match="nothing to rank"):
        ause(np.ones(10), np.arange(10.0))


def test_bars_that_fail_for_one_family_are_not_hidden_by_the_others(
    shipped: tuple[Network, ModelCard], recipe: Recipe
) -> None:
    families = trained_families(recipe)
    figures = bars(shipped[0], recipe, families, ErrorModel(**shipped[1].error_model), n_draws=1)
    by_family = figures["coverage95_by_family"]
    assert set(by_family) == set(families)
    assert figures["coverage95_worst"] == by_family[figures["coverage95_worst_family"]]
    assert figures["coverage95_worst"] <= figures["coverage95"] <= max(by_family.values())
    assert 0 < figures["coverage95_surest"] <= 1


@needs_shared_data
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_network_is_matched_to_a_recorded_scan_and_judged_on_ground_it_has_not_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launch.training.calibrate.OBJECTS_PER_FAMILY", 1)
    monkeypatch.setattr("launch.training.calibrate.N_DOSES", 1)
    scan = read_recipe(recorded.RECIPE).scan
    assert scan is not None
    short = scan.model_copy(update={"epochs": 6})
    figures = recorded_figures(tmp_path, n_steps=1, n_textures=4, scan=short)
    assert figures["unseen_pixels"] > 5000
    assert figures["unseen_c"] > 0.3, "one step teaches nothing"
    assert figures["flat_epochs"] < 6
    assert -1 <= figures["unseen_phase_correlation"] <= 1
    again = recorded_figures(tmp_path)
    assert again == figures, "weights that are there are used"
    assert (tmp_path / "siemens-network.png").stat().st_size > 10_000


def test_nothing_is_kept_where_no_burst_however_long_tells_the_probe(
    shipped: tuple[Network, ModelCard], recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = []

    def refused(patterns: np.ndarray, *_: object, **options: object) -> Probe:
        lengths.append(len(patterns))
        raise ValueError("no curvature of the probe explains the data")

    monkeypatch.setattr(blind_probe, "probe_from_burst", refused)
    monkeypatch.setattr(blind_probe, "BURST", 10)
    one_family = recipe.model_copy(update={"families": ("polygons",)})
    figures = blind(shipped[0], dataclasses.replace(shipped[1], recipe=one_family.model_dump(mode="json")))
    assert lengths[:3] == [10, 20, 25]
    assert (figures["blind_retained"], figures["blind_refused"]) == (0, 1)


def test_all_is_kept_where_the_true_probe_is_found(
    shipped: tuple[Network, ModelCard], recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_family = recipe.model_copy(update={"families": ("polygons",)})
    n_found = 0

    def found(*burst: object, **options: object) -> Probe:
        nonlocal n_found
        n_found += 1
        return evaluation_probe(recipe)

    monkeypatch.setattr(blind_probe, "probe_from_burst", found)
    card = dataclasses.replace(shipped[1], recipe=one_family.model_dump(mode="json"))
    figures = blind(shipped[0], card)
    assert n_found == 4  # of that family only
    assert figures["blind_retained"] == figures["blind_retained_defocus"] == pytest.approx(1)
    assert figures["blind_uncorrected"] < 1
