import numpy as np
import pytest

from operators.arrays import to_numpy
from operators.engine.seeding import Seeding
from operators.optics.forward import forward_residual, intensities
from operators.optics.probe import zone_plate_probe
from operators.patches import extract_patches

N = 16
CORNERS = np.array([[0, 0], [3, 5], [8, 2]])


@pytest.fixture
def scene(xp):
    rng = np.random.default_rng(0)
    y, x = np.indices((32, 32))
    truth = np.exp(1j * np.sin(0.4 * y + 0.2 * x)).astype(np.complex64)
    probe = xp.asarray(100 * zone_plate_probe(N, 5.0, 4.0)[None])
    patches = xp.asarray(extract_patches(truth, CORNERS, N))
    noise = xp.asarray(rng.normal(0, 0.1, patches.shape))
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


def weights_of(probe, xp):
    return (xp.abs(probe) ** 2).sum(axis=0).astype(xp.float32)


def test_a_frame_starts_from_the_network_where_that_explains_it_better_than_what_is_there(scene, xp):
    probe, truth, nearly, patterns = scene
    seeding, flat = Seeding(), xp.ones_like(truth)
    current = xp.stack([flat[0], truth[1], flat[2]])
    starts = seeding.starts(patterns, probe, nearly, weights_of(probe, xp), current)
    np.testing.assert_array_equal(to_numpy(starts[0]), to_numpy(nearly[0]))
    np.testing.assert_array_equal(to_numpy(starts[2]), to_numpy(nearly[2]))
    assert float(abs(starts[1] - starts[1, 0, 0]).max()) == 0
    assert seeding.n_refused == 1


def test_empty_ground_starts_transparent_in_the_phase_of_the_mosaic(scene, xp):
    probe, truth, nearly, _ = scene
    empty, turned = xp.ones_like(truth), np.complex64(np.exp(2j))
    patterns = intensities(probe, xp.concatenate([truth[:2], empty[:1]]))
    seeds = turned * xp.concatenate([truth[:2], nearly[:1] * truth[:1].conj()])
    starts = Seeding().starts(patterns, probe, seeds, weights_of(probe, xp), xp.ones_like(truth))
    np.testing.assert_allclose(to_numpy(starts[:2]), to_numpy(seeds[:2]))
    np.testing.assert_allclose(to_numpy(starts[2]), turned, atol=0.05)
    assert float(abs(starts[2] - starts[2, 0, 0]).max()) == 0


def test_nothing_starts_from_a_network_that_explains_the_scan_little_better_than_a_transparent_object(
    scene, xp
):
    probe, truth, _, patterns = scene
    seeding, flat = Seeding(), xp.ones_like(truth)
    nearly_flat = 0.1 * truth + 0.9 * flat
    for n_frames in (3, 6):
        assert seeding.starts(patterns, probe, nearly_flat, weights_of(probe, xp), flat) is None
        assert seeding.n_refused == n_frames
    assert seeding.starts(patterns, probe, truth, weights_of(probe, xp), flat) is None  # remembers


def test_the_noise_of_few_photons_does_not_count_against_the_network(scene, xp):
    probe, truth, _, _ = scene
    probe = probe / 3  # about four photons a pixel
    rng = np.random.default_rng(1)
    patterns = xp.asarray(rng.poisson(to_numpy(intensities(probe, truth))).astype(np.float32))
    starts = Seeding().starts(patterns, probe, truth, weights_of(probe, xp), xp.ones_like(truth))
    np.testing.assert_array_equal(to_numpy(starts), to_numpy(truth))


def test_frames_without_photons_ask_for_no_seed_that_brings_light(scene, xp):
    probe, patches, _, patterns = scene
    dark = xp.zeros_like(patterns)
    assert Seeding().starts(dark, probe, patches, weights_of(probe, xp), 0 * patches) is None
    assert bool(xp.isfinite(forward_residual(dark, probe, patches)).all())
