import itertools
from collections import Counter

import numpy as np

from operators.engine.visits import VisitOrder


def visits(order, n_batches, size):
    return [order.next_batch(size).tolist() for _ in range(n_batches)]


def test_without_frames_there_is_nothing_to_visit():
    assert VisitOrder(0).next_batch(8).size == 0


def test_a_batch_never_holds_a_frame_twice():
    order = VisitOrder(0)
    for first in range(0, 60, 6):
        order.add(list(range(first, first + 6)))
        for batch in visits(order, 3, 8):
            assert len(set(batch)) == len(batch) > 0


def test_every_sweep_visits_each_frame_exactly_once():
    order = VisitOrder(1)
    order.add(list(range(20)))
    order.mark_seen(np.ones(20, int))
    sweep = itertools.chain.from_iterable(visits(order, 3, 8))
    assert sorted(sweep) == list(range(20))


def test_new_frames_get_half_of_each_batch_and_all_of_it_while_nothing_else_is_there():
    order = VisitOrder(0)
    order.add(list(range(16)))
    assert len(order.next_batch(16)) == 16
    order.add(list(range(16, 48)))
    for batch in visits(order, 4, 16):
        assert sum(slot >= 16 for slot in batch) >= 8


def test_old_frames_do_not_starve_while_new_ones_keep_coming():
    order, counts = VisitOrder(0), Counter()
    order.add(list(range(32)))
    visits(order, 4, 8)
    for n in range(100):
        order.add([32 + 4 * n + k for k in range(4)])
        counts.update(order.next_batch(8).tolist())
    assert min(counts[slot] for slot in range(32)) >= 1


def test_new_frames_are_taken_in_the_order_in_which_they_came():
    order = VisitOrder(0)
    order.add([3, 1, 2])
    order.add([7])
    assert order.next_batch(8).tolist() == [3, 1, 2, 7]


def test_the_order_depends_on_the_seed_alone():
    batches = []
    for seed in (5, 5, 6):
        order = VisitOrder(seed)
        order.add(list(range(40)))
        batches.append(visits(order, 20, 8))
    assert batches[0] == batches[1] != batches[2]


def test_frames_marked_as_seen_are_swept_and_not_new():
    order = VisitOrder(0)
    order.add(list(range(8)))
    order.mark_seen(np.ones(8, int))
    order.add([8])
    batch = order.next_batch(8)
    assert 8 in batch
    assert np.unique(batch).size == 8


def test_a_batch_of_one_frame_comes_to_all_of_them():
    order = VisitOrder(0)
    order.add([0, 1, 2])
    assert {slot for [slot] in visits(order, 3, 1)} == {0, 1, 2}
    assert order.n_unseen == 0
    assert {slot for [slot] in visits(order, 4, 1)} == {0, 1, 2}
