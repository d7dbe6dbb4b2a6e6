import numpy as np
import pytest

from operators.arrays import to_numpy
from operators.forward import intensities
from operators.patches import extract_patches
from operators.probe import zone_plate_probe
from operators.seeding import forward_residual, seeds_help

N = 16
CORNERS = np.array([[0, 0], [3, 5], [8, 2]])


@pytest.fixture
def scene(xp):
    rng = np.random.default_rng(0)
    y, x = np.indices((32, 32))
    truth = np.exp(1j * np.sin(0.4 * y + 0.2 * x)).astype(np.complex64)
    probe = xp.asarray(100 * zone_plate_probe(N, 5.0, 4.0)[None])
    patches = xp.asarray(extract_patches(truth, CORNERS, N))
    noise = xp.asarray(rng.normal(0, 0.2, patches.shape))
    return probe, patches, patches * xp.exp(1j * noise).astype(np.complex64), intensities(probe, patches)


def test_the_truth_leaves_no_residual_and_its_global_phase_is_free(scene):
    probe, patches, _, patterns = scene
    assert float(forward_residual(patterns, probe, patches).max()) < 1e-9
    assert float(forward_residual(patterns, probe, patches * np.complex64(1j)).max()) < 1e-9


def test_no_light_at_all_leaves_all_of_it(scene):
    probe, patches, _, patterns = scene
    residual = to_numpy(forward_residual(patterns, probe, 0 * patches))
    np.testing.assert_allclose(residual, 1, rtol=1e-5)
    assert residual.dtype == np.float32


def test_invalid_pixels_do_not_count(scene, xp):
    probe, patches, _, patterns = scene
    mask = xp.ones((N, N), bool)
    mask[2, 3] = False
    damaged = patterns.copy()
    damaged[:, 2, 3] = 1e6
    assert float(forward_residual(damaged, probe, patches).min()) > 0.5
    assert float(forward_residual(damaged, probe, patches, mask).max()) < 1e-9


def test_a_seed_helps_where_it_explains_the_frame_better_than_what_is_there(scene, xp):
    probe, truth, nearly, patterns = scene
    flat = xp.ones_like(truth)
    assert to_numpy(seeds_help(patterns, probe, nearly, flat)).tolist() == [True] * 3
    assert to_numpy(seeds_help(patterns, probe, flat, nearly)).tolist() == [False] * 3
    mixed = xp.stack([nearly[0], flat[1], nearly[2]])
    assert to_numpy(seeds_help(patterns, probe, mixed, xp.stack([flat[0], nearly[1], flat[2]]))).tolist() == [
        True,
        False,
        True,
    ]


def test_a_seed_no_better_than_what_is_there_is_left_out(scene):
    probe, _, nearly, patterns = scene
    assert not seeds_help(patterns, probe, nearly, nearly).any()


def test_frames_without_photons_ask_for_no_seed_that_brings_light(scene, xp):
    probe, patches, _, patterns = scene
    dark = xp.zeros_like(patterns)
    assert not seeds_help(dark, probe, patches, 0 * patches).any()
    assert bool(xp.isfinite(forward_residual(dark, probe, patches)).all())
