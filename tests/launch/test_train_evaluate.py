import numpy as np
import pytest

from launch.evaluate import calibrate_sigma, evaluate, simulate_scans
from launch.recipe import Recipe, read_recipe
from operators.forward import intensities
from operators.patches import extract_patches
from operators.predict import Predictor


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


def test_calibrated_sigma_covers_68_percent_of_other_objects(recipe: Recipe) -> None:
    scale = calibrate_sigma(Constant(sigma=0.01), recipe)
    figures = evaluate(Constant(sigma=0.01 * scale), recipe)
    assert figures["coverage68"] == pytest.approx(0.683, abs=0.1)
    assert figures["coverage95"] > figures["coverage68"]


def test_scans_are_made_of_their_objects_and_repeat(recipe: Recipe) -> None:
    scan, *_ = simulate_scans(recipe, ("voronoi",), seed=1)
    again, *_ = simulate_scans(recipe, ("voronoi",), seed=1)
    np.testing.assert_array_equal(scan.patterns, again.patterns)
    probe = recipe.probe.nominal(64)[None] * np.float32(np.sqrt(4e5))
    expected = intensities(probe, extract_patches(scan.object, scan.corners, 64))
    assert np.mean((scan.patterns - expected) ** 2) == pytest.approx(expected.mean(), rel=0.02)
    assert scan.corners.min() == 0
