import numpy as np
import pytest

from operators.steering.audit import (
    KEPT,
    MOST_PROMISES,
    N_BROKEN_BATCH,
    TILE_CELLS,
    WORTH_JUDGING,
    Audit,
    Promise,
)

SHAPE = (3 * TILE_CELLS + 1, 2 * TILE_CELLS)
BEFORE = np.ones(SHAPE, np.float32)
CORNER = np.zeros(SHAPE, bool)
CORNER[:TILE_CELLS, :TILE_CELLS] = True
EVERYWHERE = np.ones(SHAPE, bool)


def promise(n_frames=1, is_lit=EVERYWHERE, gain=0.5):
    predicted = np.where(is_lit, np.float32(gain), 0)
    return Promise(n_frames=n_frames, weights=BEFORE, before=BEFORE, predicted=predicted, is_lit=is_lit)


def settle(audit, brought, **options):
    """Settle one batch that brought this at each place."""
    audit.promise(promise(**options))
    audit.settle(1, BEFORE - brought)


def except_the_corner(gain, corner):
    return np.where(CORNER, np.float32(corner), np.float32(gain))


def test_a_place_is_abandoned_when_it_broke_its_promise_twice_and_no_other_is():
    audit = Audit(SHAPE)
    settle(audit, except_the_corner(0.5, 0.9 * KEPT * 0.5))
    assert not audit.is_abandoned.any()
    settle(audit, except_the_corner(0.5, -0.1))
    np.testing.assert_array_equal(audit.is_abandoned, CORNER)
    settle(audit, except_the_corner(0.5, 1.1 * KEPT * 0.5))
    assert not audit.is_abandoned.any()


def test_a_batch_says_nothing_of_places_it_has_no_point_in():
    audit = Audit(SHAPE)
    settle(audit, except_the_corner(0.5, 0))
    for _ in range(3):
        settle(audit, except_the_corner(0.5, 0), is_lit=~CORNER)
    assert not audit.is_abandoned.any()
    settle(audit, except_the_corner(0.5, 0))
    np.testing.assert_array_equal(audit.is_abandoned, CORNER)


def test_when_nothing_improves_the_predictions_are_to_blame_and_not_the_places():
    audit = Audit(SHAPE)
    for n_batches in range(1, N_BROKEN_BATCH + 1):
        assert not audit.is_distrusted
        settle(audit, except_the_corner(0.1, -1))
        assert audit.is_distrusted == (n_batches == N_BROKEN_BATCH)
    assert not audit.is_abandoned.any()
    settle(audit, 0.5)
    assert not audit.is_distrusted


def test_a_batch_is_judged_once_and_only_when_an_image_shows_it():
    audit = Audit(SHAPE)
    audit.promise(promise(n_frames=10))
    audit.settle(9, BEFORE - 0.25)
    assert audit.realised_gain == 0
    audit.settle(10, BEFORE - 0.25)
    assert audit.realised_gain == pytest.approx(0.25 * BEFORE.size)
    audit.settle(11, BEFORE)
    assert audit.realised_gain == pytest.approx(0.25 * BEFORE.size)


def test_what_came_true_is_of_the_same_batch_and_the_same_ground_as_what_was_predicted():
    audit = Audit(SHAPE)
    settle(audit, except_the_corner(0.125, 0.25), is_lit=CORNER, gain=0.5)
    assert audit.predicted_gain == pytest.approx(0.5 * CORNER.sum())
    assert audit.realised_gain == pytest.approx(0.25 * CORNER.sum())


def test_batches_that_no_image_ever_shows_are_forgotten():
    audit = Audit(SHAPE)
    for n_frames in range(MOST_PROMISES + 1):
        audit.promise(promise(n_frames=n_frames))
    audit.settle(0, BEFORE - 0.25)
    assert audit.realised_gain == 0


def test_an_empty_batch_breaks_no_promise():
    audit = Audit(SHAPE)
    for _ in range(2 * N_BROKEN_BATCH):
        settle(audit, -1.0, is_lit=~EVERYWHERE)
    assert not audit.is_distrusted
    assert not audit.is_abandoned.any()


def test_predictions_of_next_to_nothing_are_not_distrusted():
    audit = Audit(SHAPE)
    for _ in range(2 * N_BROKEN_BATCH):
        settle(audit, 0.0, gain=0.9 * WORTH_JUDGING)
    assert not audit.is_distrusted
