import numpy as np
import pytest

from operators.arrays import to_numpy
from operators.engine.config import RefinerConfig, closing_fraction
from operators.engine.epie import shifted
from operators.engine.position_steps import gradient_sums, position_steps
from operators.engine.refiner import Refiner
from operators.patches import extract_patches
from tests.helpers.operators.scenes import N_PIXELS, make_scene, run_epochs


def rms(found, true):
    """Distance of positions that may have a common offset."""
    difference = found - true
    return float(np.linalg.norm(difference - difference.mean(axis=0), axis=1).mean())


@pytest.mark.parametrize("shift", [(0.3, 0.0), (0.0, -0.3), (0.2, 0.25)])
def test_a_step_leads_to_where_the_wave_came_from(xp, shift):
    scene = make_scene(is_noisy=False)
    patches = extract_patches(xp.asarray(scene.truth), scene.corners, N_PIXELS)
    probe = xp.asarray(scene.probe)[None]
    # the probe stands still: the sample moves the other way
    moved = shifted(patches[:, None], xp.full((len(patches), 2), -xp.asarray(shift), xp.float32))
    corrections = probe * moved - probe * patches[:, None]
    found = position_steps(to_numpy(gradient_sums(corrections, patches, probe)))
    np.testing.assert_allclose(np.median(found, axis=0), shift, atol=0.05)


def test_a_step_is_never_longer_than_a_pixel():
    sums = np.array([[1.0, 0.0, 1.0, 30.0, 40.0], [1.0, 0.0, 1.0, 0.3, 0.4]])
    np.testing.assert_allclose(position_steps(sums), [[0.6, 0.8], [0.3, 0.4]], rtol=1e-2)


def test_a_frame_without_contrast_stays_where_it_is():
    np.testing.assert_array_equal(position_steps(np.zeros((2, 5))), 0)


@pytest.fixture(scope="module")
def wide_scene():
    return make_scene(side=14)


def test_positions_2_5_pixels_off_come_back_to_less_than_a_pixel(wide_scene):
    scene = wide_scene
    rng = np.random.default_rng(5)
    disturbed = scene.corners + rng.normal(0, 2.5 / np.sqrt(2), scene.corners.shape)
    errors = {}
    for refines in (False, True):
        config = RefinerConfig(probe_step=0, refines_positions=refines, subpixel=True)
        refiner = Refiner(config, scene.probe)
        numbers = list(range(len(scene.corners)))
        refiner.append(numbers, scene.patterns, disturbed)
        while refiner.epoch < 30:
            refiner.step(fraction=closing_fraction(refiner.epoch, 30))
        errors[refines] = refiner.error
        found = refiner.positions_px(numbers)
        if not refines:
            np.testing.assert_array_equal(found, disturbed)
    assert rms(disturbed, scene.corners) > 2
    assert rms(found, scene.corners) < 0.8
    assert errors[True] < 0.5 * errors[False]
    assert refiner.snapshot().is_finite


def test_frames_that_the_object_does_not_explain_yet_stay(wide_scene):
    config = RefinerConfig(refines_positions=True, positions_start=12)
    refiner = Refiner(config, wide_scene.probe)
    given, numbers = wide_scene.corners + 0.5, range(len(wide_scene.corners))
    refiner.append(numbers, wide_scene.patterns, given)
    run_epochs(refiner, 2)
    np.testing.assert_array_equal(refiner.positions_px(numbers), given)
    run_epochs(refiner, 16)
    assert (refiner.positions_px(numbers) != given).any(axis=1).all()
