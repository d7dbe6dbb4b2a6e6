import numpy as np
import pytest

from stream.stages.inference.leases import FIRST_S, LEASE_S, PATIENCE, Leases, worker_name, worker_number

A, B = worker_name(1), worker_name(2)


def frames(*numbers):
    return np.array(numbers, np.int64)


def leases_of(*workers, n_most=2):
    leases = Leases()
    for worker in workers:
        leases.welcome(worker, n_most, 0)
    return leases


def learnt(leases, worker, took_s):
    """Have a worker answer so often that it is known how long it takes."""
    for number in range(30):
        leases.give(worker, frames(number), 0.0)
        assert leases.settle(worker, frames(number), took_s)


def listed(late):
    return [(worker, numbers.tolist()) for worker, numbers in late]


def test_a_worker_gets_as_many_leases_as_it_asked_for_and_another_after_each_answer():
    leases = leases_of(A)
    leases.give(A, frames(0, 1), 0.0)
    assert leases.next() == A
    leases.give(A, frames(2, 3), 0.0)
    assert leases.next() is None
    assert leases.settle(A, frames(0, 1), 0.1)
    assert leases.next() == A


@pytest.mark.parametrize(("took_s", "patience_s"), [(None, FIRST_S), (0.01, LEASE_S), (2.0, 2.0 * PATIENCE)])
def test_a_lease_runs_out_when_it_takes_much_longer_than_usual_and_its_frames_are_returned_once(
    took_s, patience_s
):
    leases = leases_of(A)
    if took_s is not None:
        learnt(leases, A, took_s)
    leases.give(A, frames(40, 41), 100.0)
    leases.give(A, frames(38, 39), 100.0)
    assert leases.run_out(100.0 + 0.99 * patience_s) == []
    assert listed(leases.run_out(100.0 + 1.01 * patience_s)) == [(A, [38, 39, 40, 41])]
    assert leases.run_out(1e6) == []
    assert leases.gone(A).size == 0, "they are with others already"


def test_the_second_lease_of_a_worker_begins_with_the_answer_to_the_first():
    leases = leases_of(A)
    leases.give(A, frames(0), 0.0)
    leases.give(A, frames(1), 0.0)
    assert leases.settle(A, frames(0), 4.0)
    assert leases.run_out(4.0 + PATIENCE * 4.0 - 0.1) == []


def test_who_does_not_answer_gets_nothing_more_until_it_has_answered_what_it_has():
    leases = leases_of(A)
    for number in (0, 1):
        leases.give(A, frames(number), 0.0)
    assert leases.run_out(FIRST_S + 1)
    assert leases.settle(A, frames(0), 60.0), "late, and nobody may have been faster"
    assert leases.next() is None
    assert leases.settle(A, frames(1), 60.1)
    assert leases.next() == A


def test_who_has_run_out_and_says_that_it_has_nothing_is_as_new():
    leases = leases_of(A)
    leases.give(A, frames(0), 0.0)
    leases.welcome(A, 2, 0)
    assert leases.run_out(FIRST_S + 1), "it may have been on its way"
    leases.welcome(A, 2, 1)
    assert leases.next() is None
    leases.welcome(A, 2, 0)
    assert leases.next() == A
    assert leases.gone(A).size == 0


def test_a_lease_that_a_worker_has_passed_over_is_given_again_at_once():
    leases = leases_of(A, n_most=3)
    for number in (0, 1, 2):
        leases.give(A, frames(number), 0.0)
    assert leases.settle(A, frames(1), 0.1)
    assert listed(leases.run_out(0.1)) == [(A, [0])]
    assert leases.run_out(0.1) == []
    assert not leases.settle(A, frames(0), 0.2)
    assert leases.settle(A, frames(2), 0.2)


def test_an_hour_of_silence_is_not_what_a_worker_usually_takes():
    leases = leases_of(A)
    learnt(leases, A, 0.01)
    leases.give(A, frames(50), 100.0)
    assert leases.run_out(3700.0)
    assert leases.settle(A, frames(50), 3700.0)
    leases.give(A, frames(51), 3700.0)
    assert leases.run_out(3700.0 + 6 * LEASE_S)


def test_only_a_lease_as_it_was_given_is_answered_and_only_once():
    leases = leases_of(A, B)
    leases.give(A, frames(0, 1), 0.0)
    assert not leases.settle(A, frames(0), 0.1)
    assert not leases.settle(B, frames(0, 1), 0.1)
    assert not leases.settle("inference-9", frames(0, 1), 0.1)
    assert leases.settle(A, frames(0, 1), 0.1)
    assert not leases.settle(A, frames(0, 1), 0.1)


def test_what_a_worker_had_that_was_started_anew_comes_back_at_once():
    leases = leases_of(A, B)
    leases.give(A, frames(4, 5), 0.0)
    leases.give(A, frames(2, 3), 0.0)
    assert leases.gone(A).tolist() == [2, 3, 4, 5]
    assert leases.gone(A).size == 0
    assert leases.next() == B


def test_the_worker_whose_answer_comes_first_is_next():
    leases = leases_of(A, B, n_most=3)
    learnt(leases, A, 1.0)
    learnt(leases, B, 0.4)
    given = []
    while (worker := leases.next()) is not None:
        leases.give(worker, frames(len(given)), 0.0)
        given.append(worker)
    assert given == [B, B, A, B, A, A]


def test_workers_are_numbered_by_their_names():
    assert [worker_number(worker_name(number)) for number in (1, 10, 255)] == [1, 10, 255]
    for name in ("inference", "inference-0", "inference-256", "inference-1x", "stitcher-1", ""):
        assert worker_number(name) == 0
