import numpy as np
import pytest

from operators.arrays import to_numpy
from operators.forward import intensities
from operators.levelling import excess_ramp
from operators.patches import extract_patches
from operators.probe import phase_ramp, zone_plate_probe
from tests.operators.refining import smooth_object

N = 32
SLOPE = np.array([0.004, -0.007], np.float32)


@pytest.fixture
def scene(xp):
    rng = np.random.default_rng(0)
    truth = smooth_object((72, 72), rng)
    corners = rng.integers(0, 40, (60, 2))
    probe = 400 * zone_plate_probe(N, 6.0, 8.0)[None]
    upright, tilted = (
        extract_patches(o, corners, N) for o in (truth, truth * phase_ramp(truth.shape, SLOPE))
    )
    return tuple(map(xp.asarray, (probe, upright, tilted)))


def test_the_ramp_that_an_object_lacks_is_found_from_its_patterns(scene):
    probe, upright, tilted = scene
    found = excess_ramp(intensities(probe, tilted), probe, upright)
    np.testing.assert_allclose(to_numpy(found), SLOPE, rtol=0.02)
    assert found.dtype == np.float32


def test_an_object_that_explains_its_patterns_lacks_none(scene):
    probe, upright, _ = scene
    assert abs(to_numpy(excess_ramp(intensities(probe, upright), probe, upright))).max() < 1e-6


def test_photon_noise_is_hardly_taken_for_a_ramp(scene, xp):
    probe, upright, tilted = scene
    rng = np.random.default_rng(1)
    for photons, most in ((1e-3, 0.02), (1.0, 0.0005)):
        dimmed = probe * np.float32(photons**0.5)
        counts = rng.poisson(to_numpy(intensities(dimmed, upright))).astype(np.float32)
        assert abs(to_numpy(excess_ramp(xp.asarray(counts), dimmed, upright))).max() < most
    counts = rng.poisson(to_numpy(intensities(probe, tilted))).astype(np.float32)
    np.testing.assert_allclose(to_numpy(excess_ramp(xp.asarray(counts), probe, upright)), SLOPE, rtol=0.1)


def test_invalid_pixels_do_not_tilt_anything(scene, xp):
    probe, upright, tilted = scene
    mask = xp.ones((N, N), bool)
    mask[3, 4] = False
    patterns = intensities(probe, tilted)
    patterns[:, 3, 4] = 1e6
    np.testing.assert_allclose(to_numpy(excess_ramp(patterns, probe, upright, mask)), SLOPE, rtol=0.1)
