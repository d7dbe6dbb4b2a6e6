import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.record.account import (
    Accounts,
    Delay,
    account,
    frame_counts,
    frames_in_words,
    incompleteness,
    percentiles_ms,
    shares,
    shares_in_words,
    time_to_image_s,
)
from stream.record.scan import State
from tests.helpers.stream.scans import close, lose, make_scan, place, record

LEDGERS = st.lists(st.tuples(st.sampled_from(State), st.sampled_from(State)), max_size=60)


@settings(max_examples=60, deadline=None)
@given(LEDGERS, st.integers(-1, 80))
def test_every_frame_is_somewhere_at_all_times(ledgers, announced):
    with tempfile.TemporaryDirectory() as folder:
        scan = make_scan(Path(folder))
        counters = scan.counters("subscriber", writable=True)
        counters["announced"], counters["head"] = announced, len(ledgers)
        for number, (recorded, done) in enumerate(ledgers):
            scan.mark("subscriber", number, recorded)
            scan.mark("inference", number, done)
        for stage in ("subscriber", "inference", "refinement"):
            it = account(scan, stage)
            assert it.expected == max(len(ledgers), announced)
            assert it.recorded + it.lost + it.awaited == it.expected
            assert it.done + it.pending + sum(it.dropped.values()) == it.recorded
            assert it.is_complete == (it.done == it.expected)
            assert min(it.recorded, it.lost, it.awaited, it.done, it.pending) >= 0


def test_an_account_names_the_reasons(tmp_path):
    scan = make_scan(tmp_path)
    record(scan, [0, 1, 2, 3])
    lose(scan, [5])
    scan.mark("inference", [0, 5], State.DONE)
    scan.mark("inference", [1, 2], State.UNFINISHED)
    it = account(scan, "inference")
    assert (it.expected, it.recorded, it.lost, it.awaited) == (6, 4, 1, 1)
    assert (it.done, it.pending, it.dropped) == (1, 1, {"unfinished": 2})
    assert not it.is_complete


def test_a_complete_scan_is_complete(tmp_path):
    scan = make_scan(tmp_path)
    record(scan, np.arange(5))
    scan.mark("stitcher", np.arange(5), State.DONE)
    close(scan, "subscriber")
    assert account(scan, "stitcher").is_complete


def timed_scan(folder, exposed_s, received_s, published_s):
    scan = make_scan(folder)
    numbers = np.arange(len(received_s))
    record(scan, numbers)
    scan.column("exposed_s", writable=True).write(numbers, exposed_s)
    scan.column("received_s", writable=True).write(numbers, received_s)
    scan.column("mosaicked_s", writable=True).write(numbers, published_s)
    return scan


EXPOSED_S = np.arange(20) * 0.01


@pytest.mark.parametrize("offset_s", [0.0, 3600.0, -1e6])
def test_time_to_image_does_not_see_the_offset_of_two_clocks(tmp_path, offset_s):
    received_s = 5e6 + EXPOSED_S + 0.002
    scan = timed_scan(tmp_path, EXPOSED_S + offset_s, received_s, received_s + 0.03)
    np.testing.assert_allclose(time_to_image_s(scan), 0.03, atol=1e-6)


def test_time_to_image_sees_time_spent_in_a_queue_before_this_machine(tmp_path):
    queued_s = np.where(np.arange(20) >= 15, 0.5, 0.0)
    received_s = 5e3 + EXPOSED_S + queued_s
    scan = timed_scan(tmp_path, EXPOSED_S, received_s, received_s + 0.03)
    np.testing.assert_allclose(time_to_image_s(scan), 0.03 + queued_s, atol=1e-9)


def test_frames_without_an_image_have_no_time_to_it(tmp_path):
    received_s = 5e3 + EXPOSED_S
    scan = timed_scan(tmp_path, EXPOSED_S, received_s, np.where(np.arange(20) < 7, received_s + 0.1, 0.0))
    np.testing.assert_allclose(time_to_image_s(scan), [0.1] * 7)
    assert time_to_image_s(make_scan(tmp_path, "0001-empty")).shape == (0,)
    assert percentiles_ms(time_to_image_s(make_scan(tmp_path, "0002-empty"))) is None


def test_while_frames_come_the_fastest_of_all_before_is_the_zero_of_their_way(tmp_path):
    received_s = 5e3 + EXPOSED_S + np.where(np.arange(20) < 10, 0.0, 0.2)
    delay = Delay(timed_scan(tmp_path, EXPOSED_S, received_s, received_s + 0.03))
    first, second = np.split(np.arange(20), 2)
    np.testing.assert_allclose(delay.seconds(first), 0.03, atol=1e-9)
    np.testing.assert_allclose(delay.seconds(second), 0.23, atol=1e-9)


def test_missing_frames_are_named_as_a_few_ranges(tmp_path):
    scan = make_scan(tmp_path)
    lose(scan, np.arange(533, 625))
    record(scan, np.arange(533))
    place(scan, np.arange(533), np.zeros((533, 2)))
    assert incompleteness(scan) == "lost 92 frames (533-624)"
    assert frames_in_words(np.array([7])) == "1 frame (7)"
    assert frames_in_words(np.array([0, 1, 2, 9, 40, 41, 60, 70, 80])) == (
        "9 frames (0-2, 9, 40-41, 60 and 2 more)"
    )
    odd = make_scan(tmp_path, "0001-odd")
    lose(odd, np.arange(1, 5000, 2))
    assert len(incompleteness(odd)) < 200


def test_stages_that_are_not_in_the_run_are_not_counted(tmp_path):
    scan = make_scan(tmp_path)
    record(scan, [0])
    place(scan, [0], [[0, 0]])
    assert incompleteness(scan) == ""
    counts = frame_counts(scan)
    assert counts == {"expected": 1, "recorded": 1, "lost": 0, "no_position": 0, "settling": 0, "pending": 1}


def test_pending_is_on_the_way_into_the_image_until_it_is_given_up(tmp_path):
    scan = make_scan(tmp_path)
    record(scan, np.arange(6))
    place(scan, np.arange(5), np.zeros((5, 2)))
    scan.mark("positions", [5], State.NO_POSITION)
    scan.mark("refinement", [0], State.DONE)
    scan.mark("stitcher", [0, 1], State.DONE)
    scan.mark("stitcher", [2], State.BAD)
    counts = frame_counts(scan)
    assert shares(counts) == {
        "in the image": 2,
        "pending": counts["pending"],
        "left out": 1,
        "without position": 1,
        "settling": 0,
        "lost": 0,
        "to come": 0,
    }
    assert counts["pending"] == 2, "that one of those in the image is not refined yet does not count"


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"expected": 625, "recorded": 625, "lost": 0, "mosaicked": 625}, "625 expected: 625 in the image"),
        (
            {"expected": 625, "recorded": 533, "lost": 12, "no_position": 4, "mosaicked": 500},
            "625 expected: 500 in the image, 29 pending, 4 without position, 12 lost, 80 to come",
        ),
        (
            {"expected": 625, "recorded": 533, "lost": 12, "no_position": 4, "mosaicked": 500, "pending": 20},
            "625 expected: 500 in the image, 20 pending, 9 left out, 4 without position, 12 lost, 80 to come",
        ),
        ({"expected": 0, "recorded": 0, "lost": 0}, "0 expected: 0 in the image"),
        ({"expected": 7, "recorded": 5, "lost": 2, "mosaicked": 6}, "8 expected: 6 in the image, 2 lost"),
    ],
)
def test_the_frames_expected_are_told_by_where_they_are_and_add_up(counts, words):
    assert shares_in_words(counts) == words
    total, _, parts = words.partition(" expected: ")
    assert (
        int(total) == sum(int(part.split()[0]) for part in parts.split(", ")) == sum(shares(counts).values())
    )


def test_frames_that_newer_ones_were_taken_before_are_deferred_until_they_are_done(tmp_path):
    scan = make_scan(tmp_path)
    accounts = Accounts(scan)
    record(scan, np.arange(8))
    place(scan, np.arange(8), np.zeros((8, 2)))
    scan.mark("stitcher", [0], State.DONE)
    scan.mark("inference", [0, 1], State.DONE)
    counts = accounts.frame_counts()
    assert (counts["pending"], counts["deferred"]) == (7, 0), "what is in its turn is not deferred"
    scan.mark("inference", [6], State.DONE)
    scan.mark("inference", [4], State.BAD)
    assert accounts.frame_counts()["deferred"] == 3
    assert "7 pending (3 deferred)" in shares_in_words(accounts.frame_counts())
    scan.mark("inference", [2, 3, 5, 7], State.DONE)
    assert accounts.frame_counts()["deferred"] == frame_counts(scan)["deferred"] == 0
