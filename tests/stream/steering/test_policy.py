import numpy as np
import pytest

from operators.geometry import Bounds
from operators.steering.importance import importance
from operators.steering.repair import REPAIR_LAG
from stream.steering.motor_axes import Axes
from stream.steering.optimizer import BATCH
from tests.helpers.stream.policies import (
    AXES,
    DIAMETER_PX,
    GEOMETRY,
    LIMITS,
    N_PIXELS,
    PIXEL_UM,
    SIDE,
    calibrated,
    image,
    policy,
)


def surveyed(**options):
    """A policy that has seen the whole field and measured the survey."""
    steers = policy(**options)
    while not steers.is_surveyed:
        steers.ingest(steers.suggest(16))
    steers.look(image())
    return steers


def centres(points):
    return AXES.centres([[point["y"], point["x"]] for point in points])


def test_motor_positions_and_pixels_are_inverse_for_every_unit_and_sign():
    pixels = np.array([[0, 0], [17, 900], [-4, 3]])
    for unit, signs in (("um", (1, 1)), ("mm", (-1, 1)), ("nm", (-1, -1))):
        axes = Axes(geometry=GEOMETRY, unit=unit, signs=signs)
        np.testing.assert_array_equal(axes.centres(axes.positions(pixels)), pixels)


def test_the_area_is_what_both_limits_allow_whatever_the_sign():
    assert AXES.area(LIMITS) == Bounds(16, 16, SIDE - 15, SIDE - 15)
    mirrored = Axes(geometry=GEOMETRY, unit="um", signs=(-1, 1))
    low, high = LIMITS[0]
    assert mirrored.area(((-high, -low), LIMITS[1])) == AXES.area(LIMITS)
    with pytest.raises(ValueError, match="y_low, y_high"):
        AXES.area(((1.0, 0.0), (0.0, 1.0)))
    with pytest.raises(ValueError, match="is um its unit"):
        AXES.centres([[1e30, 0.0]])


def test_it_speaks_the_protocol_of_bluesky_adaptive():
    steers = policy(motors=("sy", "sx"))
    assert len(steers.suggest()) == BATCH
    points = steers.suggest(5)
    assert all(set(point) == {"_id", "sy", "sx"} for point in points)
    assert len({point["_id"] for point in points + steers.suggest(3)}) == 8
    assert steers.get_best_points() == []
    steers.ingest(points)
    identity, where, known = steers.get_best_points()[0]
    assert (identity, where["sy"]) == ("4", points[-1]["sy"])
    assert known["n_measured"] == 5
    assert steers.should_stop() == (False, "")


def test_a_measured_point_is_known_by_its_position_or_by_the_suggestion_it_was():
    steers = policy()
    points = steers.suggest(3)
    steers.ingest([{"_id": points[2]["_id"], "objective": 1.0}, {**points[0], "_id": "elsewhere"}])
    assert steers.measured.tolist() == [[points[2]["y"], points[2]["x"]], [points[0]["y"], points[0]["x"]]]
    with pytest.raises(ValueError, match="expected the positions of 'y' and 'x', or the `_id`"):
        steers.ingest([{"_id": "unheard of", "y": 1.0}])
    assert steers.n_measured == 2


def test_it_surveys_first_and_then_measures_where_structure_is():
    steers = surveyed()
    n_survey = steers.n_measured
    assert 0.8 < n_survey * (1.5 * DIAMETER_PX) ** 2 / (SIDE - N_PIXELS) ** 2 < 1.6
    points = centres(steers.suggest(60))
    assert (points < 110).all(axis=1).mean() > 0.9
    assert "importance" in steers.recommend(10)[0].reasons[0]


def test_it_never_leaves_the_limits_or_the_region_of_interest():
    quarter = (LIMITS[0][1] / 2, LIMITS[0][1])
    steers = policy(region=(quarter, quarter))
    for _ in range(6):
        points = steers.suggest(40)
        steers.ingest(points)
        values = np.array([[point["y"], point["x"]] for point in points])
        assert (values >= quarter[0] - 1e-9).all()
        assert (values <= quarter[1] + 1e-9).all()


def test_a_sample_that_matters_everywhere_is_scanned_evenly_and_it_says_so():
    steers = surveyed()
    steers.look(image(version=2, corner_px=SIDE))
    recommendation, points = steers.recommend(60)
    assert recommendation.reasons[0].startswith("even: ")
    assert np.ptp(points, axis=0).min() > 0.6 * LIMITS[0][1]


def test_it_stops_after_three_images_that_are_good_enough_not_after_one():
    steers = surveyed(target_rad=0.05)
    for version in range(2, 5):
        steers.look(image(version, sigma_rad=0.04))
        assert steers.should_stop() == (False, "")
        steers.ingest(steers.suggest(4))
        assert steers.should_stop()[0] == (version == 4)
        steers.ingest(steers.suggest(4))  # the same image says nothing new
    assert steers.suggest(4) == []
    stop, why = steers.should_stop()
    assert stop
    assert "0.04" in why
    assert steers.recommend(4)[0].stop


def test_frames_that_the_image_has_passed_by_are_measured_again_once():
    steers = surveyed()
    while steers.n_measured < 2 * REPAIR_LAG:
        steers.ingest(steers.suggest(16))
    shown = AXES.centres(steers.measured)
    lost = shown[3]
    is_there = np.hypot(*(shown - lost).T) > 8
    steers.look(image(version=2, path=shown[is_there]))
    recommendation, points = steers.recommend(20)
    assert any("repair" in reason for reason in recommendation.reasons)
    assert lost.tolist() in AXES.centres(points).tolist()
    assert not any("repair" in reason for reason in steers.recommend(20)[0].reasons)


def test_the_same_images_and_points_give_the_same_recommendation():
    answers = [surveyed(seed=3, max_dose=500.0).recommend(30) for _ in range(2)]
    assert answers[0][0] == answers[1][0]
    assert answers[0][0].predicted_gain > 0
    np.testing.assert_array_equal(answers[0][1], answers[1][1])
    assert surveyed(seed=4).recommend(30)[0].map_hash != answers[0][0].map_hash


def test_another_list_of_measured_points_begins_a_new_scan_with_the_same_image():
    steers = surveyed()
    n_survey = steers.n_measured
    steers.count(np.array([[1.0, 1.0]]) * PIXEL_UM)
    assert steers.n_measured == 1 < n_survey
    assert steers.maps.coverage.max() == 1
    steers.forget()
    assert (steers.n_measured, steers.maps.coverage.max()) == (0, 0)


def test_while_its_error_bars_are_too_short_it_scans_evenly_and_says_so():
    steers = surveyed()
    steers.look(calibrated(0.54, version=2))
    recommendation, points = steers.recommend(60)
    assert recommendation.reasons[0] == "even: only 54 % of errors are below sigma, not 55 %"
    assert np.ptp(points, axis=0).min() > 0.6 * LIMITS[0][1]
    steers.look(calibrated(0.68, version=3))
    assert not steers.is_even


@pytest.mark.parametrize("coverage68", [None, 0.55, 0.95])
def test_error_bars_that_are_long_enough_or_that_nobody_has_checked_are_believed(coverage68):
    steers = surveyed()
    steers.look(calibrated(coverage68, version=2))
    assert not steers.is_even


def test_nothing_is_good_enough_while_its_error_bars_are_too_short():
    steers = surveyed(target_rad=0.05)
    for version in range(2, 8):
        steers.look(calibrated(0.3 if version < 5 else 0.68, version=version, sigma_rad=0.04))
        steers.ingest(steers.suggest(4))
        assert steers.should_stop()[0] == (version == 7)


def test_when_every_candidate_has_its_dose_it_says_so():
    steers = policy(max_dose=1e-3)
    recommendation, points = steers.recommend(5)
    assert len(points) == 0
    assert "nothing left" in recommendation.reasons[-1]


def test_maps_follow_an_image_that_grows():
    steers = policy()
    whole = image()
    part = image(object=whole.object[:60, :90], sigma=whole.sigma[:60, :90], photons=whole.photons[:60, :90])
    steers.look(part)
    steers.look(image(version=2))
    other = policy()
    other.look(whole)
    for name in ("photons", "variance", "structure", "coverage"):
        np.testing.assert_allclose(getattr(steers.maps, name), getattr(other.maps, name), rtol=1e-5)
    sigma = whole.sigma.copy()
    sigma[100:110, 100 : N_PIXELS + 100] = 0.7
    steers.look(image(version=3, sigma=sigma))
    other.look(image(version=4))
    assert (steers.maps.variance > other.maps.variance + 0.1).sum() > 3


def test_the_image_of_another_scan_replaces_what_the_last_one_showed():
    steers = surveyed()
    part = image(
        scan="0001-star", object=image().object[:60, :60], sigma=np.zeros((60, 60)), photons=np.ones((60, 60))
    )
    steers.look(part)
    assert np.count_nonzero(steers.maps.coverage) == 8 * 8


def test_what_a_batch_brought_is_told_once_the_image_shows_it():
    steers = surveyed()
    promised, points = steers.recommend(20)
    steers.count(np.concatenate([steers.measured, points]))
    n_frames = steers.n_measured
    steers.look(image(version=2, frames_seen=n_frames - 1, sigma_rad=0.05))
    of_the_survey = steers.recommend(20)[0].realised_gain
    steers.look(image(version=3, frames_seen=n_frames - 3, counts={"lost": 3}, sigma_rad=0.05))
    shown = steers.recommend(20)[0]
    assert of_the_survey > shown.realised_gain  # it began with nothing known
    assert shown.shown_predicted_gain == pytest.approx(promised.predicted_gain)
    lit = steers.maps.coverage > 0.5
    everywhere = (0.1**2 - 0.05**2) * importance(steers.maps)[lit].sum() * 64
    assert 0.5 * everywhere < shown.realised_gain < everywhere, "where the batch put light, not everywhere"


def test_with_a_target_it_says_whether_photons_or_computing_are_missing():
    steers = surveyed(target_rad=0.05)
    steers.look(image(version=2, sigma_rad=0.1))
    assert "of what matters 0 % unseen, 0 % enough, 100 % dose, 0 % compute" in steers.recommend(4)[0].reasons
    steers.look(image(version=3, sigma_rad=0.4))
    assert "of what matters 0 % unseen, 0 % enough, 0 % dose, 100 % compute" in steers.recommend(4)[0].reasons


def batches(steers, sigmas, n_points=24):
    """The pixels recommended after each image; every image shows all that was measured before it."""
    chosen = []
    for version, sigma in enumerate(sigmas, start=2):
        _, points = steers.recommend(n_points)
        steers.count(np.concatenate([steers.measured, points]))
        steers.look(image(version=version, frames_seen=steers.n_measured, sigma=sigma))
        chosen.append(AXES.centres(steers.recommend(n_points)[1]))
    return chosen


def test_where_measuring_does_not_help_it_stops_to_measure_more_and_says_so():
    stuck = np.s_[:40, :80]
    sigmas = [np.full((SIDE, SIDE), 0.2 * 0.7**n, np.float32) for n in range(4)]
    for sigma in sigmas:
        sigma[stuck] = 0.3
    steers = surveyed()
    chosen = batches(steers, sigmas)
    n_stuck = [int((points < (32, 64)).all(axis=1).sum()) for points in chosen]  # whole tiles of the audit
    assert n_stuck[0] >= 4
    assert n_stuck[-1] == 0
    assert any("squares that matter do not improve" in reason for reason in steers.recommend(4)[0].reasons)
    assert not steers.is_even


def test_while_its_predictions_are_wrong_it_scans_evenly_and_says_so():
    steers = surveyed()
    batches(steers, [np.full((SIDE, SIDE), 0.1 * 1.1**n, np.float32) for n in range(4)])
    assert steers.is_even
    assert "even: the last batches brought less than was predicted" in steers.recommend(4)[0].reasons
    batches(steers, [np.full((SIDE, SIDE), 0.02, np.float32)])
    assert not steers.is_even
