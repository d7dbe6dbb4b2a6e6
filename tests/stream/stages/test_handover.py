"""When a stage leaves a scan to the finisher, and when it closes the scan itself."""

import numpy as np
import pytest

from stream.record.account import Accounts, incompleteness
from stream.record.handover import awaits_finishing, hand_over, has_left
from stream.record.scan import State
from stream.stages.cursor import BACKLOG_S, ScanCursor
from stream.stages.loop import WorkerLoop
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.scans import close, make_scan, place, record
from tests.helpers.stream.workers import Steps


class Refining(Steps):
    """Refinement that never has enough of a scan."""

    name = "refinement"
    waits_for = ()

    def __init__(self):
        super().__init__()
        self.slices_left = 10**6


class Afterwards(Steps):
    name = "recorder"
    inputs = ("stitcher",)
    begins_last = True


@pytest.fixture
def clock():
    return Clock()


def scanned(scans, name, n=4, **header):
    scan = make_scan(scans, name, **header)
    record(scan, np.arange(n))
    place(scan, np.arange(n), np.zeros((n, 2)))
    return scan


def show(scan, n=4):
    scan.mark("stitcher", np.arange(n), State.DONE)


def turns(loop, n=12):
    for _ in range(n):
        loop.turn()


def test_a_lone_scan_is_closed_by_the_stage_itself_however_long_that_takes(tmp_path, clock):
    stage, scan = Refining(), scanned(tmp_path, "0000-a")
    loop = WorkerLoop(stage, tmp_path, clock)
    show(scan)
    close(scan, "subscriber", "positions")
    turns(loop)
    assert stage.calls == ["open 0000-a"]
    stage.slices_left = 0
    turns(loop)
    assert stage.calls == ["open 0000-a", "close 0000-a"]
    assert not awaits_finishing(scan)


def test_a_scan_is_handed_over_when_the_next_has_begun_and_its_last_frame_is_shown(tmp_path, clock):
    stage, first = Refining(), scanned(tmp_path, "0000-a")
    loop = WorkerLoop(stage, tmp_path, clock)
    turns(loop)
    second = scanned(tmp_path, "0001-b")
    turns(loop)
    assert stage.calls == ["open 0000-a"], "more frames may come"
    close(first, "subscriber", "positions")
    turns(loop)
    assert stage.calls == ["open 0000-a"], "its last frame is not in the image"
    show(first)
    assert Accounts(first).is_shown
    turns(loop)
    assert stage.calls == ["open 0000-a", "hand over 0000-a", "open 0001-b"]
    assert awaits_finishing(first)
    assert has_left(first, "refinement")
    assert not first.count("refinement", "closed")
    assert "not finished yet" in incompleteness(first)
    assert loop.scan.name == second.name


class Network(Steps):
    name, inputs, waits_for = "inference", ("subscriber",), ()


def test_frames_that_the_network_has_not_come_to_make_way_for_the_next_scan_after_a_second(tmp_path, clock):
    network, refining, first = Network(), Refining(), scanned(tmp_path, "0000-a", n=200)
    refining.inputs = ("subscriber", "positions", "inference")
    loops = [WorkerLoop(stage, tmp_path, clock) for stage in (network, refining)]
    close(first, "subscriber", "positions")
    clock.now += 60
    turns(loops[0])
    scanned(tmp_path, "0001-b")
    turns(loops[0])
    assert network.calls == ["open 0000-a"], "it may be a few frames"
    clock.now += BACKLOG_S
    turns(loops[0])
    assert network.calls == ["open 0000-a", "hand over 0000-a", "open 0001-b"]
    assert np.count_nonzero(first.states("inference") == State.DONE) == 2 * 12 * 4, (
        "a batch in each turn before"
    )

    turns(loops[1], 200)
    assert refining.calls == ["open 0000-a", "hand over 0000-a", "open 0001-b"], (
        "with the frames that were done"
    )
    for name in ("inference", "refinement"):
        stage = network if name == "inference" else refining
        stage.slices_left = 0
        cursor = ScanCursor(stage, first, clock)
        while cursor.turn() is not None:
            pass
        cursor.leave()
    assert (first.states("refinement") == State.DONE).all(), "the finisher has come to the others"


def test_a_stage_that_starts_again_does_not_come_back_to_what_was_handed_over(tmp_path, clock):
    first = scanned(tmp_path, "0000-a")
    hand_over(first, "refinement")
    scanned(tmp_path, "0001-b")
    stage = Refining()
    turns(WorkerLoop(stage, tmp_path, clock))
    assert stage.calls == ["open 0001-b"]


@pytest.mark.parametrize(("config_hash", "takes_it_up"), [("as it was", True), ("another", False)])
def test_the_last_scan_of_an_earlier_run_is_taken_up_where_the_run_is_configured_alike(
    tmp_path, clock, config_hash, takes_it_up
):
    header = {"run_id": "earlier", "config_hash": "as it was", "stages": ("refinement",)}
    left, last = (scanned(tmp_path, name, **header) for name in ("0000-a", "0001-b"))
    stage = Refining()
    loop = WorkerLoop(stage, tmp_path, clock, run_id="now", config_hash=config_hash)
    turns(loop)
    assert stage.calls == ["open 0001-b"] * takes_it_up
    own = scanned(tmp_path, "0002-c", run_id="now", config_hash=config_hash)
    for scan in (left, last):
        close(scan, "subscriber", "positions")
        show(scan)
    turns(loop)
    assert stage.calls[-1] == "open 0002-c"
    assert [awaits_finishing(scan) for scan in (left, last, own)] == [True, True, False]


def test_a_stage_that_an_earlier_run_did_not_have_has_no_part_in_its_scans(tmp_path, clock):
    left = scanned(tmp_path, "0000-a", run_id="earlier", stages=("refinement", "stitcher"))
    network, refining = Network(), Refining()
    for stage in (network, refining):
        turns(WorkerLoop(stage, tmp_path, clock, run_id="now", config_hash="another"))
        assert stage.calls == []
    assert not has_left(left, "inference")
    assert has_left(left, "refinement")


@pytest.mark.parametrize(
    ("had", "open_after"),
    [(("stitcher", "refinement"), "refinement"), (("stitcher", "inference"), "inference")],
)
def test_results_of_an_earlier_run_wait_for_the_stages_that_it_had(tmp_path, clock, had, open_after):
    class Recording(Afterwards):
        waits_for = ("inference", "refinement")

    stage, scan = Recording(), scanned(tmp_path, "0000-a", run_id="earlier", stages=had)
    loop = WorkerLoop(stage, tmp_path, clock, run_id="now")
    close(scan, "stitcher")
    turns(loop)
    assert stage.calls == []
    close(scan, open_after)
    turns(loop)
    assert stage.calls == ["open 0000-a", "close 0000-a"]


def test_a_stage_behind_one_that_handed_over_closes_the_scan_with_what_it_got(tmp_path, clock):
    class Learning(Steps):
        name, inputs, waits_for = "finetune", ("refinement",), ()

    stage, first = Learning(), scanned(tmp_path, "0000-a")
    loop = WorkerLoop(stage, tmp_path, clock)
    first.mark("refinement", [0, 1], State.DONE)
    scanned(tmp_path, "0001-b")
    hand_over(first, "refinement")
    turns(loop)
    assert stage.batches == [[0, 1]]
    assert stage.calls == ["open 0000-a", "close 0000-a", "open 0001-b"]


def test_who_finishes_a_scan_closes_it_and_does_not_hand_it_over_again(tmp_path, clock):
    stage, first = Refining(), scanned(tmp_path, "0000-a")
    scanned(tmp_path, "0001-b")
    show(first)
    close(first, "subscriber", "positions")
    hand_over(first, "refinement")
    cursor = ScanCursor(stage, first, clock)
    for _ in range(10):
        assert cursor.turn() is not None
    stage.slices_left = 0
    assert cursor.turn() is None
    cursor.leave()
    assert stage.calls == ["open 0000-a", "close 0000-a"]
    assert stage.given() == [0, 1, 2, 3]
    assert not awaits_finishing(first)


def test_results_are_made_of_the_scans_that_are_over_in_whatever_order_that_is(tmp_path, clock):
    stage = Afterwards()
    loop = WorkerLoop(stage, tmp_path, clock)
    scans = [scanned(tmp_path, name) for name in ("0000-a", "0001-b", "0002-c")]
    turns(loop)
    assert stage.calls == [], "nothing is over"
    for scan in (scans[1], scans[0]):
        show(scan)
        close(scan, "stitcher")
        hand_over(scan, "refinement")
        turns(loop)
        assert stage.calls == [] or scan.name not in stage.calls[-1], "refinement has only left it"
        close(scan, "refinement")
        turns(loop)
        assert stage.calls[-2:] == [f"open {scan.name}", f"close {scan.name}"]
    show(scans[2])
    close(scans[2], "stitcher", "refinement")
    loop.finish()
    assert stage.calls[-1] == "close 0002-c", "also when it is asked to end just then"
