import numpy as np

from launch.page.metrics.backlogs import LEAST, SPAN_S, Backlogs

RATE_HZ = 1000


def growing_after(seconds, waiting_at, done_at):
    """What grows after so many seconds of one look a second at a stage."""
    backlogs = Backlogs()
    for now in np.arange(0.0, seconds + 0.5):
        backlogs.add(now, {"inference": int(done_at(now))}, {"inference": int(waiting_at(now))})
    return backlogs.growing()


def overloaded(capacity, seconds):
    """A stage that does this share of what comes."""
    served = RATE_HZ * capacity
    return growing_after(seconds, lambda now: (RATE_HZ - served) * now, lambda now: served * now)


def test_a_stage_that_does_three_quarters_of_what_comes_is_named_within_twenty_seconds():
    assert overloaded(0.75, SPAN_S / 2) == {}, "nothing can be said yet"
    assert overloaded(0.75, 2 * SPAN_S) == {
        "inference": "5000 frames waiting, 7500 of 10000 done in 10 s",
    }


def test_a_stage_that_falls_behind_by_less_than_a_tenth_is_not():
    assert overloaded(0.95, 60) == {}
    assert overloaded(0.85, 60) != {}


def test_a_stage_that_works_in_gulps_does_not_fall_behind():
    def waiting(now):
        return RATE_HZ * (now % 7)

    assert growing_after(60, waiting, lambda now: RATE_HZ * now - waiting(now)) == {}


def test_a_few_frames_that_wait_for_their_batch_are_no_backlog():
    assert growing_after(60, lambda now: min(now, LEAST - 1), lambda now: 0) == {}


def test_a_backlog_that_shrinks_is_none_that_grows():
    assert growing_after(30, lambda now: 9000 - 100 * now, lambda now: 500 * now) == {}


def test_a_stage_whose_backlog_has_stopped_growing_is_named_no_more():
    def waiting(now):
        return 250 * min(now, 30)

    assert growing_after(30, waiting, lambda now: 750 * now)
    assert growing_after(55, waiting, lambda now: 750 * now) == {}


def test_nothing_grows_before_the_first_look():
    assert Backlogs().growing() == {}
