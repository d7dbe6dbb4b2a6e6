import math

import numpy as np
import pytest

from operators.engine.config import RefinerConfig, closing_fraction
from operators.engine.epie import shifted
from operators.engine.refiner import Refiner
from operators.metrics.errors import align_phase, amplitude_error
from operators.optics.forward import intensities
from operators.optics.probe import phase_ramp, probe_modes, probe_tilt, with_power, zone_plate_probe
from operators.patches import extract_patches
from tests.helpers.operators.scenes import (
    DISC_PX,
    N_PIXELS,
    PHOTONS,
    PUPIL_PX,
    append_all,
    make_scene,
    run_epochs,
    run_to,
    wrong_probe,
)

HELD = RefinerConfig(probe_step=0)


@pytest.fixture(scope="module")
def scene():
    return make_scene()


@pytest.mark.parametrize("algorithm", ["epie", "rpie"])
def test_object_and_probe_are_found_from_a_wrong_probe(scene, xp, algorithm):
    refiner = Refiner(RefinerConfig(algorithm=algorithm), wrong_probe(), xp=xp)
    append_all(refiner, scene)
    snapshot = run_to(refiner, 30)
    assert scene.error(snapshot) < 0.2
    overlap = abs(np.vdot(snapshot.probe, scene.probe)) / (
        np.linalg.norm(snapshot.probe) * np.linalg.norm(scene.probe)
    )
    assert overlap > 0.99
    assert snapshot.n_divergences == 0


def test_the_error_reported_is_that_of_the_data(scene):
    refiner = Refiner(HELD, scene.probe)
    append_all(refiner, scene)
    snapshot = run_to(refiner, 15, closes=True)
    corners = scene.corners - snapshot.bounds.origin
    expected = amplitude_error(scene.patterns, snapshot.object, snapshot.probe, corners)
    assert snapshot.error == pytest.approx(expected, rel=0.05)
    assert len(snapshot.error_history) == 15
    assert snapshot.error_history[-1] == pytest.approx(snapshot.error)
    assert snapshot.error_history[0] > 3 * snapshot.error_history[-1]


def test_equal_seeds_give_equal_objects_and_others_do_not(scene):
    objects = []
    for seed in (0, 0, 1):
        refiner = Refiner(RefinerConfig(seed=seed), scene.probe)
        append_all(refiner, scene)
        objects.append(run_to(refiner, 4).object)
    np.testing.assert_array_equal(objects[0], objects[1])
    assert not np.array_equal(objects[0], objects[2])


def test_where_the_pixels_are_counted_from_changes_nothing_but_the_global_phase():
    results = []
    for origin in ((0, 0), (-1000, 777)):
        scene = make_scene(origin=origin)
        refiner = Refiner(RefinerConfig(), scene.probe)
        append_all(refiner, scene)
        results.append(run_to(refiner, 3))
    lit = results[0].illumination > 0
    here, away = (result.object[lit] for result in results)
    np.testing.assert_allclose(align_phase(away, here), here, atol=1e-4)
    first, moved = (result.bounds for result in results)
    assert (moved.top - first.top, moved.left - first.left) == (-1000, 777)


def test_frames_arriving_during_refinement_end_at_the_same_object(scene):
    """Live and offline agree: the order of arrival is forgotten by the time all have been seen often."""
    at_once, live = Refiner(HELD, scene.probe), Refiner(HELD, scene.probe)
    append_all(at_once, scene)
    for first in range(0, len(scene.corners), 8):
        append_all(live, scene, slice(first, first + 8))
        live.step(3)
    a, b = (run_to(refiner, 60, closes=True) for refiner in (at_once, live))
    inside = np.s_[N_PIXELS // 2 : -N_PIXELS // 2, N_PIXELS // 2 : -N_PIXELS // 2]
    assert a.bounds == b.bounds
    turn = np.vdot(a.object[inside], b.object[inside])
    difference = a.object[inside] * (turn / abs(turn)) - b.object[inside]
    assert np.linalg.norm(difference) / np.linalg.norm(b.object[inside]) < 0.02


def test_room_for_the_whole_scan_made_at_once_changes_nothing(scene):
    as_needed, at_once = Refiner(HELD, scene.probe), Refiner(HELD, scene.probe)
    at_once.windows(scene.corners)  # which makes room for them
    results = []
    for refiner in (as_needed, at_once):
        for first in range(0, len(scene.corners), 8):
            append_all(refiner, scene, slice(first, first + 8))
            refiner.step(3)
        results.append(refiner.snapshot())
    a, b = results
    assert a.bounds == b.bounds
    np.testing.assert_allclose(b.object, a.object, rtol=1e-5, atol=1e-6)


def test_the_first_few_frames_do_not_bend_the_probe_to_themselves(scene):
    refiner = Refiner(RefinerConfig(), wrong_probe())
    append_all(refiner, scene, slice(0, 6))
    run_epochs(refiner, 6)
    np.testing.assert_allclose(refiner.probe, wrong_probe(), rtol=1e-6)
    run_epochs(refiner, 12)
    assert not np.allclose(refiner.probe, wrong_probe(), rtol=1e-3)


def test_a_scan_that_grows_from_a_wrong_probe_ends_as_one_that_was_there_from_the_start(scene):
    errors = []
    for n_at_a_time in (1, len(scene.corners)):
        refiner = Refiner(RefinerConfig(levels=False), wrong_probe())
        while refiner.n_updates < 40 * len(scene.corners):
            append_all(refiner, scene, slice(refiner.n_frames, refiner.n_frames + n_at_a_time))
            refiner.step(fraction=closing_fraction(refiner.n_updates / len(scene.corners), 40))
        errors.append(scene.error(refiner.snapshot()))
        assert refiner.n_divergences == 0
    assert errors[0] <= 1.1 * errors[1]


def test_a_frame_sent_twice_changes_nothing(scene):
    once, twice = Refiner(HELD, scene.probe), Refiner(HELD, scene.probe)
    append_all(once, scene)
    append_all(twice, scene)
    append_all(twice, scene, slice(10, 20))
    assert twice.n_frames == once.n_frames
    np.testing.assert_array_equal(run_to(twice, 2).object, run_to(once, 2).object)


def test_refining_longer_does_not_follow_the_noise():
    """Dose 98 photons a pixel, four times as many epochs: plain rPIE ends 40 % worse there."""
    scene = make_scene(side=6)
    refiner = Refiner(HELD, scene.probe)
    append_all(refiner, scene)
    at_50, at_200 = (scene.error(run_to(refiner, n_epochs)) for n_epochs in (50, 200))
    assert at_200 <= 1.05 * at_50


def test_falling_steps_at_the_end_average_the_noise_away(scene):
    errors = {}
    for closes in (False, True):
        refiner = Refiner(HELD, scene.probe)
        append_all(refiner, scene)
        errors[closes] = run_to(refiner, 30, closes=closes).error
    assert errors[True] < errors[False]
    assert closing_fraction(0, 40) == closing_fraction(28, 40) == 1
    assert 0 < closing_fraction(40, 40) < 0.1


def test_the_power_of_the_probe_is_kept_and_its_modes_are_orthogonal(scene):
    start = probe_modes(wrong_probe()[0], 3, power=0.05)
    refiner = Refiner(RefinerConfig(), start)
    append_all(refiner, scene)
    probe = run_to(refiner, 5).probe
    assert float((np.abs(probe) ** 2).sum()) == pytest.approx(PHOTONS, rel=1e-4)
    flat = probe.reshape(3, -1)
    overlaps = np.abs(flat.conj() @ flat.T)
    powers = np.diag(overlaps)
    assert np.all(np.diff(powers) <= 0)
    assert np.abs(overlaps - np.diag(powers)).max() < 1e-3 * powers[0]


def test_slow_phases_that_iterations_would_not_find_are_levelled_as_a_scan_closes():
    wide = make_scene(side=20)
    errors = {}
    for levels in (True, False):
        refiner = Refiner(RefinerConfig(probe_step=0, levels=levels), wide.probe)
        append_all(refiner, wide)
        errors[levels] = wide.error(run_to(refiner, 30, closes=True))
    assert errors[True] < 0.7 * errors[False]


def test_an_object_that_starts_tilted_ends_upright_beside_a_known_probe(scene):
    """No pattern tells a ramp in the object from one in the probe; the probe given decides."""
    tilt = phase_ramp(scene.truth.shape, np.array([0.03, -0.02], np.float32))
    start = extract_patches(scene.truth * tilt, scene.corners, N_PIXELS)
    refiner = Refiner(RefinerConfig(), scene.probe)
    append_all(refiner, scene)
    refiner.seed_object(start, np.ones((N_PIXELS, N_PIXELS), np.float32), scene.corners)
    snapshot = run_to(refiner, 20)
    np.testing.assert_allclose(probe_tilt(snapshot.probe), probe_tilt(scene.probe), atol=1e-5)
    assert not np.allclose(probe_tilt(refiner.probe), probe_tilt(scene.probe), atol=1e-2)
    assert scene.error(snapshot) < 0.15  # in the engine, with the ramp, 0.67
    local = scene.corners - snapshot.bounds.origin
    residual = amplitude_error(scene.patterns, snapshot.object, snapshot.probe, local)
    assert residual == pytest.approx(snapshot.error, rel=0.1)


def test_a_second_mode_is_needed_and_used_when_the_light_is_partially_coherent():
    coherent = zone_plate_probe(N_PIXELS, PUPIL_PX, DISC_PX)
    blurred = make_scene(probe=probe_modes(coherent, 3, power=0.15), photons=1e6)
    errors = []
    for n_modes in (1, 3):
        refiner = Refiner(RefinerConfig(), probe_modes(blurred.probe[0], n_modes, power=0.02))
        refiner.set_probe(with_power(refiner.probe, 1e6))
        append_all(refiner, blurred)
        errors.append(run_to(refiner, 25).error)
    assert errors[1] < 0.6 * errors[0]


def test_garbage_in_invalid_pixels_does_no_harm(scene):
    mask = np.ones((N_PIXELS, N_PIXELS), bool)
    mask[4:7, 20] = mask[0, 9] = False
    spoilt = scene.patterns.copy()
    spoilt[:, ~mask] = 1e6
    refiner = Refiner(HELD, scene.probe, mask=mask)
    numbers = list(range(len(spoilt)))
    refiner.append(numbers, spoilt, scene.corners.astype(float))
    snapshot = run_to(refiner, 30)
    assert scene.error(snapshot) < 0.15
    assert snapshot.error < 0.01


def test_fractions_of_a_pixel_are_used_when_asked_for():
    scene = make_scene(is_noisy=False)
    fractions = np.random.default_rng(0).uniform(-0.49, 0.49, scene.corners.shape).astype(np.float32)
    probes = shifted(scene.probe[None], fractions)
    patches = extract_patches(scene.truth, scene.corners, N_PIXELS)
    patterns = np.concatenate([intensities(p, o[None]) for p, o in zip(probes, patches, strict=True)])
    found = {}
    for subpixel in (False, True):
        refiner = Refiner(RefinerConfig(probe_step=0, subpixel=subpixel), scene.probe)
        refiner.append(list(range(len(patterns))), patterns, scene.corners + fractions)
        found[subpixel] = run_to(refiner, 30)
    assert found[True].error < 0.2 * found[False].error
    assert scene.error(found[True]) < 0.7 * scene.error(found[False])


def test_few_photons_tell_more_when_their_noise_is_known():
    """A third of a photon in a pixel on average."""
    scene = make_scene(photons=300.0)
    errors = {}
    for noise in ("gaussian", "poisson"):
        refiner = Refiner(RefinerConfig(probe_step=0, noise=noise), scene.probe)
        append_all(refiner, scene)
        errors[noise] = scene.error(run_to(refiner, 40, closes=True))
    assert errors["poisson"] < 0.9 * errors["gaussian"]


class TestSeeding:
    def test_new_ground_is_transparent(self, scene):
        refiner = Refiner(HELD, scene.probe)
        append_all(refiner, scene)
        np.testing.assert_array_equal(refiner.snapshot().object, 1)

    def test_a_seed_from_the_truth_starts_where_refinement_would_end(self, scene):
        refiner = Refiner(HELD, scene.probe)
        append_all(refiner, scene)
        patches = extract_patches(scene.truth, scene.corners, N_PIXELS)
        refiner.seed_object(patches, np.abs(scene.probe[0]) ** 2, scene.corners)
        assert scene.error(refiner.snapshot()) < 1e-3
        assert run_to(refiner, 1).error < 0.01

    def test_ground_that_has_been_refined_is_not_written(self, scene):
        refiner = Refiner(HELD, scene.probe)
        append_all(refiner, scene)
        before = run_to(refiner, 10)
        noise = np.random.default_rng(0).standard_normal((len(scene.corners), N_PIXELS, N_PIXELS))
        refiner.seed_object(noise.astype(np.complex64), np.abs(scene.probe[0]) ** 2, scene.corners)
        after = refiner.snapshot()
        is_refined = before.illumination > 0.1 * (np.abs(scene.probe[0]) ** 2).max()
        assert is_refined.mean() > 0.3
        np.testing.assert_array_equal(after.object[is_refined], before.object[is_refined])

    def test_pixels_without_weight_are_not_written(self, scene):
        refiner = Refiner(HELD, scene.probe)
        append_all(refiner, scene)
        weights = np.zeros((N_PIXELS, N_PIXELS), np.float32)
        weights[10, 12] = 1
        corners = scene.corners[:1]
        refiner.seed_object(np.full((1, N_PIXELS, N_PIXELS), 5j, np.complex64), weights, corners)
        snapshot = refiner.snapshot()
        (where,) = np.argwhere(snapshot.object != 1)
        assert (where + snapshot.bounds.origin).tolist() == (corners[0] + [10, 12]).tolist()

    def test_the_global_phase_of_a_seed_continues_that_of_the_refined_object(self, scene):
        refiner = Refiner(HELD, scene.probe)
        append_all(refiner, scene, slice(0, 32))
        run_epochs(refiner, 30)
        known = refiner.snapshot()
        append_all(refiner, scene, slice(32, None))
        patches = extract_patches(scene.truth, scene.corners[32:], N_PIXELS)
        refiner.seed_object(np.exp(2j) * patches, np.abs(scene.probe[0]) ** 2, scene.corners[32:])
        seeded = refiner.snapshot()
        new = seeded.object[known.bounds.shape[0] + 4 : -10, 16:-16]
        truth = scene.truth[known.bounds.bottom + 4 - scene.origin[0] :][: new.shape[0]]
        left = seeded.bounds.left - scene.origin[1] + 16
        truth = truth[:, left : left + new.shape[1]]
        old = known.object[16:-16, 16:-16]
        old_truth = scene.truth[known.bounds.top + 16 :][: old.shape[0], left : left + old.shape[1]]
        turns = [np.angle(np.vdot(true, found)) for true, found in ((truth, new), (old_truth, old))]
        assert abs(np.angle(np.exp(1j * (turns[0] - turns[1])))) < 0.2


def test_illumination_is_the_light_of_all_frames_visited(scene):
    refiner = Refiner(HELD, scene.probe)
    append_all(refiner, scene)
    run_epochs(refiner, 2)
    assert refiner.snapshot().illumination.sum() == pytest.approx(len(scene.corners) * PHOTONS, rel=1e-4)


def test_without_frames_there_is_nothing_to_do(scene):
    refiner = Refiner(HELD, scene.probe)
    assert refiner.step(5) == 0
    assert refiner.epoch == 0
    assert math.isnan(refiner.error)
    with pytest.raises(ValueError, match="no frame has been appended"):
        refiner.snapshot()


def test_bad_frames_leave_the_engine_as_it_was(scene):
    refiner = Refiner(HELD, scene.probe)
    append_all(refiner, scene)
    with pytest.raises(ValueError, match="frame 500 is not finite"):
        refiner.append([500], scene.patterns[:1], np.full((1, 2), np.nan))
    assert refiner.n_frames == len(scene.corners)
    assert refiner.step() > 0


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        (np.ones((N_PIXELS, N_PIXELS), np.complex64), r"probe of shape \(mode, 32, 32\), got \(32, 32\)"),
        (np.zeros((1, N_PIXELS, N_PIXELS), np.complex64), "finite power above zero"),
        (np.full((1, N_PIXELS, N_PIXELS), np.nan, np.complex64), "finite power above zero"),
    ],
)
def test_a_probe_that_cannot_be_one_is_refused(probe, message):
    with pytest.raises(ValueError, match=message):
        Refiner(HELD, probe)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"algorithm": "dm"}, "algorithm\n.*'epie' or 'rpie'.*'dm'"),
        ({"alpha": 0}, "alpha\n.*greater than 0.*input_value=0"),
        ({"object_step": 1.5}, "object_step\n.*less than or equal to 1.*input_value=1.5"),
        ({"anneal_visits": -1}, "anneal_visits"),
        ({"batch_size": 0}, "batch_size\n.*greater than 0"),
    ],
)
def test_settings_out_of_range_are_named(setting, message):
    with pytest.raises(ValueError, match=message):
        RefinerConfig(**setting)
