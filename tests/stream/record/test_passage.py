import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.record.account import Accounts, account
from stream.record.passage import Passage, ReadyFrames
from stream.record.scan import Scan, State
from tests.helpers.stream.scans import lose, make_scan, place, raise_head, record, states

STAGES = ("subscriber", "positions", "inference")
OWN = "stitcher"
EDGE = 4096  # frames of a segment of a ledger
NUMBERS = st.one_of(st.integers(0, 12), st.integers(EDGE - 3, EDGE + 3))
MARK = st.tuples(st.sampled_from(STAGES), st.lists(NUMBERS, max_size=8), st.sampled_from(list(State)[1:]))
STEPS = st.lists(
    st.one_of(MARK, st.tuples(st.just("take"), st.integers(0, 5)), st.just("restart")), max_size=25
)


def mark_first(scan, stage, numbers, state):
    """Mark those that have no byte yet, as every stage does, and say how long the scan is."""
    numbers = np.unique(np.array(numbers, np.int64))
    if numbers.size:
        scan.mark(stage, numbers[scan.ledger(stage, writable=True).read(numbers) == State.PENDING], state)
        if stage == "subscriber":
            raise_head(scan, int(numbers.max()) + 1)


def plainly(scan, inputs, own):
    """Return what is ready of the bytes `own`, and these with reasons passed on, from all ledgers at once."""
    is_ready, own = own == State.PENDING, own.copy()
    for stage in inputs:
        found = scan.states(stage)
        is_ended = is_ready & (found > State.DONE)
        own[is_ended] = found[is_ended]
        is_ready &= found == State.DONE
    return np.flatnonzero(is_ready), own


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_what_is_ready_is_what_a_look_at_all_ledgers_finds(steps):
    with tempfile.TemporaryDirectory() as folder:
        writer = make_scan(Path(folder))
        writer.ledger(OWN, writable=True)
        ready, given_out = ReadyFrames(Scan(writer.folder), OWN, STAGES), set()
        for step in steps:
            if step == "restart":
                scan = Scan(writer.folder)
                ready, given_out = ReadyFrames(scan, OWN, STAGES), set()
            elif step[0] == "take":
                batch = ready.numbers[::-1][: step[1]]
                ready.take(batch)
                given_out |= set(batch.tolist())
                writer.mark(OWN, batch[::2], State.DONE)  # the others later
            else:
                mark_first(writer, *step)
            expected, own = plainly(writer, STAGES, writer.states(OWN))
            before = ready.numbers
            new = ready.look()
            assert ready.numbers.tolist() == sorted(set(expected.tolist()) - given_out)
            assert set(new.tolist()) == set(ready.numbers.tolist()) - set(before.tolist())
            assert states(writer, OWN).tolist() == own.tolist()
            in_hand = [number for number in given_out if own[number] == State.PENDING]
            assert ready.in_hand().tolist() == sorted(in_hand)


@settings(max_examples=100, deadline=None)
@given(st.lists(MARK, max_size=20), st.integers(-1, 5000))
def test_running_accounts_are_those_of_a_first_look(steps, announced):
    with tempfile.TemporaryDirectory() as folder:
        writer = make_scan(Path(folder))
        writer.counters("subscriber", writable=True)["announced"] = announced
        running = Accounts(Scan(writer.folder))
        for step in steps:
            mark_first(writer, *step)
            for stage in (*STAGES, "refinement"):
                assert running.of(stage) == account(writer, stage)


def test_frames_leave_a_passage_once_in_whatever_order_they_get_through(tmp_path):
    scan = make_scan(tmp_path)
    passage = Passage(Scan(scan.folder), ("subscriber", "positions"))
    record(scan, [0, 1, 2, 4])
    place(scan, [4, 1], np.zeros((2, 2)))
    assert passage.look().tolist() == [1, 4]
    assert passage.pending().tolist() == [0, 2]
    place(scan, [0], np.zeros((1, 2)))
    lose(scan, [3])
    assert passage.look().tolist() == [0]
    assert [ended.numbers.tolist() for ended in passage.ended] == [[3], []]
    assert passage.look().tolist() == []
    assert passage.n_by_state()[State.DONE] == 3


def test_frames_before_a_series_was_joined_are_not_looked_at_until_it_is_over(tmp_path, monkeypatch):
    scan = make_scan(tmp_path)
    subscriber = scan.counters("subscriber", writable=True)
    ready, running, read = ReadyFrames(scan, OWN, STAGES[:1]), Accounts(scan), []
    scan.ledger(OWN, writable=True)
    ready.look()
    subscriber["joined"] = 4000
    record(scan, [4000, 4001])
    look = scan.states
    monkeypatch.setattr(
        scan, "states", lambda stage, numbers: (read.extend(numbers.tolist()), look(stage, numbers))[1]
    )
    assert ready.look().tolist() == [4000, 4001]
    assert min(read) == 4000
    ready.take(ready.numbers)
    assert ready.in_hand().tolist() == [4000, 4001]
    assert (running.of("positions").expected, running.of("positions").lost) == (4002, 4000)
    subscriber["joined"] = 3998  # frames that were overtaken
    record(scan, [3998])
    assert ready.look().tolist() == [3998]
    assert running.of("positions").lost == 3998
    subscriber["joined"] = 0  # its start message was late
    record(scan, [7])
    assert ready.look().tolist() == [7]
    lose(scan, np.setdiff1d(np.arange(4002), [7, 3998, 4000, 4001]))
    subscriber["closed"] = 1
    assert ready.look().tolist() == []
    assert np.count_nonzero(states(scan, OWN) == State.LOST) == 3998, "with the reason, as all that is lost"
    assert running.of("positions").lost == 3998


def test_a_look_reads_what_is_new_and_what_is_open_and_nothing_else(tmp_path, monkeypatch):
    scan = make_scan(tmp_path)
    record(scan, np.arange(5000))
    place(scan, np.arange(1, 5000), np.zeros((4999, 2)))
    ready = ReadyFrames(scan, OWN, STAGES[:2])
    ready.look()
    record(scan, [5000, 5001])
    read, look = [], scan.states
    monkeypatch.setattr(
        scan, "states", lambda stage, numbers: (read.append(numbers.tolist()), look(stage, numbers))[1]
    )
    ready.look()
    assert read[:2] == [[5000, 5001], [0, 5000, 5001]]
    assert sum(map(len, read[2:])) == 0
