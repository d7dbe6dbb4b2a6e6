import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.geometry import Bounds
from operators.mosaic.mosaic import phase_variance
from operators.steering.importance import (
    LEAST_IMPORTANCE,
    MOST_INFLATION,
    RELEVANT,
    Quality,
    StopRule,
    Verdict,
    importance,
    inflation,
    predicted_gain,
    quality,
    verdicts,
)
from operators.steering.maps import SuperPixels, block_mean

AREA = Bounds(-40, 16, 120, 216)
NOISE_RAD = 0.1


def picture(rng, noise_rad=NOISE_RAD):
    """A sample with structure in one corner, seen with noise."""
    phase = np.zeros(AREA.shape)
    rows, columns = np.indices((60, 60))
    phase[:60, :60] = 0.8 * ((rows // 6 + columns // 6) % 2)
    object_ = np.exp(1j * (phase + rng.normal(0, noise_rad, AREA.shape))).astype(np.complex64)
    sigma = np.full(AREA.shape, noise_rad, np.float32)
    photons = np.full(AREA.shape, 1.35 / (2 * noise_rad**2), np.float32)
    return object_, sigma, photons


def maps_of(object_, sigma, photons):
    maps = SuperPixels(AREA)
    maps.update(object_, sigma, photons, AREA)
    return maps


def test_super_pixels_are_means_over_squares_of_absolute_pixels():
    object_, sigma, photons = picture(np.random.default_rng(0))
    sigma[:8, :8], photons[:8, :8] = 0.5, 7.0
    object_[8:16, :4] = 0
    maps = maps_of(object_, sigma, photons)
    assert maps.cells == Bounds(-5, 2, 15, 27)
    assert maps.variance[0, 0] == pytest.approx(0.25)
    assert maps.photons[0, 0] == pytest.approx(7.0)
    assert maps.coverage[1, 0] == 0.5
    assert maps.variance[1, 0] == pytest.approx(NOISE_RAD**2)
    assert maps.cell_of([(-40, 16), (-33, 23), (-32, 16), (119, 215)]).tolist() == [0, 0, 25, 20 * 25 - 1]


def test_structure_is_the_squared_phase_step_and_unknown_neighbours_are_left_out():
    ramp = np.exp(0.1j * np.indices(AREA.shape).sum(axis=0)).astype(np.complex64)
    ramp[:, 100:] = 0
    maps = maps_of(ramp, np.zeros(AREA.shape, np.float32), np.ones(AREA.shape, np.float32))
    inside = maps.coverage > 0
    np.testing.assert_allclose(maps.structure[inside], 0.02, rtol=0.01)
    assert (maps.structure[~inside] == 0).all()


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.integers(-60, 230)] * 2), st.tuples(*[st.integers(1, 90)] * 2))
def test_an_update_where_the_image_changed_gives_the_maps_of_the_whole_image(corner, size):
    object_, sigma, photons = picture(np.random.default_rng(1))
    maps = maps_of(object_, sigma, photons)
    changed = Bounds(corner[0], corner[1], corner[0] + size[0], corner[1] + size[1])
    rows = slice(max(changed.top - AREA.top, 0), max(changed.bottom - AREA.top, 0))
    columns = slice(max(changed.left - AREA.left, 0), max(changed.right - AREA.left, 0))
    object_[rows, columns] *= 1j
    sigma[rows, columns], photons[rows, columns] = 0.3, 11
    # The step across the upper and left edge belongs to the pixel before it.
    maps.update(
        object_,
        sigma,
        photons,
        AREA,
        Bounds(changed.top - 1, changed.left - 1, changed.bottom, changed.right),
    )
    whole = maps_of(object_, sigma, photons)
    for name in ("photons", "variance", "structure", "coverage"):
        np.testing.assert_allclose(getattr(maps, name), getattr(whole, name), rtol=1e-4, atol=1e-6)


def test_an_image_that_covers_only_a_part_leaves_the_rest_unknown():
    maps = SuperPixels(AREA)
    part = Bounds(100, 200, 300, 300)
    shape = part.shape
    maps.update(np.ones(shape, np.complex64), np.zeros(shape), np.ones(shape, np.float32), part)
    assert maps.coverage[-1, -1] == 1
    assert np.count_nonzero(maps.coverage) == 3 * 2
    maps.update(np.ones((4, 4), np.complex64), np.ones((4, 4)), np.ones((4, 4)), Bounds(900, 900, 904, 904))
    assert np.count_nonzero(maps.coverage) == 3 * 2


def test_structure_matters_empty_noisy_ground_does_not():
    weights = importance(maps_of(*picture(np.random.default_rng(2))))
    assert weights[:6, :6].min() > RELEVANT
    assert np.median(weights[12:, 12:]) == pytest.approx(LEAST_IMPORTANCE)
    assert (weights[12:, 12:] < RELEVANT).all()


def test_a_sample_with_structure_everywhere_matters_everywhere():
    rng = np.random.default_rng(3)
    rows, columns = np.indices(AREA.shape)
    phase = 0.8 * ((rows // 6 + columns // 6) % 2) + rng.normal(0, 0.02, AREA.shape)
    sigma = np.full(AREA.shape, 0.02, np.float32)
    maps = maps_of(np.exp(1j * phase).astype(np.complex64), sigma, np.ones(AREA.shape, np.float32))
    assert importance(maps).min() > 0.5


def test_what_nobody_has_seen_matters():
    maps = SuperPixels(AREA)
    assert (importance(maps) == 1).all()
    assert (inflation(maps) == 1).all()


def test_inflation_is_the_ratio_to_photon_noise_within_bounds():
    object_, sigma, photons = picture(np.random.default_rng(4))
    sigma[:, :80] *= 2
    sigma[:, 160:] *= 100
    ratio = inflation(maps_of(object_, sigma, photons))
    np.testing.assert_allclose(ratio[:, :10], 4, rtol=0.1)
    np.testing.assert_allclose(ratio[:, 10:20], 1, rtol=0.1)
    assert (ratio[:, 20:] == MOST_INFLATION).all()


def test_predicted_gain_is_the_fall_of_the_bound_where_it_can_be_computed_by_hand():
    maps = maps_of(np.ones(AREA.shape, np.complex64), np.full(AREA.shape, 0.1), np.full(AREA.shape, 100.0))
    weights = np.zeros(maps.cells.shape, np.float32)
    weights[8, 8] = 1
    illumination = np.full((16, 16), 30.0)
    centre = np.array([[8 * 8 + AREA.top + 8, 8 * 8 + AREA.left + 8]])
    before = 1 / (1 / phase_variance(100.0) + 1)
    after = 1 / (1 / phase_variance(100.0) + 1 / phase_variance(30.0) + 1)
    gain = predicted_gain(maps, weights, illumination, centre)
    assert gain[8, 8] == pytest.approx(before - after, rel=1e-4)
    assert np.count_nonzero(gain) == 1
    assert not predicted_gain(maps, weights, illumination, centre + 900).any()
    assert not predicted_gain(maps, weights, illumination, centre[:0]).any()


def test_gains_of_repeated_exposures_diminish_and_never_turn_negative():
    maps = maps_of(*picture(np.random.default_rng(5)))
    weights, illumination = importance(maps), np.full((24, 24), 5.0)
    centre = np.array([[0, 40]])
    gains = [
        predicted_gain(maps, weights, illumination, np.repeat(centre, n, axis=0)).sum() for n in range(5)
    ]
    steps = np.diff(gains)
    assert (steps > 0).all()
    assert (np.diff(steps) < 0).all()


def test_a_place_needs_dose_when_noise_is_its_error_and_computing_when_it_is_not():
    object_, sigma, photons = picture(np.random.default_rng(6))
    sigma[:, :80] = 0.4
    sigma[:, 160:] = 0.01
    object_[80:] = 0
    verdict = verdicts(maps_of(object_, sigma, photons), target_rad=0.05)
    assert (verdict[:9, :9] == Verdict.COMPUTE).all()
    assert (verdict[:9, 10:20] == Verdict.DOSE).all()
    assert (verdict[:9, 20:] == Verdict.ENOUGH).all()
    assert (verdict[11:] == Verdict.UNSEEN).all()


def test_quality_looks_only_at_places_that_matter():
    object_, sigma, photons = picture(np.random.default_rng(7))
    maps = maps_of(object_, sigma, photons)
    weights, field = np.zeros(maps.cells.shape, np.float32), np.ones(maps.cells.shape, bool)
    assert quality(maps, weights, field) == Quality(sigma_q95_rad=0.0, relevant_fraction=0.0)
    weights[:, 5] = 1
    now = quality(maps, weights, field)
    assert now.sigma_q95_rad == pytest.approx(NOISE_RAD, rel=1e-3)
    assert now.relevant_fraction == pytest.approx(1 / maps.cells.shape[1])
    maps.coverage[3:6, 5] = 0
    assert quality(maps, weights, field).sigma_q95_rad == np.inf
    field[3:6] = False
    assert quality(maps, weights, field).sigma_q95_rad == now.sigma_q95_rad


def test_one_lucky_map_does_not_stop_a_scan():
    rule = StopRule(target_rad=0.05)
    for sigma in (0.04, 0.04, 0.06, 0.04, 0.04):
        rule.look(Quality(sigma_q95_rad=sigma, relevant_fraction=0.2))
        assert not rule.is_met
    rule.look(Quality(sigma_q95_rad=0.05, relevant_fraction=0.2))
    assert rule.is_met


def test_without_a_target_a_scan_never_stops_by_itself():
    rule = StopRule(target_rad=0)
    for _ in range(5):
        rule.look(Quality(sigma_q95_rad=0.0, relevant_fraction=0.2))
    assert not rule.is_met


def test_block_means_are_means():
    values = np.random.default_rng(8).random((24, 40))
    np.testing.assert_allclose(block_mean(values, 8), values.reshape(3, 8, 5, 8).mean((1, 3)), rtol=1e-5)
