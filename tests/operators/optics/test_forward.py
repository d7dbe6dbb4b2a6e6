import numpy as np
import pytest

from operators.arrays import abs2, to_numpy
from operators.optics.forward import (
    FRAMES_AT_A_TIME,
    exit_waves,
    far_field,
    intensities,
    noise_residual,
    simulate_counts,
)
from operators.patches import extract_patches

N = 32


def random_probe(rng, n_modes=2, photons=1e4):
    probe = rng.normal(size=(n_modes, N, N)) + 1j * rng.normal(size=(n_modes, N, N))
    return (probe * np.sqrt(photons / abs2(probe).sum())).astype(np.complex64)


def phase_object(rng, shape):
    return np.exp(1j * rng.uniform(0, 2, shape)).astype(np.complex64)


def test_photons_at_the_detector_are_the_power_of_the_exit_waves(xp):
    rng = np.random.default_rng(0)
    probe, patches = xp.asarray(random_probe(rng)), xp.asarray(phase_object(rng, (3, N, N)))
    waves = exit_waves(probe, patches)
    assert waves.shape == (3, 2, N, N)
    np.testing.assert_allclose(to_numpy(abs2(far_field(waves)).sum((1, 2, 3))), 1e4, rtol=1e-4)
    patterns = intensities(probe, patches)
    assert patterns.dtype == np.float32
    np.testing.assert_allclose(to_numpy(patterns.sum((1, 2))), 1e4, rtol=1e-4)


def test_an_even_wave_lands_in_the_corner(xp):
    pattern = intensities(xp.ones((1, N, N), np.complex64), xp.ones((1, N, N), np.complex64))[0]
    assert float(pattern[0, 0]) == pytest.approx(N * N, rel=1e-5)
    assert float(pattern.sum() - pattern[0, 0]) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("axis", [0, 1])
def test_phase_rising_along_an_axis_sends_photons_to_positive_frequencies_of_it(xp, axis):
    ramp = np.exp(2j * np.pi * 3 * np.arange(N) / N).astype(np.complex64)
    patch = np.broadcast_to(ramp[:, None] if axis == 0 else ramp, (1, N, N))
    pattern = to_numpy(intensities(xp.ones((1, N, N), np.complex64), xp.asarray(patch)))[0]
    assert np.unravel_index(pattern.argmax(), pattern.shape) == ((3, 0) if axis == 0 else (0, 3))


def test_a_probe_moved_down_and_right_sees_the_object_moved_up_and_left(xp):
    rng = np.random.default_rng(1)
    probe, object_ = random_probe(rng, 1), phase_object(rng, (N + 8, N + 8))
    moved = np.roll(object_, (-3, -5), axis=(0, 1))
    here, there = np.array([[0, 0]]), np.array([[3, 5]])
    seen = intensities(xp.asarray(probe), extract_patches(xp.asarray(object_), there, N))
    same = intensities(xp.asarray(probe), extract_patches(xp.asarray(moved), here, N))
    opposite = intensities(
        xp.asarray(probe), extract_patches(xp.asarray(np.roll(object_, (3, 5), (0, 1))), here, N)
    )
    np.testing.assert_allclose(to_numpy(seen), to_numpy(same), rtol=1e-4, atol=1e-3)
    assert float(abs(seen - opposite).sum()) > 0.1 * float(seen.sum())


def test_modes_add_as_intensities(xp):
    rng = np.random.default_rng(2)
    probe, patches = xp.asarray(random_probe(rng, 3)), xp.asarray(phase_object(rng, (2, N, N)))
    alone = sum(intensities(probe[mode : mode + 1], patches) for mode in range(3))
    np.testing.assert_allclose(to_numpy(intensities(probe, patches)), to_numpy(alone), rtol=1e-4, atol=1e-4)


def test_counts_repeat_with_the_seed_and_differ_without(xp):
    rng = np.random.default_rng(3)
    probe, object_ = xp.asarray(random_probe(rng)), xp.asarray(phase_object(rng, (N + 9, N + 9)))
    corners = rng.integers(0, 10, (FRAMES_AT_A_TIME + 3, 2))
    counts = simulate_counts(object_, probe, corners, np.random.default_rng(4))
    assert counts.shape == (len(corners), N, N)
    assert counts.dtype == np.uint32
    assert (counts == simulate_counts(object_, probe, corners, np.random.default_rng(4))).all()
    assert (counts != simulate_counts(object_, probe, corners, np.random.default_rng(5))).any()


def test_counts_scatter_about_the_intensities_as_poisson(xp):
    rng = np.random.default_rng(6)
    probe, object_ = xp.asarray(random_probe(rng)), xp.asarray(phase_object(rng, (N, N)))
    corners = np.zeros((400, 2), np.int64)
    counts = simulate_counts(object_, probe, corners, rng)
    expected = to_numpy(intensities(probe, object_[None]))[0]
    np.testing.assert_allclose(counts.mean(0).sum(), expected.sum(), rtol=5 / np.sqrt(400 * 1e4))
    normalised = (counts - expected) / np.sqrt(expected)
    assert normalised.var() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("photons", [1.0, 4.0, 100.0])
def test_noise_leaves_of_a_pattern_about_what_is_said(photons, xp):
    expected = np.full((200, N, N), photons, np.float32)
    counts = np.random.default_rng(0).poisson(expected).astype(np.float32)
    left = ((np.sqrt(counts) - np.sqrt(expected)) ** 2).sum(axis=(1, 2)).mean()
    said = to_numpy(noise_residual(xp.asarray(counts)))
    assert said.dtype == np.float32
    assert said.mean() == pytest.approx(left, rel=0.5)


def test_noise_is_looked_for_on_valid_pixels_and_is_never_most_of_a_pattern(xp):
    patterns = xp.full((1, N, N), 100, xp.float32)
    mask = xp.zeros((N, N), bool)
    mask[:2] = True
    assert float(noise_residual(patterns, mask)[0]) == pytest.approx(2 * N / 4)
    assert float(noise_residual(patterns / 1e6)[0]) == pytest.approx(float(patterns.sum()) / 4e6, rel=1e-5)
