import numpy as np
import pytest

from operators.arrays import abs2
from operators.mosaic.phase_sync import synchronise
from operators.optics.probe import zone_plate_probe
from operators.optics.trajectories import jittered_raster
from operators.patches import extract_patches

N, STEP = 32, 4


@pytest.fixture
def scene():
    """Patches of a smooth object, each with a phase and noise of its own."""
    rng = np.random.default_rng(1)
    corners = np.rint(jittered_raster(12, 12, STEP, 1.0, rng)).astype(np.int64)
    corners -= corners.min(axis=0)
    y, x = np.indices(tuple(corners.max(axis=0) + N))
    truth = np.exp(1j * (np.sin(0.21 * y) + np.cos(0.13 * x))).astype(np.complex64)
    patches = extract_patches(truth, corners, N)
    noise = rng.normal(0, 0.3, (2, *patches.shape))
    phases = np.exp(1j * rng.uniform(-np.pi, np.pi, len(corners)))
    patches = (patches + noise[0] + 1j * noise[1]) * phases[:, None, None]
    return patches.astype(np.complex64), corners, phases


@pytest.fixture
def weights():
    return abs2(zone_plate_probe(N, 6.0, 7.0)).astype(np.float32)


def errors_rad(turns, phases):
    """Phase of each patch after its turn, but for the one that all share."""
    left = turns * phases
    return np.angle(left * left.sum().conj())


def test_phases_are_found_from_any_start(scene, weights):
    patches, corners, phases = scene
    start = np.exp(1j * np.random.default_rng(2).uniform(-0.8, 0.8, len(corners))) * phases.conj()
    found = synchronise(patches, weights, corners, start)
    assert np.abs(errors_rad(found, phases)).max() < 0.1
    assert np.std(errors_rad(found, phases)) < 0.1 * np.std(errors_rad(start, phases))


def test_turns_have_modulus_one_and_keep_what_agrees_already(scene, weights):
    patches, corners, phases = scene
    found = synchronise(patches, weights, corners, phases.conj())
    np.testing.assert_allclose(np.abs(found), 1, rtol=1e-5)
    assert np.abs(errors_rad(found, phases)).max() < 0.1


def test_a_slow_drift_over_the_field_is_removed(scene, weights):
    patches, corners, phases = scene
    drift = np.exp(1.5j * corners[:, 0] / corners[:, 0].max())
    found = synchronise(patches, weights, corners, drift * phases.conj())
    trend = np.polyfit(corners[:, 0], errors_rad(found, phases), 1)[0] * corners[:, 0].max()
    assert abs(trend) < 0.05


def test_islands_keep_the_phase_they_started_with(weights):
    corners = np.array([[0, 0], [200, 200]])
    patches = np.ones((2, N, N), np.complex64)
    start = np.exp(1j * np.array([0.3, -1.0]))
    np.testing.assert_allclose(synchronise(patches, weights, corners, start), start, rtol=1e-5)


def test_a_dense_scan_is_compared_at_some_of_its_pairs_only(weights):
    corners = np.stack(np.meshgrid(np.arange(20), np.arange(20), indexing="ij"), -1).reshape(-1, 2)
    phases = np.exp(1j * np.random.default_rng(3).uniform(-1, 1, len(corners)))
    patches = np.broadcast_to(phases[:, None, None], (len(corners), N, N)).astype(np.complex64)
    found = synchronise(patches, weights, corners, np.ones(len(corners)))
    assert np.abs(errors_rad(found, phases)).max() < 1e-3
