import numpy as np
import pytest

from launch.training.evaluate import evaluate, evaluate_drawn_probes, simulate_scans
from launch.training.recipe import Recipe, read_recipe
from launch.training.recipe_optics import EffectsRecipe, MaterialRecipe, ProbeRecipe
from operators.network.predictor import Predictor
from operators.optics.forward import intensities
from operators.patches import extract_patches


@pytest.fixture
def recipe() -> Recipe:
    small = read_recipe().evaluation.model_copy(update={"n_positions": 5})
    return read_recipe().model_copy(update={"evaluation": small})


class Constant(Predictor):
    """Knows nothing but the mean amplitude: the same patch for every pattern."""

    def __init__(self, sigma: float) -> None:
        self.sigma = sigma

    def predict(self, patterns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.full(patterns.shape, 0.87, np.complex64), np.full(patterns.shape, self.sigma, np.float32)


def test_a_constant_object_scores_1(recipe: Recipe) -> None:
    figures = evaluate(Constant(sigma=1.0), recipe)
    assert figures["patch_c"] == pytest.approx(1, abs=0.1)
    assert figures["patch_loose"] == pytest.approx(figures["patch_c"] * figures["constant_loose"])
    assert figures["mosaic_c"] > 0.95
    assert figures["unseen_mosaic_c"] > 0.95


def test_scans_are_made_of_their_objects_and_repeat(recipe: Recipe) -> None:
    scan, *_ = simulate_scans(recipe, ("voronoi",), seed=1)
    again, *_ = simulate_scans(recipe, ("voronoi",), seed=1)
    np.testing.assert_array_equal(scan.patterns, again.patterns)
    probe = recipe.probe.nominal(64)[None] * np.float32(np.sqrt(4e5))
    expected = intensities(probe, extract_patches(scan.object, scan.corners, 64))
    assert np.mean((scan.patterns - expected) ** 2) == pytest.approx(expected.mean(), rel=0.02)
    assert scan.corners.min() == 0


def test_scans_to_judge_and_calibrate_on_have_the_detectors_of_the_recipe(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    effects = EffectsRecipe(dead_share=0.05, hot_share=0.05, gap_px=3, background=50.0, flux_spread=0.2)
    spoilt = recipe.model_copy(update={"effects": effects})
    plain, _ = simulate_scans(recipe, ("voronoi",), seed=1)
    filled, _ = simulate_scans(spoilt, ("voronoi",), seed=1)
    monkeypatch.setattr(
        "launch.training.evaluate.fill_patterns", lambda patterns, valid, probe: patterns * valid
    )
    first, second = simulate_scans(spoilt, ("voronoi",), seed=1)
    np.testing.assert_array_equal(first.object, plain.object)
    dark = [(scan.patterns == 0).all(axis=0) for scan in (first, second)]
    for is_dark in dark:
        assert 0.1 < is_dark.mean() < 0.3
    assert (dark[0] != dark[1]).any(), "another detector in each scan"
    np.testing.assert_array_equal(filled.patterns[:, ~dark[0]], first.patterns[:, ~dark[0]])
    assert (filled.patterns[:, dark[0]] > 0).mean() > 0.9
    background = first.patterns[:, ~dark[0]].mean() - plain.patterns[:, ~dark[0]].mean()
    assert background == pytest.approx(50, rel=0.5)
    flux = first.patterns[:, ~dark[0]].sum(axis=1) / plain.patterns[:, ~dark[0]].sum(axis=1)
    assert 0.03 < flux.std() < 0.4


def test_scans_with_drawn_probes_are_judged_by_networks_that_know_them(recipe: Recipe) -> None:
    probe = ProbeRecipe(pupil_radius_px=12, disc_radius_px=14, disc_spread=0.3, blur_px=1.0, n_modes=3)
    transparent = MaterialRecipe(absorption=(0, 1e-3), phase_shift_rad=(0, 1e-3))
    changes = {"probe": probe, "material": transparent, "families": ("smooth", "voronoi")}
    mismatches = []

    class Informed(Constant):
        def __init__(self, probe: np.ndarray) -> None:
            super().__init__(sigma=1.0)
            self.probe = probe

        def predict(self, patterns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            expected = intensities(self.probe, np.ones((1, 64, 64), np.complex64))[0]
            mismatches.append(np.abs(patterns.mean(axis=0) - expected).sum() / expected.sum())
            return super().predict(patterns)

    probes = []
    figures = evaluate_drawn_probes(
        lambda probe: probes.append(probe) or Informed(probe), recipe.model_copy(update=changes)
    )
    assert {"drawn_probe_patch_c", "drawn_probe_mosaic_c", "drawn_probe_coverage68"} <= set(figures)
    assert max(mismatches) < 0.05
    assert [probe.shape for probe in probes] == [(3, 64, 64)] * len(mismatches)
    assert len(probes) == 2 * recipe.evaluation.objects_per_family
    overlaps = abs(np.vdot(probes[0][0], probes[1][0])) / np.prod([np.linalg.norm(p[0]) for p in probes[:2]])
    assert overlaps < 0.99
