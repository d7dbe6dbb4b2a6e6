from dataclasses import replace

import numpy as np
import pytest

from operators.engine.config import RefinerConfig
from operators.engine.flux import next_flux
from operators.engine.refiner import Refiner
from operators.optics.forward import intensities
from operators.patches import extract_patches
from tests.helpers.operators.scenes import N_PIXELS, append_all, make_scene, run_to

N_EPOCHS = 40


@pytest.fixture(scope="module")
def scene():
    return make_scene(seed=2)


@pytest.fixture(scope="module")
def flux(scene):
    flux = 1 + 0.2 * np.clip(np.random.default_rng(102).standard_normal(len(scene.corners)), -3, 3)
    return flux / flux.mean()


@pytest.fixture(scope="module")
def varied(scene, flux):
    expected = intensities(scene.probe, extract_patches(scene.truth, scene.corners, N_PIXELS))
    counts = np.random.default_rng(1).poisson(expected * flux[:, None, None])
    return replace(scene, patterns=counts.astype(np.float32))


def refined(scene, xp=np, mask=None, **settings):
    refiner = Refiner(RefinerConfig(probe_step=0, **settings), scene.probe, mask=mask, xp=xp)
    append_all(refiner, scene)
    return refiner, run_to(refiner, N_EPOCHS, closes=True)


def test_the_flux_of_frames_is_found_beside_the_object(scene, varied, flux, xp):
    steady = scene.error(refined(scene, xp)[1])
    unfitted = scene.error(refined(varied, xp)[1])
    refiner, snapshot = refined(varied, xp, fits_flux=True)
    found = refiner.flux(range(len(flux)))
    assert np.std(found / flux - 1) < 0.03
    assert found.mean() == pytest.approx(1)
    assert scene.error(snapshot) < 2 * steady < 0.2 * unfitted


def test_flux_is_found_where_pixels_are_masked(scene, varied, flux):
    mask = np.ones((N_PIXELS, N_PIXELS), bool)
    mask[:3, :3] = False
    refiner, _ = refined(varied, mask=mask, fits_flux=True)
    assert np.std(refiner.flux(range(len(flux))) / flux - 1) < 0.04


def test_a_frame_that_comes_later_has_the_mean_flux_until_it_is_fitted(varied):
    refiner = Refiner(RefinerConfig(probe_step=0, fits_flux=True), varied.probe)
    append_all(refiner, varied, slice(0, 40))
    run_to(refiner, 4)
    assert np.ptp(refiner.flux(range(40))) > 0.1
    append_all(refiner, varied, slice(40, 64))
    np.testing.assert_array_equal(refiner.flux(range(40, 64)), 1)


def test_frames_of_which_nothing_is_known_keep_their_flux():
    flux, measured = np.array([1.2, 1.0, 0.8]), np.array([0.0, 11.0, 9.0])
    better = next_flux(flux, measured, np.array([10.0, 10.0, 10.0]))
    assert better[0] / better.mean() == pytest.approx(1.2, rel=0.05)
    np.testing.assert_array_equal(next_flux(flux, measured, np.full(3, np.nan)), flux)
