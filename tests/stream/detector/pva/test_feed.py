"""Frames of a PV, of a detector that nobody here wrote too, reach the scan; those that are lost are known."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from p4p import Value

from stream.detector import dialects
from stream.detector.config import DetectorConfig
from stream.detector.protocol import DetectorMessageError, EndMessage, ImageMessage
from stream.detector.pva import feed
from stream.detector.pva.acquisitions import Acquisitions
from stream.detector.pva.feed import MESSAGES_PER_CALL, PvaFeed
from stream.detector.pva.ntndarray import encode_array
from stream.detector.pva.sender import PvaSender
from stream.detector.simulator import Faults, Replay, ReplayConfig
from stream.record.scan import Scan, State, scans_in
from stream.stages.ingest.frame_writer import STAGE
from stream.stages.ingest.subscriber import Subscriber
from stream.wire.pva import Monitor, PvServer
from tests.helpers.stream.pva import NDARRAY, HeldPv, new_pv, own_network, post, served

PATIENCE_S = 30.0
NAME = "T:IMAGE"
STAMP_S = 1_780_000_000.0
N_FRAMES = 300
FRAMES = np.random.default_rng(0).poisson(3.0, (N_FRAMES, 24, 40)).astype("<u2")


@pytest.fixture(autouse=True)
def _has_a_network_of_its_own() -> Iterator[None]:
    with own_network():
        yield


def subscriber(scans: Path, **config: Any) -> Subscriber:
    settings = {"format": "pva", "pv": NAME, "silence_s": 1.0, "end_grace_s": 0.1} | config
    return Subscriber(DetectorConfig(**settings), scans)


def connected_subscriber(scans: Path, queue: int = 100) -> Subscriber:
    """One that has seen the PV empty."""
    monitor = Monitor(NAME, queue)
    own = PvaFeed(monitor, Acquisitions(NAME, silence_s=0.4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(dialects.FEEDS, "pva", lambda config: own)
        stage = subscriber(scans)
    work_until(stage, lambda: monitor.is_connected)
    return stage


def work_until(stage: Subscriber, is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        if not stage.fetch():
            time.sleep(0.005)
        stage.idle(time.monotonic())


def states(scan: Scan) -> list[int]:
    return scan.states(STAGE).tolist()


def closed(scans: Path) -> list[Scan]:
    return [scan for scan in scans_in(scans) if scan.count(STAGE, "closed")]


def file_of_frames(folder: Path, suffix: str) -> list[str]:
    """The arguments by which pvaPy's simulator sends them, from HDF5 as they are compressed there."""
    file = folder / f"frames{suffix}"
    if suffix == ".npy":
        np.save(file, FRAMES)
        return ["-if", str(file)]
    with h5py.File(file, "w") as out:
        chunks, bitshuffle = (1, *FRAMES.shape[1:]), hdf5plugin.Bitshuffle(cname="lz4")
        out.create_dataset("data", data=FRAMES, chunks=chunks, compression=bitshuffle)
    return ["-if", str(file), "-hds", "data", "-hcm"]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".npy", ".h5"])
def test_every_frame_of_pvapys_detector_is_recorded(tmp_path: Path, suffix: str) -> None:
    stage = subscriber(tmp_path / "scans")
    command = [
        *(Path(sys.executable).with_name("pvapy-ad-sim-server"), *file_of_frames(tmp_path, suffix)),
        *("-cn", NAME, "-fps", "500", "-nf", str(N_FRAMES), "-cs", str(N_FRAMES - 1)),
        *("-std", "1.5", "-shd", "0", "-rp", "0", "-rt", "20", "-dc"),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        work_until(stage, lambda: bool(closed(tmp_path / "scans")))
        assert server.wait(PATIENCE_S) == 0
    stage.close()
    (scan,) = scans_in(tmp_path / "scans")
    assert states(scan) == [State.DONE] * N_FRAMES
    assert np.array_equal(scan.column("frames").read(range(N_FRAMES)), FRAMES)


class Bench:
    """A feed of a PV in the hands of the test."""

    def __init__(self) -> None:
        self.now, self.pv = 0.0, HeldPv(NAME)
        self.feed = PvaFeed(self.pv, Acquisitions(NAME, silence_s=5.0), lambda: self.now)
        self.pv.post(Value(NDARRAY, {}))

    def post(self, number: int, **changes: Any) -> None:
        fields = encode_array(FRAMES[number], number, STAMP_S + number / 500)
        self.pv.post(Value(NDARRAY, fields | changes))

    def numbers(self) -> list[int]:
        return [said.image_id for said in self.feed.receive() if isinstance(said, ImageMessage)]


def test_an_update_that_is_no_frame_costs_itself() -> None:
    bench = Bench()
    bench.post(1)
    bench.post(2, dimension=[{"size": 3}])
    bench.post(3)
    assert bench.numbers() == [0]
    with pytest.raises(DetectorMessageError, match="wanted two axes"):
        bench.numbers()
    assert bench.numbers() == [2]


def test_a_camera_with_colours_begins_no_series_though_its_frames_are_flat() -> None:
    bench = Bench()
    bench.post(1, attribute=[{"name": "ColorMode", "value": 1}])
    with pytest.raises(DetectorMessageError, match="ColorMode Bayer"):
        bench.numbers()
    bench.post(2, attribute=[{"name": "ColorMode", "value": 0}, {"name": "Gain", "value": 2.5}])
    assert bench.numbers() == [1]


def test_a_turn_takes_a_bounded_number_of_frames() -> None:
    bench = Bench()
    for number in range(1, N_FRAMES):
        bench.post(number)
    taken = bench.numbers()
    assert len(taken) == MESSAGES_PER_CALL - 1  # and the value of before
    assert [*taken, *bench.numbers()] == list(range(N_FRAMES - 1))


def test_a_turn_takes_a_bounded_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "BYTES_PER_CALL", 1)
    bench = Bench()
    for number in (1, 2):
        bench.post(number)
    assert (bench.numbers(), bench.numbers(), bench.numbers()) == ([0], [1], [])


def test_the_end_of_a_series_is_told_when_nothing_comes_and_nothing_waits() -> None:
    bench = Bench()
    bench.post(1)
    bench.numbers()
    bench.post(2)
    bench.now = 60.0  # nobody looked meanwhile
    assert bench.numbers() == [1]
    bench.now = 65.0
    assert [type(said) for said in bench.feed.receive()] == [EndMessage]


def test_a_pv_that_is_not_there_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.feed.receive()
    missing = Bench()
    missing.pv.is_connected = False
    for bench.now in (0.0, 6.0, 12.0):
        missing.now = bench.now
        missing.feed.receive()
        bench.feed.receive()
    assert [record.getMessage() for record in caplog.records] == [
        f"there is no PV {NAME} yet; it is waited for"
    ]


def test_frames_that_a_late_subscriber_has_no_room_for_are_lost_by_number(tmp_path: Path) -> None:
    pv = new_pv()
    with served({NAME: pv}):
        stage = connected_subscriber(tmp_path, queue=10)
        for number in range(1, 101):  # while it does not look
            post(pv, encode_array(FRAMES[number - 1], number, STAMP_S + number / 500))
        work_until(stage, lambda: bool(closed(tmp_path)))
        stage.close()
    (scan,) = scans_in(tmp_path)
    found = np.array(states(scan))
    assert len(found) == 100
    done = np.flatnonzero(found == State.DONE)
    assert (found[found != State.DONE] == State.LOST).all()
    assert {0, 1, 2, 99} <= set(done.tolist())
    assert len(done) < 100
    assert np.array_equal(scan.column("frames").read(done), FRAMES[done])


def test_two_acquisitions_are_two_scans_though_the_counter_goes_on(tmp_path: Path) -> None:
    pv, frames = new_pv(), FRAMES.astype("<i4") - 1  # a driver's own codes for pixels lie below zero
    with served({NAME: pv}):
        stage = connected_subscriber(tmp_path)
        for n_before, first in ((0, 1), (1, 6)):
            for number in range(first, first + 5):
                post(pv, encode_array(frames[number], number, STAMP_S + number / 500, "lz4"))
            work_until(stage, lambda n_before=n_before: len(closed(tmp_path)) > n_before)
        stage.close()
    for k, scan in enumerate(closed(tmp_path)):
        assert states(scan) == [State.DONE] * 5
        assert np.array_equal(scan.column("frames").read(range(5)), frames[5 * k + 1 : 5 * k + 6])


def test_a_series_goes_on_in_the_next_process(tmp_path: Path) -> None:
    pv = new_pv()
    with served({NAME: pv}):
        before = connected_subscriber(tmp_path)
        for number in range(1, 11):
            post(pv, encode_array(FRAMES[number - 1], number, STAMP_S + number / 500))
            if number == 5:
                work_until(before, lambda: before.progress()[1].get("recorded") == 5)
        # It dies here; the next one finds what the PV holds by now.
        after = connected_subscriber(tmp_path)
        post(pv, encode_array(FRAMES[10], 11, STAMP_S + 11 / 500))
        work_until(after, lambda: bool(closed(tmp_path)))
        before.close()
        after.close()
    (scan,) = scans_in(tmp_path)
    found = states(scan)
    assert [found[k] for k in (0, 4, 9, 10)] == [State.DONE] * 4
    assert len(found) == 11


def test_the_simulated_detector_sends_series_with_their_faults(tmp_path: Path) -> None:
    stage, ended = subscriber(tmp_path), threading.Event()
    order = (0, 1, 2, 4, 3, *range(5, 30))
    faults = Faults(drop=frozenset({7, 8}), duplicate=frozenset({11}), order=order)

    def play() -> None:
        with Replay(PvaSender(PvServer(), NAME, "bslz4"), PATIENCE_S) as replay:
            assert replay.wait_for_receiver()
            assert replay.play(FRAMES[:30], ReplayConfig(rate_hz=200.0, faults=faults)) == 29
            assert replay.play(FRAMES[40:50], ReplayConfig(rate_hz=200.0)) == 10
        ended.set()

    with ThreadPoolExecutor(1) as pool:
        played = pool.submit(play)
        work_until(stage, lambda: ended.is_set() or played.done())
        played.result()
        work_until(stage, lambda: len(closed(tmp_path)) == 2)
    stage.close()
    first, second = closed(tmp_path)
    assert [number for number, state in enumerate(states(first)) if state != State.DONE] == [7, 8]
    assert first.counters(STAGE)["duplicates"] == 1
    kept = np.delete(np.arange(30), [7, 8])
    assert np.array_equal(first.column("frames").read(kept), FRAMES[kept])
    assert states(second) == [State.DONE] * 10
    assert np.array_equal(second.column("frames").read(range(10)), FRAMES[40:50])
