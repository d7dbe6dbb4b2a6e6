"""Refinement on another machine makes the object that it makes here, whatever the line and the workers do."""

import numpy as np
import pytest

from stream.record.scan import State
from stream.record.snapshot import read_snapshot
from stream.remote.messages import (
    DIALECT,
    AskFrames,
    AskScan,
    Fetch,
    Lend,
    Over,
    Refined,
    Refused,
    Taken,
    Tiles,
    Unusable,
    Wait,
)
from stream.remote.refinement.lender import Lender
from stream.remote.refinement.lent import STEADY_S
from stream.wire.codec import encode
from stream.wire.handshake import greeting
from stream.wire.messages import Reject
from tests.helpers.stream.refined_elsewhere import Bench, Scanned, assert_same_object
from tests.helpers.stream.scans import make_scan

N = 64  # frames


@pytest.fixture
def scanned(tmp_path):
    return Scanned(tmp_path / "run")


def whole(scanned):
    scanned.take(np.arange(N))
    scanned.end()
    return scanned


def refined_here(folder, **settings):
    return whole(Scanned(folder, **settings)).refine_here()


def is_complete(scanned):
    return (scanned.scan.states("refinement") == State.DONE).all()


@pytest.mark.parametrize("settings", [{}, {"refines_positions": True, "epochs": 5}])
def test_the_object_is_that_of_refinement_beside_the_detector(tmp_path, settings):
    here = refined_here(tmp_path / "here", **settings)
    bench = Bench(whole(Scanned(tmp_path / "run", **settings)))
    there = bench.worker()
    bench.until(lambda: bench.is_closed, there)
    scan = bench.scanned.scan
    assert_same_object(scan, here)
    assert is_complete(bench.scanned)
    assert not (scan.folder / "refined").exists()  # one file, as refinement leaves it
    if settings:
        moved, expected = (it.column("refined_px").head(N) for it in (scan, here))
        np.testing.assert_allclose(moved, expected, atol=1e-6)
    bench.until(lambda: not list((bench.scanned.folder / "w").glob("scan-*")), there)  # nothing stays


@pytest.mark.parametrize("seed", range(2))
def test_a_line_that_loses_every_third_message_changes_nothing(tmp_path, scanned, seed):
    bench, rng = Bench(whole(scanned)), np.random.default_rng(seed)
    there = bench.worker()
    bench.loses = lambda: rng.random() < 1 / 3
    bench.until(lambda: bench.is_closed, there)
    assert_same_object(scanned.scan, refined_here(tmp_path / "here"))


def test_each_frame_goes_over_the_line_once_and_packed(scanned):
    bench = Bench(whole(scanned))
    there = bench.worker()
    bench.until(lambda: bench.is_closed, there)
    beside = N * (16 * 16 * (8 + 2) + 16)  # patch, sigma and position
    assert beside < bench.n_bytes_of_values < beside + scanned.frames.nbytes


def test_frames_are_refined_while_they_come_and_the_next_worker_goes_on_where_one_has_vanished(scanned):
    bench = Bench(scanned)
    there = bench.worker("first")
    scanned.take(np.arange(32))
    bench.until(lambda: bench.n_refined == 32, there)
    n_updates = read_snapshot(scanned.scan.folder).n_updates
    scanned.take(np.arange(32, N))
    bench.clock.now += Lender.gone_s + 1  # nobody hears of it any more
    bench.turn()
    other = bench.worker("second")
    scanned.end()
    bench.until(lambda: bench.is_closed, other)
    assert is_complete(scanned)
    final = read_snapshot(scanned.scan.folder)
    assert final.n_updates > n_updates and final.epoch >= scanned.config.epochs
    lent = next(answer for answer in other.answered if isinstance(answer, Lend))
    assert lent.n_refined == 32 and {file.role for file in lent.files} == {"snapshot"}
    # The first one is back: what it has is not wanted any more.
    bench.says(greeting("refinement", DIALECT), client=there.client)
    bench.until(lambda: there.refiner._held is None, there)


def test_this_machine_takes_over_from_a_worker_that_has_vanished_and_lends_to_the_next_in_a_while(scanned):
    bench = Bench(scanned, goes_on_here=True)
    there = bench.worker()
    scanned.take(np.arange(32))
    bench.until(lambda: bench.n_refined == 32, there)
    assert bench.loop.progress()[1]["elsewhere"] == 1
    scanned.take(np.arange(32, N))
    bench.clock.now += Lender.gone_s + 1
    bench.until(lambda: bench.n_refined == N)
    assert bench.loop.progress()[1]["elsewhere"] == 0
    other = bench.worker("other")
    bench.turn(other)
    assert not any(isinstance(answer, Lend) for answer in other.answered)
    bench.clock.now += STEADY_S
    bench.says(greeting("refinement", DIALECT), client=other.client)
    bench.until(lambda: bench.loop.progress()[1].get("elsewhere"), other)
    scanned.end()
    bench.until(lambda: bench.is_closed, other)
    assert is_complete(scanned)


def test_without_a_worker_this_machine_refines_alone(tmp_path, scanned):
    bench = Bench(whole(scanned), goes_on_here=True)
    bench.until(lambda: bench.is_closed)
    assert is_complete(scanned) and read_snapshot(scanned.scan.folder).epoch >= scanned.config.epochs


def test_a_scan_waits_for_its_worker_and_is_left_to_the_finisher_when_the_next_one_has_begun(scanned):
    bench = Bench(whole(scanned))
    for _ in range(50):
        bench.turn()
    assert not bench.is_closed and not bench.n_refined
    scanned.scan.counters("inference", writable=True)["handed_over"] = 1
    make_scan(scanned.folder / "scans", "0001-next")
    bench.turn()
    assert scanned.scan.count("refinement", "handed_over")
    assert bench.loop.scan is None or bench.loop.scan.name == "0001-next"


def test_what_was_sent_last_stays_when_a_lent_scan_is_left_to_the_finisher(scanned):
    bench = Bench(scanned)
    there = bench.worker()
    scanned.take(np.arange(32))
    bench.until(lambda: bench.n_refined == 32, there)
    scanned.end()
    scanned.scan.counters("inference", writable=True)["handed_over"] = 1
    make_scan(scanned.folder / "scans", "0001-next")
    bench.until(lambda: scanned.scan.count("refinement", "handed_over"), there)
    assert read_snapshot(scanned.scan.folder).n_frames == 32
    bench.until(lambda: there.refiner._held is None, there)


def test_one_worker_has_the_scan_and_the_other_waits(scanned):
    bench = Bench(scanned)
    first, second = bench.worker("first"), bench.worker("second")
    scanned.take(np.arange(32))
    bench.until(lambda: bench.n_refined == 32, first, second)
    lent = [there for there in (first, second) if any(isinstance(it, Lend) for it in there.answered)]
    assert len(lent) == 1
    waits = second if lent == [first] else first
    assert any(isinstance(it, Wait) for it in waits.answered)


def test_the_runs_side_that_is_started_anew_goes_on_from_what_it_has_written(scanned):
    bench = Bench(scanned)
    there = bench.worker()
    scanned.take(np.arange(32))
    bench.until(lambda: bench.n_refined == 32, there)
    scanned.scan.close()
    bench.start()
    bench.says(greeting("refinement", DIALECT), client=there.client)
    scanned.take(np.arange(32, N))
    scanned.end()
    bench.until(lambda: bench.is_closed, there)
    assert is_complete(scanned) and any(isinstance(it, Over) for it in there.answered)


@pytest.mark.allow_error_log
def test_a_scan_of_which_a_worker_can_make_nothing_is_left_out_or_tried_here(tmp_path):
    for goes_on_here in (False, True):
        bench = Bench(whole(Scanned(tmp_path / str(goes_on_here))), goes_on_here=goes_on_here)
        bench.says(greeting("refinement", DIALECT))
        lent = lent_to(bench)
        assert isinstance(bench.says(Unusable(lease=lent.lease, reason="no light"))[0], Taken)
        # It asks for the next one meanwhile.
        bench.until(lambda bench=bench: bench.says(AskScan()) is None and bench.is_closed)
        states = bench.scanned.scan.states("refinement")
        assert set(states.tolist()) == {State.DONE if goes_on_here else State.BAD}


# What the run's side refuses.


def lent_to(bench):
    """Have the scan lent to a client that is no worker."""
    for _ in range(80):
        bench.turn()
        answer = bench.says(AskScan(question=3))
        if answer is not None and isinstance(answer[0], Lend):
            return answer[0]
    raise AssertionError("nothing is lent")


@pytest.fixture
def asked(scanned):
    """A bench whose scan a stranger has, the number of the lease, and a state that is a good one."""
    bench = Bench(scanned)
    scanned.take(np.arange(32))
    bench.says(greeting("refinement", DIALECT))
    return bench, lent_to(bench).lease


def state(lease, **changes):
    corners = Scanned.CORNERS[:32]
    top, left = (int(edge) for edge in corners.min(axis=0))
    bottom, right = (int(edge) + 16 for edge in corners.max(axis=0))
    own = {
        "lease": lease,
        "version": 1,
        "n_tiles": 1,
        "bounds": (top, left, bottom, right),
        "n_frames": 32,
        "n_updates": 32,
        "error": 0.1,
        "n_divergences": 0,
    }
    return Refined(**own | changes)


def buffers(**changes):
    own = {
        "probe": np.ones((1, 16, 16), "<c8"),
        "error_history": np.array([0.1]),
        "withheld": np.zeros((0, 2), np.int64),
        "numbers": np.arange(4),
        "visits": np.ones(4, "<u4"),
        "positions_px": np.zeros((0, 2)),
        "curve": np.array([[1.0, 0.1, 32.0, 0.5]]),
    }
    return list((own | changes).values())


def tile(**changes):
    own = {
        "index": np.zeros((1, 2), np.int64),
        "object": np.ones((1, 64, 64), "<c8"),
        "illumination": np.ones((1, 64, 64), "<f4"),
    }
    return list((own | changes).values())


NAN = np.full((1, 64, 64), np.nan, "<c8")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"index": np.full((1, 2), 2**40)}, "lie beyond its frames"),
        ({"index": np.zeros((1, 3), np.int64)}, "index of 0000-series came as"),
        ({"index": np.zeros((2, 2), np.int64)}, "came as 2 and 1"),
        ({"object": np.ones((1, 32, 32), "<c8")}, "object of 0000-series came as"),
        ({"object": np.ones((1, 64, 64), "<c16")}, "object of 0000-series came as"),
        ({"object": NAN}, "not finite"),
    ],
)
def test_tiles_that_cannot_be_some_are_refused(asked, changes, reason):
    bench, lease = asked
    answer, _ = bench.says(Tiles(question=5, lease=lease, version=1), tile(**changes))
    assert (type(answer), answer.question) == (Refused, 5) and reason in answer.reason


@pytest.mark.parametrize(
    ("changes", "of_buffers", "reason"),
    [
        ({"n_tiles": 2}, {}, "2 tiles were sent, 1 are here"),
        ({"bounds": (0, 0, 10**6, 10**6)}, {}, "its frames lie on"),
        ({"bounds": (5, 5, 5, 5)}, {}, "at least one pixel"),
        ({"n_frames": 33}, {}, "32 were given"),
        ({"is_last": True}, {}, "more frames will come"),
        ({}, {"probe": np.ones((1, 8, 8), "<c8")}, "probe of 0000-series came as"),
        ({}, {"probe": np.zeros((1, 16, 16), "<c8")}, "a power of 0"),
        ({}, {"probe": np.full((1, 16, 16), np.inf, "<c8")}, "a power of"),
        ({}, {"numbers": np.arange(4) + 40}, "that were not given"),
        ({}, {"numbers": np.arange(4) - 1}, "that were not given"),
        ({}, {"numbers": np.full(4, 2)}, "or twice"),
        ({}, {"visits": np.ones(5, "<u4")}, "visits of 0000-series came as"),
        ({}, {"positions_px": np.zeros((4, 2))}, "positions of 0000-series came as"),
        ({}, {"curve": np.full((1, 4), np.nan)}, "not finite"),
        ({}, {"withheld": np.full((1, 2), 10**6)}, "withheld tiles of 0000-series lie beyond"),
    ],
)
def test_a_state_that_cannot_be_one_is_refused_and_nothing_of_it_is_written(
    asked, changes, of_buffers, reason
):
    bench, lease = asked
    assert isinstance(bench.says(Tiles(lease=lease, version=1), tile())[0], Taken)
    answer, _ = bench.says(state(lease, **changes), buffers(**of_buffers))
    assert isinstance(answer, Refused) and reason in answer.reason
    bench.turn()
    assert read_snapshot(bench.scanned.scan.folder) is None and not bench.n_refined
    assert isinstance(bench.says(state(lease), buffers())[0], Taken)
    bench.turn()
    assert bench.n_refined == 4


def test_a_state_counts_once_and_of_a_lease_that_is_over_not_at_all(asked):
    bench, lease = asked
    bench.says(Tiles(lease=lease, version=1), tile())
    for number in (lease, lease, lease + 1, 0):
        bench.says(state(number), buffers())
        bench.turn()
    assert bench.scanned.scan.count("refinement", "version") == 1
    assert isinstance(bench.says(state(lease + 1), buffers())[0], Over)
    bench.says(greeting("refinement", DIALECT), client=b"other")
    assert isinstance(bench.says(state(lease, version=2), buffers(), client=b"other")[0], Over)
    assert isinstance(
        bench.says(Fetch(scan="0000-series", column="frames"), [np.arange(2)], b"other")[0], Over
    )


def test_columns_of_other_scans_and_those_that_refinement_does_not_read_are_not_had(asked):
    bench, _ = asked
    for scan, column in (("../0000-series", "frames"), ("0000-series", "received_s")):
        assert isinstance(bench.says(Fetch(scan=scan, column=column), [np.arange(2)])[0], Refused)


def test_workers_of_another_stage_and_who_has_not_greeted_are_turned_away(asked):
    bench, lease = asked
    answer, _ = bench.says(greeting("inference", DIALECT), client=b"other")
    assert (
        isinstance(answer, Reject)
        and "workers of refinement are let in here, not of inference" in answer.reason
    )
    question = AskFrames(lease=lease, after=0, room=1)
    assert "greet first" in bench.says(question, client=b"stranger")[0].reason


def test_mutated_messages_are_refused_and_nothing_worse(asked):
    bench, lease = asked
    rng = np.random.default_rng(0)
    seeds = [
        encode(Fetch(question=1, scan="0000-series", column="frames"), [np.arange(4)]),
        encode(Tiles(question=1, lease=lease, version=1), tile()),
        encode(state(lease, question=1), buffers()),
        encode(AskFrames(question=1, lease=lease, after=3, room=8, counts={"updates": 3})),
        encode(greeting("refinement", DIALECT)),
    ]
    for _ in range(2000):
        parts = [bytearray(part) for part in seeds[rng.integers(len(seeds))]]
        for _ in range(rng.integers(1, 4)):
            part = parts[rng.integers(len(parts))]
            if len(part):
                part[rng.integers(len(part))] = rng.integers(256)
        bench.stage.exchange([[b"w", *map(bytes, parts)]])
        bench.loop.turn()
    assert bench.stage.lender.n_refused > 500
    snapshot = read_snapshot(bench.scanned.scan.folder)
    assert snapshot is None or snapshot.is_finite
