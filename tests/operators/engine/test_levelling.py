import numpy as np
import pytest

from operators.arrays import array_module, to_numpy
from operators.engine.levelling import missing_phase, missing_slopes, shares_that_fit, slow_phases
from operators.metrics.errors import nrmse
from operators.optics.forward import intensities
from operators.optics.probe import phase_ramp, zone_plate_probe
from operators.patches import add_patches, extract_patches
from tests.helpers.operators.scenes import smooth_object

N = 32
SIZE = 72
WIDTH = 14.0
SLOPE = np.array([0.004, -0.007], np.float32)


@pytest.fixture
def scene(xp):
    rng = np.random.default_rng(0)
    truth = smooth_object((SIZE, SIZE), rng)
    corners = rng.integers(0, SIZE - N, (60, 2))
    probe = 400 * zone_plate_probe(N, 6.0, 8.0)[None]
    tilted = truth * phase_ramp(truth.shape, SLOPE)
    return tuple(xp.asarray(a) for a in (probe, *(extract_patches(o, corners, N) for o in (truth, tilted))))


def whole(phases):
    return to_numpy(phases.whole(array_module(phases.bands).ones(len(phases.bands), np.float32)))


def counts(rng, probe, patches, xp):
    return xp.asarray(rng.poisson(to_numpy(intensities(probe, patches))).astype(np.float32))


def test_the_slope_that_an_object_lacks_is_found_from_its_patterns(scene):
    probe, upright, tilted = scene
    found = missing_slopes(intensities(probe, tilted), probe, upright)
    np.testing.assert_allclose(to_numpy(found).mean(axis=0), SLOPE, rtol=0.02)
    assert found.dtype == np.float32
    assert abs(to_numpy(missing_slopes(intensities(probe, upright), probe, upright))).max() < 1e-5


def test_invalid_pixels_do_not_tilt_anything(scene, xp):
    probe, upright, tilted = scene
    mask = xp.ones((N, N), bool)
    mask[3, 4] = False
    patterns = intensities(probe, tilted)
    patterns[:, 3, 4] = 1e6
    found = to_numpy(missing_slopes(patterns, probe, upright, mask)).mean(axis=0)
    np.testing.assert_allclose(found, SLOPE, rtol=0.1)


def smooth_phase(y, x):
    y, x = y / SIZE, x / SIZE
    return 0.4 * y - 0.2 * x + 0.5 * y * x - 0.7 * x**2 + 0.3 * y**3


def test_a_slow_phase_is_found_from_its_slopes_up_to_a_constant(xp):
    rng = np.random.default_rng(0)
    where = rng.uniform(10, SIZE - 10, (80, 2))
    h = 1e-3
    slopes = np.stack(
        [(smooth_phase(*(where + h * e).T) - smooth_phase(*(where - h * e).T)) / (2 * h) for e in np.eye(2)],
        axis=1,
    )
    found = whole(slow_phases(xp.asarray(slopes, xp.float32), where, (SIZE, SIZE + 8), WIDTH))
    assert found.shape == (SIZE, SIZE + 8)
    off = (found[:, :SIZE] - smooth_phase(*np.indices((SIZE, SIZE))))[10:-10, 10:-10]
    assert np.ptp(off) < 5e-3


def test_noise_makes_hardly_any_phase(scene, xp):
    rng = np.random.default_rng(1)
    where = rng.uniform(0, SIZE, (200, 2))
    noise = rng.normal(0, 0.01, (200, 2)).astype(np.float32)
    largest = [
        np.ptp(whole(slow_phases(xp.asarray(s), where, (SIZE, SIZE), WIDTH))) for s in (noise, noise + SLOPE)
    ]
    assert largest[0] < 0.2 * largest[1]
    probe, upright, _ = scene
    dim = probe * np.float32(0.1)
    slopes = missing_slopes(counts(rng, dim, upright, xp), dim, upright)
    assert whole(slow_phases(slopes, where[:60], (SIZE, SIZE), WIDTH)).std() < 0.1


def test_frames_in_a_line_give_a_finite_phase(xp):
    where = np.stack([np.full(30, 20.0), np.linspace(5, SIZE - 5, 30)], axis=1)
    phase = whole(slow_phases(xp.asarray(np.tile(SLOPE, (30, 1))), where, (SIZE, SIZE), WIDTH))
    assert np.isfinite(phase).all()
    np.testing.assert_allclose((phase[20, 60] - phase[20, 10]) / 50, SLOPE[1], rtol=0.05)


def test_what_a_phase_is_under_a_window_is_what_it_is_on_the_whole(xp):
    rng = np.random.default_rng(0)
    where, corners = rng.uniform(0, SIZE, (60, 2)), rng.integers(0, SIZE - N, (5, 2))
    slopes = xp.asarray(rng.normal(0, 0.01, (60, 2)).astype(np.float32) + SLOPE)
    phases = slow_phases(slopes, where, (SIZE, SIZE + 8), WIDTH)
    under = to_numpy(phases.under(corners, N, xp.ones(len(phases.bands), xp.float32)))
    np.testing.assert_allclose(under, extract_patches(whole(phases), corners, N), atol=1e-5)


def test_a_slow_phase_is_missing_of_an_object_and_of_too_few_frames_none(scene, xp):
    probe, upright, _ = scene
    rng = np.random.default_rng(0)
    truth = smooth_object((SIZE, SIZE), rng)
    corners = rng.integers(0, SIZE - N, (60, 2))
    y, x = np.indices((SIZE, SIZE)) / SIZE
    wrong = xp.asarray(truth * np.exp(0.3j * np.sin(5 * y + 3 * x)).astype(np.complex64))
    patterns = intensities(probe, upright)
    phase = to_numpy(missing_phase(patterns, probe, wrong, corners))
    lit = np.zeros((SIZE, SIZE), np.float32)
    add_patches(lit, to_numpy(abs(probe[0]) ** 2), corners)
    before, after = (
        nrmse(to_numpy(wrong) * turn, truth, lit).c for turn in (np.complex64(1), np.exp(1j * phase))
    )
    assert after < before / 4
    assert missing_phase(patterns[:9], probe, wrong, corners[:9]) is None


def test_of_each_phase_the_share_is_found_that_the_patterns_want(scene, xp):
    probe, upright, tilted = scene
    ramp = np.tensordot(SLOPE, np.indices((N, N)), 1)[None] + np.zeros((len(upright), 1, 1))
    ramp += np.angle(np.vdot(to_numpy(upright), to_numpy(tilted)))  # a constant changes no pattern
    wrong = np.sin(np.indices((N, N))[0] / 3)[None] + np.zeros_like(ramp)
    phases = xp.asarray(np.stack([2 * ramp, -ramp, 0.01 * wrong, 0 * ramp]), xp.float32)
    alone = [
        to_numpy(shares_that_fit(intensities(probe, tilted), probe, upright, phases[[i]])) for i in range(4)
    ]
    np.testing.assert_allclose(alone[0], 0.5, atol=0.05)
    assert alone[1] == 0, "never the other way"
    assert alone[3] == 0
    together = to_numpy(shares_that_fit(intensities(probe, tilted), probe, upright, phases[[0, 2]]))
    np.testing.assert_allclose(together[0], 0.5, atol=0.05)
