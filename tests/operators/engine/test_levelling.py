import numpy as np
import pytest

from operators.arrays import to_numpy
from operators.engine.levelling import missing_slopes, shares_that_fit, slow_phase
from operators.optics.forward import intensities
from operators.optics.probe import phase_ramp, zone_plate_probe
from operators.patches import extract_patches
from tests.helpers.operators.scenes import smooth_object

N = 32
SIZE = 72
SLOPE = np.array([0.004, -0.007], np.float32)


@pytest.fixture
def scene(xp):
    rng = np.random.default_rng(0)
    truth = smooth_object((SIZE, SIZE), rng)
    corners = rng.integers(0, SIZE - N, (60, 2))
    probe = 400 * zone_plate_probe(N, 6.0, 8.0)[None]
    tilted = truth * phase_ramp(truth.shape, SLOPE)
    return tuple(xp.asarray(a) for a in (probe, *(extract_patches(o, corners, N) for o in (truth, tilted))))


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
    found = to_numpy(slow_phase(xp.asarray(slopes, xp.float32), where, (SIZE, SIZE + 8)).on_all())
    assert found.shape == (SIZE, SIZE + 8)
    off = found[:, :SIZE] - smooth_phase(*np.indices((SIZE, SIZE)))
    assert np.ptp(off) < 1e-3


def test_noise_makes_hardly_any_phase(scene, xp):
    rng = np.random.default_rng(1)
    where = rng.uniform(0, SIZE, (200, 2))
    noise = rng.normal(0, 0.01, (200, 2)).astype(np.float32)
    largest = [
        np.ptp(to_numpy(slow_phase(xp.asarray(s), where, (SIZE, SIZE)).on_all()))
        for s in (noise, noise + SLOPE)
    ]
    assert largest[0] < 0.2 * largest[1]
    probe, upright, _ = scene
    dim = probe * np.float32(0.1)
    slopes = missing_slopes(counts(rng, dim, upright, xp), dim, upright)
    assert np.ptp(to_numpy(slow_phase(slopes, where[:60], (SIZE, SIZE)).on_all())) < 0.2


def test_frames_in_a_line_or_too_few_of_them_give_a_finite_phase(xp):
    for n in (1, 3, 30):
        where = np.stack([np.full(n, 20.0), np.linspace(5, SIZE - 5, n)], axis=1)
        slopes = xp.asarray(np.tile(SLOPE, (n, 1)))
        phase = to_numpy(slow_phase(slopes, where, (SIZE, SIZE)).on_all())
        assert np.isfinite(phase).all()
        assert phase.any() == (n == 30)


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


def test_a_slow_phase_is_under_windows_what_it_is_on_all(xp):
    rng = np.random.default_rng(2)
    where = rng.uniform(0, SIZE, (80, 2))
    slopes = 0.01 * np.sin(where / 20)
    slow = slow_phase(xp.asarray(slopes, xp.float32), where, (SIZE, SIZE + 8))
    corners, shares = rng.integers(0, SIZE - N, (5, 2)), xp.asarray([1, 0.5, 0, 0.2], dtype=xp.float32)
    under = slow.under(corners, N)
    for on_all, expected in (
        (slow.on_all(), under.sum(axis=0)),
        (slow.on_all(shares), (shares[:, None, None, None] * under).sum(axis=0)),
    ):
        assert abs(on_all).max() > 0
        found = to_numpy(extract_patches(on_all, corners, N))
        np.testing.assert_allclose(found, to_numpy(expected), atol=1e-6)
