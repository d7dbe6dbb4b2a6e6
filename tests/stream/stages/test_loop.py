import numpy as np
import pytest

from stream.record.account import incompleteness
from stream.record.scan import Scan, State
from stream.stages.cursor import POLL_S
from stream.stages.loop import WorkerLoop
from stream.stages.stage import Worker
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.scans import close, lose, make_scan, place, raise_head, record, states
from tests.helpers.stream.workers import Steps


@pytest.fixture
def clock():
    return Clock()


def loop_of(stage, tmp_path, clock):
    assert isinstance(stage, Worker)
    return WorkerLoop(stage, tmp_path, clock)


def arrive(scan, numbers):
    record(scan, numbers)
    place(scan, numbers, np.zeros((np.size(numbers), 2)))


def end(scan, *others):
    close(scan, "subscriber", "positions", *others)


def turns(loop, n=20):
    for _ in range(n):
        loop.turn()


def test_a_full_batch_is_worked_on_at_once(tmp_path, clock):
    stage, scan = Steps(), make_scan(tmp_path)
    loop = loop_of(stage, tmp_path, clock)
    arrive(scan, np.arange(4))
    assert loop.turn() == 0.0
    assert stage.batches == [[0, 1, 2, 3]]


def test_a_batch_that_does_not_fill_waits_for_its_deadline_and_no_longer(tmp_path, clock):
    stage, scan = Steps(), make_scan(tmp_path)
    loop = loop_of(stage, tmp_path, clock)
    arrive(scan, [0])
    assert loop.turn() == pytest.approx(POLL_S)
    clock.now += 0.09
    arrive(scan, [1])
    assert loop.turn() == pytest.approx(0.01), "the wait ends with the deadline"
    assert stage.batches == []
    clock.now += 0.011
    loop.turn()
    assert stage.batches == [[0, 1]]


def test_a_series_that_pauses_for_an_hour_goes_on_where_it_was(tmp_path, clock):
    stage, scan = Steps(), make_scan(tmp_path)
    loop = loop_of(stage, tmp_path, clock)
    arrive(scan, np.arange(3))
    for now in (1.0, 3600.0):
        clock.now = now
        turns(loop)
    arrive(scan, np.arange(3, 7))
    turns(loop)
    assert stage.batches == [[0, 1, 2], [3, 4, 5, 6]]
    assert stage.calls == [f"open {scan.name}"], "and was neither closed nor opened again"


def test_the_last_frames_are_worked_on_although_they_fill_no_batch(tmp_path, clock):
    stage, scan = Steps(), make_scan(tmp_path)
    loop = loop_of(stage, tmp_path, clock)
    arrive(scan, np.arange(6))
    end(scan)
    turns(loop, 2)
    assert stage.batches == [[0, 1, 2, 3], [4, 5]]


def test_who_is_behind_by_more_than_two_batches_says_what_goes_first(tmp_path, clock):
    stage, scan = Steps(), make_scan(tmp_path)
    stage.first_of = lambda ready, n_most: ready[-n_most:]
    loop = loop_of(stage, tmp_path, clock)
    arrive(scan, np.arange(9))
    turns(loop, 2)
    assert stage.batches == [[5, 6, 7, 8], [0, 1, 2, 3]], "then it is behind no more"
    end(scan, "refinement")
    turns(loop)
    assert stage.given() == list(range(9))


def test_who_does_not_say_gets_the_order_of_the_scan_also_when_behind(tmp_path, clock):
    stage, scan = Steps(), make_scan(tmp_path)
    loop = loop_of(stage, tmp_path, clock)
    arrive(scan, np.arange(11))
    turns(loop, 2)
    assert stage.batches == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_frame_is_given_once_even_if_it_is_marked_much_later(tmp_path, clock):
    stage, scan = Steps(holds=True), make_scan(tmp_path)
    loop = loop_of(stage, tmp_path, clock)
    arrive(scan, np.arange(4))
    turns(loop)
    arrive(scan, np.arange(4, 8))
    turns(loop)
    assert stage.batches == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_frame_waits_until_all_its_inputs_are_there(tmp_path, clock):
    stage, scan = Steps(), make_scan(tmp_path)
    loop = loop_of(stage, tmp_path, clock)
    place(scan, np.arange(8), np.zeros((8, 2)))
    record(scan, [1, 2, 3, 6])
    turns(loop)
    assert stage.batches == [[1, 2, 3, 6]]


def test_a_frame_that_an_input_could_not_do_inherits_the_reason(tmp_path, clock):
    stage, scan = Steps(), make_scan(tmp_path)
    loop = loop_of(stage, tmp_path, clock)
    arrive(scan, [0, 1, 2, 3])
    record(scan, [4])
    scan.mark("positions", [4], State.NO_POSITION)
    lose(scan, [5])
    lose(scan, [6], State.BAD)
    turns(loop)
    expected = [State.DONE] * 4 + [State.NO_POSITION, State.LOST, State.BAD]
    assert states(scan, "stitcher").tolist() == expected


def test_a_restart_does_again_only_what_is_pending(tmp_path, clock):
    scan = make_scan(tmp_path)
    arrive(scan, np.arange(8))
    first = Steps()
    loop_of(first, tmp_path, clock).turn()
    assert first.batches == [[0, 1, 2, 3]]
    second = Steps()
    turns(loop_of(second, tmp_path, clock))
    assert second.batches == [[4, 5, 6, 7]]
    assert (states(scan, "stitcher") == State.DONE).all()


def test_a_restart_does_again_what_was_taken_and_not_marked(tmp_path, clock):
    scan = make_scan(tmp_path)
    arrive(scan, np.arange(4))
    turns(loop_of(Steps(holds=True), tmp_path, clock))
    second = Steps()
    turns(loop_of(second, tmp_path, clock))
    assert second.batches == [[0, 1, 2, 3]]


def test_a_scan_is_closed_after_its_inputs_its_work_and_those_it_waits_for(tmp_path, clock):
    stage, scan = Steps(), make_scan(tmp_path)
    loop = loop_of(stage, tmp_path, clock)
    arrive(scan, np.arange(5))
    is_closed = lambda: bool(Scan(scan.folder).count("stitcher", "closed"))  # noqa: E731
    turns(loop)
    close(scan, "subscriber")
    turns(loop)
    assert not is_closed(), "positions may still come"
    close(scan, "positions")
    stage.slices_left = 30
    turns(loop, 25)
    assert not is_closed(), "refinement may still publish"
    close(scan, "refinement")
    turns(loop, 3)
    assert not is_closed(), "the stage itself is still busy"
    turns(loop, 10)
    assert is_closed()
    assert stage.calls == ["open 0000-series", "close 0000-series"]


def test_frames_between_looking_and_the_end_are_not_missed(tmp_path, clock):
    """The tail is recognised before frames are looked for, never after."""
    stage, scan = Steps(), make_scan(tmp_path)
    loop = loop_of(stage, tmp_path, clock)
    arrive(scan, [0])
    loop.turn()
    record(scan, [1])  # there is a position to look for
    look = loop.scan.states

    def and_then_the_scan_ends(name, numbers=None):
        found = look(name, numbers)
        if name == Steps.inputs[-1]:  # the last that it looks at
            loop.scan.states = look
            arrive(scan, [1, 2])
            end(scan, "refinement")
        return found

    loop.scan.states = and_then_the_scan_ends
    loop.turn()
    turns(loop)
    assert stage.given() == [0, 1, 2]
    assert (states(scan, "stitcher") == State.DONE).all()


def test_what_is_left_when_the_stage_is_stopped_is_marked_so(tmp_path, clock):
    stage, scan = Steps(holds=True), make_scan(tmp_path)
    loop = loop_of(stage, tmp_path, clock)
    arrive(scan, np.arange(4))
    record(scan, [4])
    lose(scan, [5])
    turns(loop)
    scan.mark("stitcher", [0, 1], State.DONE)
    loop.finish()
    expected = [State.DONE, State.DONE, *[State.UNFINISHED] * 3, State.LOST]
    assert states(scan, "stitcher").tolist() == expected
    assert Scan(scan.folder).count("stitcher", "closed") == 1
    loop.finish()
    assert stage.calls == ["open 0000-series", "close 0000-series"], "closed once"


def test_frames_that_arrive_while_the_stage_is_stopped_do_not_disturb_it(tmp_path, clock):
    stage, scan = Steps(), make_scan(tmp_path)
    loop = loop_of(stage, tmp_path, clock)
    arrive(scan, [0])
    loop.turn()
    look = loop.scan.states

    def and_one_more_comes(name):
        ledger = look(name)
        record(scan, [len(ledger)])
        return ledger

    loop.scan.states = and_one_more_comes
    loop.finish()
    assert states(scan, "stitcher")[0] == State.UNFINISHED


class Photons(Steps):
    """A stage that closes its scans itself."""

    name = "photons"


def test_scans_are_worked_on_one_after_the_other(tmp_path, clock):
    stage = Photons()
    loop = loop_of(stage, tmp_path, clock)
    assert loop.turn() == POLL_S, "nothing to do yet"
    names = ["0000-a", "0001-b", "0002-c"]
    for scan in [make_scan(tmp_path, name) for name in names]:
        arrive(scan, np.arange(3))
        end(scan, "refinement")
    turns(loop)
    assert stage.calls == [f"{what} {name}" for name in names for what in ("open", "close")]
    assert stage.batches == [[0, 1, 2]] * 3


def test_a_restart_skips_scans_that_are_closed(tmp_path, clock):
    for name in ("0000-a", "0001-b"):
        scan = make_scan(tmp_path, name)
        arrive(scan, np.arange(3))
        end(scan, "refinement")
    first = Photons()
    turns(loop_of(first, tmp_path, clock), 2)
    assert first.calls == ["open 0000-a", "close 0000-a"]
    second = Photons()
    turns(loop_of(second, tmp_path, clock))
    assert second.calls == ["open 0001-b", "close 0001-b"]


def test_a_series_without_frames_is_opened_and_closed(tmp_path, clock):
    stage, scan = Steps(), make_scan(tmp_path)
    loop = loop_of(stage, tmp_path, clock)
    end(scan, "refinement")
    turns(loop, 3)
    assert stage.calls == ["open 0000-series", "close 0000-series"]


def test_frames_known_only_by_the_announcement_are_marked_when_they_are_lost(tmp_path, clock):
    stage, scan = Steps(), make_scan(tmp_path)
    loop = loop_of(stage, tmp_path, clock)
    arrive(scan, [0, 1])
    turns(loop)
    raise_head(scan, 6)
    lose(scan, np.arange(2, 6))
    end(scan, "refinement")
    turns(loop)
    assert states(scan, "stitcher").tolist() == [State.DONE] * 2 + [State.LOST] * 4


@pytest.mark.allow_error_log
def test_frames_in_hand_of_which_nothing_can_come_are_bad_and_the_stage_lives(tmp_path, clock, caplog):
    stage, scan = Steps(holds=True), make_scan(tmp_path, "0000-flat")
    stage.gives_up = "no curvature of the probe explains the data"
    loop = loop_of(stage, tmp_path, clock)
    arrive(scan, np.arange(4))
    end(scan, "refinement")
    turns(loop)
    assert states(scan, "stitcher").tolist() == [State.BAD] * 4
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        f"stitcher cannot use the frames of 0000-flat: {stage.gives_up}"
    ]
    assert incompleteness(scan).endswith("stitcher could not use 4 frames (0-3)")


@pytest.mark.allow_error_log
def test_frames_that_need_more_memory_than_there_is_are_bad_and_the_stage_lives(tmp_path, clock, caplog):
    stage, scan = Steps(), make_scan(tmp_path, "0000-wide")
    loop = loop_of(stage, tmp_path, clock)
    arrive(scan, np.arange(4))
    turns(loop)
    stage.lacks = "Unable to allocate 62.7 PiB"
    arrive(scan, np.arange(4, 10))
    end(scan, "refinement")
    turns(loop)
    assert states(scan, "stitcher").tolist() == [State.DONE] * 4 + [State.BAD] * 6
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "stitcher cannot use the frames of 0000-wide: Unable to allocate 62.7 PiB; check positions.unit and "
        "positions.field_m"
    ]
    assert stage.calls == ["open 0000-wide", "close 0000-wide"]


def test_a_scan_that_a_stage_cannot_use_is_bad_and_the_next_is_worked_on(tmp_path, clock, caplog):
    stage = Steps(refuses="small")
    loop = loop_of(stage, tmp_path, clock)
    scans = [make_scan(tmp_path, name) for name in ("0000-small", "0001-good")]
    for scan in scans:
        arrive(scan, np.arange(6))
        end(scan, "refinement")
    turns(loop)
    assert [states(scan, "stitcher").tolist() for scan in scans] == [[State.BAD] * 6, [State.DONE] * 6]
    assert stage.calls == ["open 0001-good", "close 0001-good"]
    reason = "stitcher cannot use the frames of 0000-small: frames are smaller than patterns"
    assert caplog.messages == [reason], "said once"
    caplog.clear()
