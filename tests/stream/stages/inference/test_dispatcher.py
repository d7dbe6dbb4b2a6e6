"""Frames that several workers of inference lease: each is stored and marked once, whatever they do."""

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from stream.record.account import account
from stream.record.handover import has_left
from stream.record.probe import publish_probe
from stream.record.scan import Scan, State
from stream.stages.config import NetworkConfig
from stream.stages.inference.dispatcher import Dispatcher
from stream.stages.inference.leased import _Worker
from stream.stages.inference.leases import FIRST_S, worker_name
from stream.stages.inputs import Optics
from stream.stages.loop import WorkerLoop, _Door
from stream.stages.stage import DoorKeeper, Worker
from stream.wire.codec import encode
from stream.wire.handshake import Connection
from stream.wire.lease_messages import DECODER, AskLease, Inferred, Lease
from stream.wire.messages import Reject, Welcome
from stream.wire.sockets import Endpoint
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.inference_bench import InferenceBench
from tests.helpers.stream.leasing import PATCH_PX, Exchange, FakeConnection, HandWorker
from tests.helpers.stream.scans import DETECTOR_PLANE, Sample, close, make_scan, record, states

MOST_TURNS = 2000
DOOR = Endpoint(address="ipc://unused", bind=True)


class Desk:
    """A dispatcher, its loop and its workers, turned by hand."""

    def __init__(self, scans, optics, batch_size=4, door=DOOR):
        self.scans, self.optics, self.door, self.clock = scans, optics, door, Clock()
        self.config = NetworkConfig(batch_size=batch_size)
        self.start()

    def start(self):
        """Start the dispatcher, or start it anew: what it knew is gone."""
        self.dispatcher = dispatcher = Dispatcher(self.config, self.optics, self.door, "run", self.clock)
        assert isinstance(dispatcher, Worker)
        assert isinstance(dispatcher, DoorKeeper)
        self.loop = WorkerLoop(dispatcher, self.scans, self.clock)
        if hasattr(self, "exchange"):
            self.exchange.dispatcher = dispatcher
        else:
            self.exchange = Exchange(dispatcher)

    def turn(self, n=4):
        for _ in range(n):
            self.loop.turn()
            self.exchange.turn()

    def worker(self, number, **settings):
        worker = HandWorker(self.exchange, number, **settings).join()
        self.turn()
        return worker


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path / "scans", Sample().optics(tmp_path))


@pytest.fixture
def scan(desk):
    return make_scan(desk.scans)


def arrive(desk, scan, *numbers):
    record(scan, np.array(numbers))
    desk.turn()
    desk.clock.now += 0.03  # no batch waits longer to fill
    desk.turn()


def stored(scan, *numbers):
    return scan.column("patches").read(np.array(numbers)).real[:, 3, 5].tolist()


def test_each_frame_is_given_once_stored_by_its_number_and_says_who_made_it(desk, scan):
    desk.turn()
    first, second = desk.worker(1), desk.worker(2)
    arrive(desk, scan, *range(8))
    assert [first.listen(), second.listen()] == [[[0, 1, 2, 3]], [[4, 5, 6, 7]]]
    for worker in (second, first):
        worker.answer()
        desk.turn()
    scan = Scan(scan.folder)
    assert (states(scan, "inference") == State.DONE).all()
    assert stored(scan, *range(8)) == list(range(8))
    assert scan.column("worker").head(8).tolist() == [1] * 4 + [2] * 4
    assert scan.column("model").head(8).tolist() == [7] * 8
    assert (scan.column("inferred_s").head(8) == desk.clock.now).all()


def test_a_worker_has_its_next_lease_before_it_has_answered_the_one_in_hand(desk, scan):
    desk.turn()
    worker = desk.worker(1)
    arrive(desk, scan, *range(12))
    assert worker.listen() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    worker.answer()
    assert worker.listen() == [[4, 5, 6, 7], [8, 9, 10, 11]], "without another question"


def test_frames_of_a_worker_that_falls_silent_go_to_another_and_its_late_answer_changes_nothing(
    desk, scan, caplog
):
    desk.turn()
    silent, other = desk.worker(1), desk.worker(2)
    arrive(desk, scan, *range(8))
    other.answer()
    close(scan, "subscriber")
    desk.clock.now += FIRST_S + 0.1
    desk.turn()
    assert "inference-1 does not answer: its 4 frames go to others" in caplog.text
    assert other.answer() == [0, 1, 2, 3]
    desk.turn()
    assert scan.count("inference", "closed") == 1, "and nobody waits for the silent one"
    silent.answer(value=99)
    desk.turn()
    assert stored(Scan(scan.folder), 0, 1) == [0, 1]


def test_of_two_answers_for_one_frame_the_first_is_stored(desk, scan):
    desk.turn()
    slow, other = desk.worker(1), desk.worker(2)
    arrive(desk, scan, *range(8))
    other.answer()
    desk.clock.now += FIRST_S + 0.1
    desk.turn()
    assert other.listen() == [[0, 1, 2, 3]]
    slow.answer(value=50)
    desk.turn()
    other.answer(value=60)
    desk.turn()
    assert stored(scan, *range(4)) == [50] * 4
    assert scan.column("worker").head(4).tolist() == [1] * 4
    assert desk.loop.progress()[1] == {"inferred": 8}


def test_what_a_killed_worker_had_is_given_out_as_soon_as_it_is_back(desk, scan):
    desk.turn()
    desk.worker(1)
    arrive(desk, scan, *range(4))
    again = desk.worker(1)  # another process of that name
    assert again.answer() == [0, 1, 2, 3]
    desk.turn()
    assert (states(scan, "inference") == State.DONE).all()


def test_a_dispatcher_that_is_started_anew_goes_on_and_gives_nothing_twice_that_is_done(desk, scan):
    desk.turn()
    worker = desk.worker(1)
    arrive(desk, scan, *range(8))
    assert worker.answer() == [0, 1, 2, 3]
    desk.turn()
    desk.start()
    desk.turn()
    worker.answer(value=99)  # of a lease that it knows nothing of
    worker.listen()
    assert isinstance(worker.heard[-1], Reject), "so it has to greet again"
    worker = desk.worker(1)
    assert worker.answer() == [4, 5, 6, 7]
    desk.turn()
    assert stored(scan, *range(8)) == list(range(8))


def test_the_scan_is_over_when_the_last_lease_is_answered(desk, scan):
    desk.turn()
    worker = desk.worker(1)
    arrive(desk, scan, *range(5))
    close(scan, "subscriber")
    desk.turn(20)
    assert not scan.count("inference", "closed")
    assert desk.loop.turn() > 0, "it waits for them asleep"
    worker.answer()
    worker.answer()
    desk.turn()
    assert scan.count("inference", "closed") == 1
    assert account(scan, "inference").is_complete
    worker.ask()
    assert worker.scan == "", "there is nothing to get ready for"


def test_a_frame_that_is_not_finite_is_bad(desk, scan):
    desk.turn()
    worker = desk.worker(1)
    arrive(desk, scan, *range(4))
    worker.answer(good=np.array([1, 0, 1, 1], np.uint8))
    desk.turn()
    assert states(scan, "inference").tolist() == [State.DONE, State.BAD, State.DONE, State.DONE]


def test_no_frame_is_given_before_there_is_a_probe_and_then_all_are(tmp_path):
    desk = Desk(tmp_path, Optics(DETECTOR_PLANE))
    scan = make_scan(tmp_path)
    desk.turn()
    worker = desk.worker(1)
    arrive(desk, scan, *range(4))
    assert worker.listen() == []
    publish_probe(scan, Sample().probe)
    close(scan, "subscriber", "probe")
    desk.turn()
    worker.answer()
    desk.turn()
    assert scan.count("inference", "closed") == 1
    assert account(scan, "inference").is_complete


def test_without_a_probe_the_scan_ends_unfinished(tmp_path):
    desk = Desk(tmp_path, Optics(DETECTOR_PLANE))
    scan = make_scan(tmp_path)
    desk.turn()
    desk.worker(1)
    arrive(desk, scan, *range(4))
    close(scan, "subscriber", "probe")
    desk.turn()
    assert (states(scan, "inference") == State.UNFINISHED).all()


def test_what_is_leased_when_a_scan_is_handed_over_is_left_to_the_finisher(desk, scan):
    desk.turn()
    worker = desk.worker(1)
    arrive(desk, scan, *range(8))
    close(scan, "subscriber")
    desk.turn()
    following = make_scan(desk.scans, "0001-next")
    desk.turn()
    desk.clock.now += 2.0
    desk.turn()
    assert has_left(scan, "inference")
    assert not scan.count("inference", "closed")
    worker.ask()
    worker.ask()
    assert worker.scan == following.name
    worker.answer(value=99)
    desk.turn()
    assert (states(scan, "inference") == State.PENDING).all(), "one writer: the finisher from now on"


def wrong_answers(worker, numbers):
    right = worker.arrays(numbers)
    yield from (list(right.values())[:n] for n in range(5))
    yield list((right | {"patches": right["patches"][:2]}).values())
    yield list((right | {"patches": right["patches"][:, :, :-1]}).values())
    yield list((right | {"patches": right["sigma"]}).values())
    yield list((right | {"models": right["models"][:1]}).values())
    yield list((right | {"numbers": numbers[None]}).values())
    smaller = {name: right[name][:, 1:, 1:] for name in ("patches", "sigma")}
    yield list((right | smaller).values())


def test_an_answer_that_is_no_answer_is_refused_and_the_lease_stands(desk, scan):
    desk.turn()
    worker = desk.worker(1)
    arrive(desk, scan, *range(4))
    for arrays in wrong_answers(worker, np.arange(4)):
        worker.connection.say(Inferred(scan=scan.name), arrays)
        worker.listen()
        assert isinstance(worker.heard[-1], Reject), [array.shape for array in arrays]
    for others in ({"numbers": np.arange(1, 5)}, {"numbers": np.arange(-4, 0)}):  # nobody gave it these
        worker.connection.say(Inferred(scan=scan.name), list((worker.arrays(np.arange(4)) | others).values()))
    worker.connection.say(Inferred(scan="0009-other"), list(worker.arrays(np.arange(4)).values()))
    desk.turn()
    assert (states(scan, "inference") == State.PENDING).all()
    worker.answer()
    desk.turn()
    assert (states(scan, "inference") == State.DONE).all()


def test_strangers_get_nothing(desk, scan):
    desk.turn()
    arrive(desk, scan, *range(4))
    stranger = FakeConnection(desk.exchange, "stitcher")
    stranger.open()
    assert isinstance(stranger.hear()[0], Reject)
    desk.exchange.send(b"?", encode(AskLease(scan=scan.name, n_leases=1, patch_px=PATCH_PX)))
    desk.exchange.send(b"?", [b"\xc1"])
    desk.turn()
    assert not any(b"Lease" in parts[0][:20] for parts in desk.exchange.box(b"?"))
    desk.worker(1)
    with_others = HandWorker(desk.exchange, 2, patch_px=PATCH_PX + 2).join()
    assert isinstance(with_others.heard[-1], Reject), "its patches do not fit the columns"


def test_many_leases_at_once_reach_a_worker_through_its_socket(run_folder):
    door = Endpoint(address=f"ipc://{run_folder}/door", bind=True)
    desk = Desk(run_folder / "scans", Sample().optics(run_folder), door=door)
    record(scan := make_scan(desk.scans), np.arange(80))
    served, found = _Door(desk.dispatcher), []
    worker = Connection(replace(door, bind=False), "inference-1", decoder=DECODER)
    with closing(served.socket), closing(worker):
        worker.open()
        for _ in range(MOST_TURNS):
            desk.loop.turn()
            served.serve()
            match worker.hear(0.01):
                case Welcome(), _:
                    worker.say(AskLease(scan=scan.name, n_leases=64, patch_px=PATCH_PX))
                case Lease(), [numbers]:
                    found += numbers.tolist()
            if len(found) == 80:
                break
    assert sorted(found) == list(range(80))


def seconds_for(desk, scan, speeds, n_frames):
    """Return how long workers that take so many seconds for a batch need for all frames."""
    workers = [desk.worker(number) for number in range(1, len(speeds) + 1)]
    arrive(desk, scan, *range(n_frames))
    close(scan, "subscriber")
    began, free_at = desk.clock.now, [desk.clock.now] * len(workers)
    busy = [False] * len(workers)
    while not scan.count("inference", "closed"):
        for i, worker in enumerate(workers):
            if busy[i] and desk.clock.now >= free_at[i]:
                worker.answer()
                busy[i] = False
            if not busy[i] and worker.listen():
                busy[i], free_at[i] = True, desk.clock.now + speeds[i]
        desk.turn(2)
        desk.clock.now += 0.005
    return desk.clock.now - began


@pytest.mark.parametrize(
    ("speeds", "bare"), [([0.1], 5.0), ([0.1, 0.1], 2.5), ([0.1, 1.0], 50 / 11), ([0.1, 1e9], 5.0)]
)
def test_a_slow_worker_costs_its_share_and_a_dead_one_a_lease(desk, scan, speeds, bare):
    """Fifty batches of 0.1 s; what workers can do together, and at most two leases of the slow one."""
    desk.turn()
    took_s = seconds_for(desk, scan, speeds, 200)
    assert took_s > 0.99 * bare
    assert took_s < 1.1 * bare + {1.0: 2.0, 1e9: FIRST_S}.get(speeds[-1], 0.0)
    assert account(scan, "inference").is_complete


def test_two_workers_make_what_one_process_makes_to_the_last_bit(tmp_path):
    bench = InferenceBench(tmp_path)
    expected = bench.run(tmp_path / "one")
    desk = Desk(tmp_path / "two", bench.optics, batch_size=8)
    scan, n = make_scan(desk.scans), len(bench.scanned)
    workers = [
        _Worker(
            bench.stage(),
            FakeConnection(desk.exchange, worker_name(number)),
            lambda name: Scan(desk.scans / name),
            desk.clock,
        )
        for number in (1, 2)
    ]
    record(scan, np.arange(n), bench.frames)
    close(scan, "subscriber")
    while not scan.count("inference", "closed"):
        desk.turn(1)
        for worker in workers:
            worker.turn()
        desk.clock.now += 0.05
    scan = Scan(scan.folder)
    for column in ("patches", "sigma", "model"):
        assert (scan.column(column).head(n) == expected.column(column).head(n)).all()
    assert set(scan.column("worker").head(n).tolist()) == {1, 2}
    assert sum(worker.state("").text.startswith("waiting") for worker in workers) == 0
    for worker in workers:
        worker.turn()
        worker.turn()
        assert worker.progress() == ("", {}), "and lets go of the scan"
