import numpy as np
import pytest

from operators.arrays import abs2
from operators.engine.config import RefinerConfig
from operators.engine.epie import shifted
from operators.engine.refiner import Refiner
from operators.engine.tiling import (
    TileObject,
    combine_objects,
    combine_probes,
    common_phases,
    match_gauge,
    partition,
)
from operators.geometry import Bounds, window_corners
from operators.metrics.gauge import Gauge
from operators.optics.forward import intensities
from operators.optics.probe import probe_modes, with_power
from operators.patches import extract_patches
from tests.helpers.operators.scenes import N_PIXELS, make_scene, run_epochs, smooth_object


@pytest.mark.parametrize("n_tiles", [1, 2, 3, 4, 7])
def test_every_frame_is_in_one_tile_and_all_tiles_have_as_much_work(n_tiles):
    positions = np.random.default_rng(0).uniform(0, 1e-5, (101, 2))
    tiles = partition(positions, n_tiles)
    assert len(tiles) == n_tiles
    np.testing.assert_array_equal(np.sort(np.concatenate(tiles)), np.arange(101))
    assert max(map(len, tiles)) - min(map(len, tiles)) <= 1
    assert all((np.diff(tile) > 0).all() for tile in tiles), "the order of the scan is kept"


def test_tiles_are_compact_and_their_cuts_lie_across_the_longer_side():
    rows, columns = np.indices((10, 40)).reshape(2, -1)
    tiles = partition(np.stack([rows, columns], axis=1).astype(float), 4)
    widths = [np.ptp(columns[tile]) + 1 for tile in tiles]
    assert widths == [10, 10, 10, 10]
    assert all(np.ptp(rows[tile]) == 9 for tile in tiles)


@pytest.mark.parametrize("n_tiles", [0, 6])
def test_more_tiles_than_frames_are_refused(n_tiles):
    with pytest.raises(ValueError, match="expected 1 to 5 tiles"):
        partition(np.zeros((5, 2)), n_tiles)


def tile(truth, bounds, phase=0.0, light=1.0):
    whole = Bounds(0, 0, *truth.shape)
    part = truth[bounds.slices_in(whole)] * np.exp(1j * phase)
    return TileObject(part.astype(np.complex64), bounds, np.full(bounds.shape, light, np.float32))


def test_tiles_that_differ_by_global_phases_become_the_one_object_they_are_of():
    truth = smooth_object((60, 90), np.random.default_rng(1))
    bounds = [Bounds(0, left, 60, left + 40) for left in (0, 25, 50)]
    tiles = [tile(truth, b, phase) for b, phase in zip(bounds, (0.0, 1.2, -2.0), strict=True)]
    whole = combine_objects(tiles)
    assert whole.bounds == Bounds(0, 0, 60, 90)
    turn = np.exp(-1j * np.angle(np.vdot(truth, whole.object)))
    np.testing.assert_allclose(whole.object * turn, truth, atol=1e-4)
    np.testing.assert_array_equal(whole.illumination[0, [0, 30, 45, 60]], [1, 2, 1, 2])


def test_where_halos_disagree_the_better_lit_tile_decides():
    ones = np.ones((20, 20), np.complex64)
    bright, faint = tile(ones, Bounds(0, 0, 20, 20), light=9), tile(2 * ones, Bounds(0, 0, 20, 20))
    np.testing.assert_allclose(combine_objects([bright, faint]).object, 1.1, rtol=1e-5)


def test_ground_of_no_tile_is_transparent_and_tiles_without_a_halo_keep_their_phase():
    truth = 0.5 * np.ones((30, 30))
    apart = [tile(truth, Bounds(0, 0, 10, 10), 0.4), tile(truth, Bounds(20, 20, 30, 30), -1.0)]
    np.testing.assert_array_equal(common_phases(apart), [1, 1])
    whole = combine_objects(apart)
    assert whole.object[5, 25] == 1
    np.testing.assert_allclose(np.angle(whole.object[[5, 25], [5, 25]]), [0.4, -1.0], atol=1e-6)


@pytest.mark.parametrize("move_px", [(0.0, 0.0), (0.04, -0.07)])
def test_the_gauge_of_a_tile_goes_and_its_intensities_stay(move_px):
    """Modes mixed, probe and object moved, a phase ramp passed between them: no pattern shows any of it."""
    scene = make_scene(side=3, is_noisy=False)
    rng = np.random.default_rng(2)
    reference = probe_modes(scene.probe[0], 3)
    mixture = np.linalg.qr(rng.normal(size=(3, 3)) + 1j * rng.normal(size=(3, 3)))[0]
    y, x = np.indices(scene.truth.shape)
    ramp = np.exp(1j * (0.02 * y - 0.01 * x))
    moved = shifted(reference[None], np.array([move_px], np.float32))[0]
    probe = np.einsum("ij,jyx->iyx", mixture, moved * ramp[:N_PIXELS, :N_PIXELS]).astype(np.complex64)
    bounds = Bounds(0, 0, *scene.truth.shape)
    away = Gauge(shift_px=(-move_px[0], -move_px[1])).remove_from(scene.truth)
    drifted = TileObject((away / ramp).astype(np.complex64), bounds, np.ones(bounds.shape, np.float32))
    matched, found = match_gauge(drifted, probe, reference)
    turn = np.exp(-1j * np.angle(np.vdot(reference, found)))
    np.testing.assert_allclose(found * turn, reference, atol=2e-3 * np.abs(reference).max())
    inside = np.s_[4:-4, 4:-4]
    turn = np.exp(-1j * np.angle(np.vdot(scene.truth, matched.object)))
    np.testing.assert_allclose((matched.object * turn)[inside], scene.truth[inside], atol=3e-3)
    before = intensities(probe, extract_patches(drifted.object, scene.corners, N_PIXELS))
    after = intensities(found, extract_patches(matched.object, scene.corners, N_PIXELS))
    np.testing.assert_allclose(after, before, atol=3e-3 * before.max())


def test_a_ramp_that_all_tiles_share_leaves_no_step_between_them():
    scene = make_scene(side=3)
    truth = smooth_object((60, 90), np.random.default_rng(1))
    ramp = np.exp(0.03j * np.arange(90))
    probe = (scene.probe * ramp[:N_PIXELS]).astype(np.complex64)
    parts = [tile(truth / ramp, Bounds(0, left, 60, left + 50)) for left in (0, 40)]
    matched = [match_gauge(part, probe, scene.probe)[0] for part in parts]
    np.testing.assert_allclose(common_phases(matched), 1, atol=1e-3)


def test_probes_count_as_their_frames_do_and_keep_the_power():
    start = np.full((1, 4, 4), 2, np.complex64)
    changed = start.copy()
    changed[0, 0, 0] += 1
    few, many = (
        combine_probes([with_power(start, 64), with_power(changed, 64)], counts)
        for counts in ([3, 1], [1, 3])
    )
    assert abs2(few).sum() == pytest.approx(64, rel=1e-5)
    assert abs(few[0, 0, 0] / few[0, 1, 1]) == pytest.approx(2.25 / 2, rel=0.01)
    assert abs(many[0, 0, 0] / many[0, 1, 1]) == pytest.approx(2.75 / 2, rel=0.01)


def test_what_a_refiner_adopts_is_what_it_goes_on_from_also_after_divergence():
    scene = make_scene(side=4)
    refiner = Refiner(RefinerConfig(), scene.probe)
    refiner.append(range(16), scene.patterns, scene.corners.astype(float))
    run_epochs(refiner, 2)
    bounds = Bounds.of_windows(window_corners(scene.corners.astype(float)), N_PIXELS)
    known = scene.truth[bounds.slices_in(Bounds(0, 0, *scene.truth.shape))]
    refiner.adopt(known, bounds, scene.probe)
    np.testing.assert_array_equal(refiner.snapshot().object, known)
    assert refiner.epoch == 2
    refiner.append([3], 1e12 * scene.patterns[3:4], scene.corners[3:4].astype(float))
    refiner.append([4], np.zeros_like(scene.patterns[4:5]), scene.corners[4:5].astype(float))
    run_epochs(refiner, 4)
    assert refiner.n_divergences > 0
    np.testing.assert_array_equal(refiner.snapshot().object, known)
