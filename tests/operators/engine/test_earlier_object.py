"""A scan of the same place starts from the object of the scan before, and of another place from none."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import rotate

from operators.engine.config import RefinerConfig
from operators.engine.refiner import Refiner
from operators.engine.seeding import EarlierObject
from operators.geometry import Bounds
from operators.optics.forward import simulate_counts
from operators.patches import extract_patches
from tests.helpers.operators.scenes import Scene, append_all, make_scene, run_to, wrong_probe

N_AT_A_TIME = 16


def scanned_again(truth, probe, seed):
    """The field of `make_scene` with other noise and at other positions."""
    rng = np.random.default_rng(seed)
    grid = 4 * np.indices((8, 8)).reshape(2, -1).T
    corners = grid + rng.integers(0, 3, grid.shape)
    return Scene(truth, probe, corners, simulate_counts(truth, probe, corners, rng).astype(np.float32))


def begun(scene, probe, earlier=None):
    """Return an engine with all frames, seeded as they came, and what seeded it."""
    engine = Refiner(RefinerConfig(), probe)
    seeding = None if earlier is None else EarlierObject(earlier)
    for start in range(0, len(scene.corners), N_AT_A_TIME):
        part = slice(start, start + N_AT_A_TIME)
        append_all(engine, scene, part)
        if seeding is not None:
            seeding.seed(engine, scene.patterns[part], scene.corners[part])
    return engine, seeding


@pytest.fixture(scope="module")
def first():
    scene = make_scene()
    engine, _ = begun(scene, wrong_probe())
    return scene, run_to(engine, 30)


@pytest.fixture(scope="module")
def second(first):
    scene, _ = first
    return scanned_again(scene.truth, scene.probe, seed=7)


def turned(truth, degrees):
    thickness, phase = (
        rotate(part, degrees, reshape=False, mode="nearest", order=1)
        for part in (np.log(np.abs(truth)), np.angle(truth))
    )
    return np.exp(thickness + 1j * phase).astype(np.complex64)


@pytest.mark.parametrize("degrees", [0, 1, 3])
def test_the_second_scan_of_a_place_is_after_two_epochs_where_another_is_after_twelve(first, degrees):
    scene, earlier = first
    scanned = scanned_again(turned(scene.truth, degrees), scene.probe, seed=7)
    engine, seeding = begun(scanned, earlier.probe, earlier)
    assert seeding.n_used == len(scanned.corners)
    plain, _ = begun(scanned, wrong_probe())
    assert scanned.error(run_to(engine, 2)) < scanned.error(run_to(plain, 12))


def test_ground_that_comes_in_batches_is_of_one_phase(first):
    scene, earlier = first
    slope = np.exp(0.15j * np.indices(scene.truth.shape)[0]).astype(np.complex64)  # nine radians in all
    scanned = scanned_again(scene.truth * slope, scene.probe, seed=7)
    known = replace(
        earlier,
        object=scanned.truth,
        bounds=Bounds(0, 0, *scanned.truth.shape),
        illumination=np.full(scanned.truth.shape, 1e6, np.float32),
    )
    engine, _ = begun(scanned, scene.probe, known)
    begun_with, truth = engine.windows(scanned.corners), extract_patches(scanned.truth, scanned.corners, 32)
    lit = abs(scene.probe[0]) ** 2 > 0.1 * (abs(scene.probe[0]) ** 2).max()
    a, b = begun_with[:, lit], truth[:, lit]
    assert abs(np.vdot(a, b)) > 0.999 * np.linalg.norm(a) * np.linalg.norm(b)


def test_a_probe_that_was_refined_is_worth_epochs_too(first, second):
    _, earlier = first
    reused, plain = (begun(second, probe)[0] for probe in (earlier.probe, wrong_probe()))
    assert second.error(run_to(reused, 5)) < 0.85 * second.error(run_to(plain, 5))


def test_the_object_of_another_sample_changes_nothing(first):
    scene, earlier = first
    other = scanned_again(make_scene(seed=5).truth, scene.probe, seed=9)
    misled, seeding = begun(other, earlier.probe, earlier)
    plain, _ = begun(other, earlier.probe)
    assert seeding.n_used == 0
    np.testing.assert_array_equal(run_to(misled, 3).object, run_to(plain, 3).object)


def test_an_object_of_other_ground_changes_nothing(first, second):
    _, earlier = first
    seeding, engine = EarlierObject(earlier), Refiner(RefinerConfig(), earlier.probe)
    away = second.corners + 200
    engine.append(range(len(away)), second.patterns, away.astype(float))
    seeding.seed(engine, second.patterns, away)
    assert seeding.n_used == 0
    assert (engine.windows(away) == 1).all()


def test_a_frame_far_away_changes_nothing_of_what_others_start_from(first, second):
    _, earlier = first
    here, seeded = second.corners[27:28], []
    for corners in (here, np.concatenate([here, here + 500])):
        engine, patterns = Refiner(RefinerConfig(), earlier.probe), second.patterns[[27] * len(corners)]
        engine.append(range(len(corners)), patterns, corners.astype(float))
        seeding = EarlierObject(earlier)
        seeding.seed(engine, patterns, corners)
        assert seeding.n_used == 1
        seeded.append(engine.windows(here))
    np.testing.assert_array_equal(*seeded)


def test_frames_on_the_ground_of_both_scans_start_from_the_earlier_one_and_others_do_not(first, second):
    scene, _ = first
    engine = Refiner(RefinerConfig(), scene.probe)
    append_all(engine, scene, slice(0, 32))  # the upper half
    _, seeding = begun(second, scene.probe, run_to(engine, 30))
    assert 24 <= seeding.n_used < 48
