import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from operators.geometry import Bounds
from operators.steering.candidates import Lattice
from operators.steering.dose import DoseMap
from operators.steering.importance import RELEVANT
from operators.steering.overlap import OverlapGraph
from operators.steering.routes import MOST_TO_EXCHANGE, Travel, short_route, snake_route
from operators.steering.selector import Selector

DIAMETER_PX, N_PIXELS = 16.0, 24
y, x = np.indices((N_PIXELS, N_PIXELS)) - N_PIXELS / 2
ILLUMINATION = 50 * np.exp(-(y**2 + x**2) / 60)

fields = st.tuples(
    st.integers(-500, 500), st.integers(-500, 500), st.integers(60, 130), st.integers(60, 130)
).map(lambda field: Bounds(field[0], field[1], field[0] + field[2], field[1] + field[3]))
seeds = st.integers(0, 2**32 - 1)
thorough = settings(max_examples=25, deadline=None)


def selector(area, seed=0, limit=np.inf, spacing_px=4.0, **options):
    lattice = Lattice(area, spacing_px, np.random.default_rng(seed))
    return Selector(lattice, DoseMap(area, ILLUMINATION, limit), DIAMETER_PX, **options)


def smooth_weights(chooser, seed):
    """Important spots on empty ground, falling off slowly."""
    rng = np.random.default_rng(seed)
    area, centres = chooser.lattice.area, chooser.lattice.centres
    spots = rng.uniform(area.origin, (area.bottom, area.right), (2, 2))
    distance = np.sqrt(((centres[:, :, None] - spots) ** 2).sum(-1)).min(-1)
    return np.clip(np.exp(-distance / 20), 0.004, 1).astype(np.float32)


def run(chooser, weights, n_batches=4, n_points=20):
    """Measure what is selected; return every point with the distance it had from all before it."""
    batches = []
    for _ in range(n_batches):
        batch = chooser.select(n_points, weights)
        chooser.measured(batch.centres)
        batches.append(batch)
    return batches, np.concatenate([batch.centres for batch in batches])


@thorough
@given(fields, seeds)
def test_on_even_ground_points_cover_the_field_and_stay_apart(area, seed):
    chooser = selector(area, seed)
    _, points = run(chooser, np.ones(chooser.lattice.distance.shape, np.float32))
    hole = float(chooser.lattice.distance.max())
    nearest = cKDTree(points).query(points, k=2)[0][:, 1]
    assert nearest.min() >= hole - 1e-3
    everywhere = np.argwhere(np.ones(area.shape)) + area.origin
    assert cKDTree(points).query(everywhere)[0].max() <= hole + 1.5 * chooser.lattice.spacing_px


@thorough
@given(fields, seeds)
def test_where_importance_varies_the_hole_at_every_candidate_is_bounded_by_its_weight(area, seed):
    chooser = selector(area, seed)
    weights = smooth_weights(chooser, seed)
    batches, points = run(chooser, weights)
    candidates = chooser.lattice.centres.reshape(-1, 2)
    distance = cKDTree(points).query(candidates)[0]
    np.testing.assert_allclose(chooser.lattice.distance.ravel(), distance, rtol=1e-4, atol=1e-3)
    scale = weights.ravel() ** 0.25
    largest_left = (distance * scale).max()
    before = batches[0].centres
    for batch in batches[1:]:
        from_before, of_candidate = (
            cKDTree(others).query(batch.centres)[index] for others, index in ((before, 0), (candidates, 1))
        )
        assert (from_before * scale[of_candidate] >= largest_left - 1e-3).all()
        before = np.concatenate([before, batch.centres])


@thorough
@given(fields, seeds, st.floats(1.0, 4.0), st.booleans())
def test_no_pixel_gets_more_than_the_dose_limit_and_no_point_is_outside(area, seed, limit, travels):
    limit *= ILLUMINATION.max()
    travel = Travel(dwell_s=0.01, speed_px_s=500.0) if travels else None
    chooser = selector(area, seed, limit, travel=travel)
    batches, points = run(chooser, smooth_weights(chooser, seed), n_batches=8, n_points=40)
    assert (points >= area.origin).all()
    assert (points < (area.bottom, area.right)).all()
    dose = np.zeros((area.shape[0] + N_PIXELS, area.shape[1] + N_PIXELS))
    for top, left in points - area.origin:
        dose[top : top + N_PIXELS, left : left + N_PIXELS] += ILLUMINATION
    assert dose.max() <= limit * (1 + 1e-12)
    assert chooser.dose.peak == pytest.approx(dose.max(), rel=1e-5)
    assert len(batches[-1]) <= 40


@thorough
@given(fields, seeds)
def test_refined_ground_has_no_hole_when_the_batch_had_room(area, seed):
    chooser = selector(area, seed, spacing_px=3.0)
    weights = smooth_weights(chooser, seed)
    middle = np.unravel_index(weights.argmax(), weights.shape)
    start = chooser.lattice.centres[middle[0], middle[1]]
    group = start + np.argwhere(np.ones((3, 3))) * 4 - 4
    chooser.measured(np.clip(group, area.origin, (area.bottom - 1, area.right - 1)))
    assert chooser.holes(weights).any()
    batches, _ = run(chooser, weights, n_batches=6)
    assert batches[0].n_closure > 0
    for batch in batches:
        if batch.n_closure < len(batch):
            assert batch.n_holes == 0


@thorough
@given(fields, seeds, st.booleans())
def test_the_same_seed_gives_the_same_points_to_the_last_bit(area, seed, travels):
    digests = set()
    for _ in range(2):
        travel = Travel(dwell_s=0.01, speed_px_s=500.0) if travels else None
        chooser = selector(area, seed, limit=4 * ILLUMINATION.max(), travel=travel)
        _, points = run(chooser, smooth_weights(chooser, seed))
        digests.add(hashlib.sha256(points.tobytes() + chooser.lattice.distance.tobytes()).hexdigest())
    assert len(digests) == 1


def test_density_follows_the_square_root_of_importance():
    chooser = selector(Bounds(0, 0, 240, 240), spacing_px=3.0)
    left = chooser.lattice.centres[..., 1] < 120
    weights = np.where(left, 1, 1 / 16).astype(np.float32)
    _, points = run(chooser, weights, n_batches=8, n_points=50)
    n_left = (points[:, 1] < 120).sum()
    assert 3.2 < n_left / (len(points) - n_left) < 4.8


def test_what_is_asked_for_comes_first_if_dose_and_area_allow_it():
    chooser = selector(Bounds(0, 0, 100, 100))
    weights = np.ones(chooser.lattice.distance.shape, np.float32)
    run(chooser, weights)
    batch = chooser.select(5, weights, first=[(7, 9), (500, 3)])
    assert batch.first == ((7, 9),)
    assert [7, 9] in batch.centres.tolist()
    assert len(batch) == 5


def test_nothing_is_chosen_where_the_weight_is_zero():
    chooser = selector(Bounds(0, 0, 100, 100))
    allowed = chooser.lattice.centres[..., 0] < 40
    _, points = run(chooser, allowed.astype(np.float32), n_batches=30)
    assert points[:, 0].max() < 40
    assert len(np.unique(points, axis=0)) == len(points) == allowed.sum()


def test_distances_end_where_nothing_is_farther_and_are_right_below():
    near, far = (Lattice(Bounds(0, 0, 90, 120), 4.0, np.random.default_rng(0), end) for end in (30.0, np.inf))
    for lattice in (near, far):
        chooser = Selector(lattice, DoseMap(lattice.area, ILLUMINATION), DIAMETER_PX)
        chooser.measured(np.random.default_rng(6).integers(0, 90, (3, 2)))
    assert far.distance.max() > 30
    np.testing.assert_array_equal(near.distance, np.minimum(far.distance, 30))


def test_points_measured_elsewhere_count():
    chooser = selector(Bounds(0, 0, 100, 100))
    chooser.measured(np.argwhere(np.ones((50, 25))) * 2)
    batch = chooser.select(10, np.ones(chooser.lattice.distance.shape, np.float32))
    assert batch.centres[:, 1].min() > 55


def test_a_trial_leaves_dose_and_distances_as_they_were():
    chooser = selector(Bounds(0, 0, 100, 100), limit=3 * ILLUMINATION.max())
    weights = np.ones(chooser.lattice.distance.shape, np.float32)
    run(chooser, weights)
    before = chooser.dose.photons, chooser.lattice.distance.copy()
    chooser.select(50, weights)
    np.testing.assert_array_equal(chooser.dose.photons, before[0])
    np.testing.assert_array_equal(chooser.lattice.distance, before[1])


def test_what_was_exposed_before_a_trial_stays_when_the_trial_had_to_read_the_map():
    dose = DoseMap(Bounds(0, 0, 40, 40), np.ones((4, 4)), limit=2.5)
    dose.add((20, 20))
    with dose.trial():
        dose.add((20, 20))
        assert not dose.fits((20, 20))
        assert dose.fits((5, 5))
    assert dose.peak == 1
    assert dose.fits((20, 20))
    assert dose.photons.sum() == 16


def test_an_exposure_at_the_edge_or_outside_is_counted_where_it_touches():
    dose = DoseMap(Bounds(0, 0, 30, 30), np.ones((4, 4)), limit=2.0)
    for centre in ((0, 0), (29, 29), (-2, 5), (31, 29), (-50, 0), (90, 90)):
        dose.add(centre)
    assert dose.photons.sum() == 16 + 16 + 8 + 8
    assert not dose.fits((30, 0))
    assert dose.fits((29, 29)) is False
    assert dose.fits((15, 15)) is True


def test_frames_become_refinable_when_their_group_is_large_enough():
    graph = OverlapGraph(reach_px=2.0, n_least=4)
    for centre in ((0, 0), (0, 2), (9, 9), (0, 6), (0, 8)):
        assert graph.add(centre) == []
    joined = graph.add((0, 4))  # joins the two pairs
    assert sorted(joined) == [(0, 0), (0, 2), (0, 4), (0, 6), (0, 8)]
    assert graph.add((1, 4)) == [(1, 4)]
    assert graph.last == (1, 4)


@thorough
@given(
    st.lists(st.tuples(st.integers(-40, 40), st.integers(-40, 40)), min_size=1, max_size=80),
    st.floats(1.0, 9.0),
    st.integers(2, 6),
)
def test_the_groups_are_those_of_the_definition(centres, reach_px, n_least):
    graph, announced = OverlapGraph(reach_px, n_least), []
    for centre in centres:
        announced += graph.add(centre)
    pairs = cKDTree(centres).query_pairs(reach_px, output_type="ndarray")
    links = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(centres),) * 2)
    group = connected_components(links, directed=False)[1]
    refinable = np.bincount(group)[group] >= n_least
    expected = [centre for centre, is_refinable in zip(centres, refinable, strict=True) if is_refinable]
    assert sorted(announced) == sorted(expected)  # each once


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), max_size=60))
def test_a_route_visits_every_point_once(points):
    centres = np.array(points, np.int64).reshape(-1, 2)
    assert sorted(snake_route(centres, 20.0, (0, 0)).tolist()) == list(range(len(points)))


def test_a_route_is_much_shorter_than_the_order_of_choice():
    centres = np.random.default_rng(0).integers(0, 400, (128, 2))
    route = snake_route(centres, 30.0, start=(399, 399))
    assert length(centres[route]) < 0.3 * length(centres)
    ends = np.hypot(*(centres[route][[0, -1]] - 399).T)
    assert ends[0] <= ends[1]


def length(points):
    return np.hypot(*np.diff(points, axis=0).T).sum()


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), max_size=MOST_TO_EXCHANGE + 10),
    st.none() | st.tuples(st.integers(0, 200), st.integers(0, 200)),
)
def test_a_short_route_visits_every_point_once_and_is_no_longer_than_the_strips(points, start):
    centres = np.array(points, np.int64).reshape(-1, 2)
    route, strips = short_route(centres, 20.0, start), snake_route(centres, 20.0, start)
    assert sorted(route.tolist()) == list(range(len(points)))
    begin = centres[:0] if start is None else np.array([start])
    assert length(np.concatenate([begin, centres[route]])) <= length(
        np.concatenate([begin, centres[strips]])
    ) * (1 + 1e-6)


def test_no_part_of_a_short_route_is_shorter_the_other_way_round():
    centres = np.random.default_rng(1).integers(0, 300, (24, 2))
    way = np.concatenate([[(0, 0)], centres[short_route(centres, 20.0, (0, 0))]])
    for i in range(1, len(way)):
        for j in range(i + 1, len(way) + 1):
            turned = np.concatenate([way[:i], way[i:j][::-1], way[j:]])
            assert length(turned) >= length(way) - 0.1


def test_a_slow_stage_stays_where_it_is_and_a_fast_one_goes_where_the_gain_is():
    near = {}
    for speed_px_s in (10.0, 1e7):
        chooser = selector(
            Bounds(0, 0, 60, 400), travel=Travel(dwell_s=0.01, speed_px_s=speed_px_s), spacing_px=3.0
        )
        weights = np.where(chooser.lattice.centres[..., 1] < 200, 0.5, 1.0).astype(np.float32)
        chooser.measured(np.argwhere(np.ones((4, 21)))[::-1] * 20)  # evenly, and ends in the left corner
        near[speed_px_s] = (chooser.select(8, weights).centres[:, 1] < 200).sum()
    assert near[10.0] == 8
    assert near[1e7] <= 4


def test_a_stage_far_outside_finds_the_way_in():
    chooser = selector(Bounds(0, 0, 60, 60), travel=Travel(dwell_s=0.001, speed_px_s=10.0))
    chooser.measured(np.array([[-4000, 900]]))
    batch = chooser.select(5, np.ones(chooser.lattice.distance.shape, np.float32))
    assert len(batch) == 5


@settings(max_examples=8, deadline=None)
@given(fields, seeds)
def test_a_scan_that_minds_the_way_is_shorter_and_still_closes_every_hole(area, seed):
    ways = []
    for travel in (None, Travel(dwell_s=0.001, speed_px_s=1000.0)):
        chooser = selector(area, seed, spacing_px=3.0, travel=travel)
        weights = smooth_weights(chooser, seed)
        batches, points = run(chooser, weights, n_batches=6)
        ways.append(length(points))
        for batch in batches:
            assert batch.n_holes == 0 or batch.n_closure == len(batch)
        assert len(np.unique(points, axis=0)) == len(points)
    assert ways[1] < 1.05 * ways[0]


def test_candidates_need_room_between_them():
    with pytest.raises(ValueError, match="at least 2 pixels"):
        Lattice(Bounds(0, 0, 10, 10), 1.0, np.random.default_rng(0))
    with pytest.raises(ValueError, match="limit above zero"):
        DoseMap(Bounds(0, 0, 10, 10), ILLUMINATION, limit=0)


def test_relevance_is_the_threshold_of_holes():
    chooser = selector(Bounds(0, 0, 60, 60))
    chooser.is_near_refined[...] = True
    weights = np.full(chooser.lattice.distance.shape, RELEVANT, np.float32)
    assert chooser.holes(weights).all()
    assert not chooser.holes(weights * 0.99).any()
