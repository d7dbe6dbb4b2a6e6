"""The replayed detector: its messages, its pace, its patience, and the way over real sockets."""

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

import cbor2
import numpy as np
import pytest

from stream.detector.config import DetectorConfig
from stream.detector.dialects import DIALECTS
from stream.detector.protocol import EndMessage, ImageMessage, StartMessage
from stream.detector.simulator import DetectorReplay, Faults, ReplayConfig, new_series_uid, series_messages
from stream.record.account import account
from stream.record.scan import scans_in
from stream.stages.ingest.frame_writer import STAGE
from stream.stages.ingest.subscriber import Subscriber
from stream.stages.loop import MESSAGES_PER_TURN
from stream.wire import addresses
from stream.wire.codec import Buffer
from stream.wire.sockets import Endpoint, Socket, wait_for_message
from tests.helpers.launch.commands import free_address
from tests.helpers.stream.detector import SHAPE, assert_recorded, pixels

LOOPBACK = Endpoint(address="tcp://127.0.0.1:*", bind=True)
PATIENCE_S = 20.0


def test_a_series_is_named_anew_each_time() -> None:
    one, another = new_series_uid("star", 1e9), new_series_uid("star", 1e9 + 1)
    assert one != another
    assert one.startswith("star-2001090")
    assert new_series_uid(f"{one}-20010909T014640", 1e9 + 1) == another, "times do not pile up"


def messages(n_frames: int, **options: object) -> list[object]:
    config = ReplayConfig(series_uid="a", **options)
    return [message for _, message in series_messages(map(pixels, range(n_frames)), config, n_frames)]


def image_ids(sent: list[object]) -> list[int]:
    return [message.image_id for message in sent if isinstance(message, ImageMessage)]


def test_a_series_has_a_start_its_images_and_an_end() -> None:
    start, *images, end = messages(
        3, rate_hz=50.0, energy_ev=8800.0, detector_distance_m=1.92, detector_pixel_m=75e-6
    )
    assert isinstance(start, StartMessage)
    assert (start.number_of_images, start.frame_shape, start.frame_dtype) == (3, SHAPE, "<u2")
    assert (start.incident_energy, start.detector_translation) == (8800.0, (0.0, 0.0, 1.92))
    assert (start.pixel_size_x, start.frame_time) == (75e-6, 0.02)
    assert end == EndMessage(series_id=1, series_unique_id="a")
    for number, image in enumerate(images):
        assert isinstance(image, ImageMessage)
        assert image.exposed_s == pytest.approx((number + 1) / 50)
        assert image.start_time == (number * 1_000_000, 50_000_000)
        np.testing.assert_array_equal(image.frame("threshold_1").decode(), pixels(number))


def test_faults_are_made_as_ordered() -> None:
    faults = Faults(
        drop=frozenset({1}), duplicate=frozenset({2}), order=(3, 2, 1, 0), without_end=True, announce=9
    )
    start, *images = messages(4, faults=faults)
    assert isinstance(start, StartMessage)
    assert start.number_of_images == 9
    assert image_ids(images) == [3, 2, 2, 0]
    assert image_ids(messages(4, faults=Faults(without_start=True, stop_after=2))) == [0, 1]
    assert len(messages(4, faults=Faults(without_start=True, stop_after=2))) == 2
    with pytest.raises(ValueError, match="must name each of 0 to 3 once"):
        messages(4, faults=Faults(order=(0, 1, 2)))


def test_frames_are_taken_one_at_a_time() -> None:
    taken: list[int] = []

    def frames() -> Iterator[np.ndarray]:
        for number in range(1000):
            taken.append(number)
            yield pixels(number)

    stream = series_messages(frames(), ReplayConfig(), 1000)
    for _ in range(4):
        next(stream)
    assert len(taken) <= 4


class SteppingClock:
    """Time that passes when somebody sleeps, and a little with every look."""

    def __init__(self) -> None:
        self.now = 50.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        self.now += 1e-4
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds * 1.5  # sleeps too long, as computers do


def test_the_pace_does_not_drift() -> None:
    clock = SteppingClock()
    with (
        DetectorReplay(LOOPBACK, queue=500, clock=clock, sleep=clock.sleep) as replay,
        Socket("PULL", Endpoint(address=replay.address), queue=500) as pull,
    ):
        begin = clock.now
        assert replay.play([pixels(i) for i in range(200)], ReplayConfig(rate_hz=100.0)) == 200
        assert clock.now - begin == pytest.approx(2.0, abs=0.02)
        assert all(pull.receive(PATIENCE_S) for _ in range(202))


def test_without_a_rate_frames_leave_as_fast_as_they_are_taken() -> None:
    clock = SteppingClock()
    with (
        DetectorReplay(LOOPBACK, queue=500, clock=clock, sleep=clock.sleep) as replay,
        Socket("PULL", Endpoint(address=replay.address), queue=500) as pull,
    ):
        replay.play([pixels(i) for i in range(50)], ReplayConfig())
        assert not clock.slept
        assert all(pull.receive(PATIENCE_S) for _ in range(52))


def test_who_waits_for_a_receiver_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    seconds = iter(range(0, 100, 3))
    questions = iter([False, False, False, True])
    with DetectorReplay(LOOPBACK, clock=lambda: next(seconds)) as detector:
        assert not detector.wait_for_receiver(is_stopped=lambda: next(questions))
        (record,) = caplog.records
        assert record.getMessage() == f"nobody has connected to {detector.address} yet: waiting"


@pytest.mark.parametrize("bind", [True, False])
def test_a_receiver_is_waited_for_no_longer_than_asked(bind: bool) -> None:
    seconds = iter(range(0, 100, 3))
    address = free_address()
    endpoint = Endpoint(address=address, bind=bind)
    with (
        DetectorReplay(endpoint, timeout_s=10.0, clock=lambda: next(seconds)) as detector,
        pytest.raises(TimeoutError, match=f"nobody has connected to {address} in 10 s"),
    ):
        detector.wait_for_receiver()


def test_a_receiver_that_takes_no_more_ends_a_series_and_what_left_is_counted() -> None:
    seconds = itertools.count(step=3)
    frames = [np.zeros((1024, 1024), np.uint16)] * 50  # more than the system's buffers take
    with (
        DetectorReplay(LOOPBACK, queue=2, timeout_s=10.0, clock=lambda: next(seconds)) as detector,
        Socket("PULL", Endpoint(address=detector.address), queue=2),
    ):
        detector.wait_for_receiver()
        with pytest.raises(TimeoutError, match=r"nobody has taken anything at .* for 10 s"):
            detector.play(frames, ReplayConfig(compression=""))
        assert 0 < detector.n_sent < len(frames)


def test_a_full_queue_is_waited_for_and_can_be_given_up() -> None:
    asked: list[int] = []

    def is_stopped() -> bool:
        asked.append(1)
        return len(asked) > 8

    with DetectorReplay(LOOPBACK, queue=2) as replay:
        assert replay.play([pixels(0)] * 50, ReplayConfig(), is_stopped=is_stopped) == 0


def record(inlet: Socket, scans: Path, dialect: str = "dectris-v2") -> Subscriber:
    """Does what `run_stage` does with a source, until the first series is over."""
    subscriber = Subscriber(DetectorConfig(address=addresses.DETECTOR, format=dialect), scans)
    deadline = time.monotonic() + PATIENCE_S
    while not any(scan.count(STAGE, "closed") for scan in scans_in(scans)):
        assert time.monotonic() < deadline, "the series did not end"
        wait_for_message([inlet], 0.02)
        turn: list[list[Buffer]] = []
        while len(turn) < MESSAGES_PER_TURN and (parts := inlet.receive()) is not None:
            turn.append(parts)
        subscriber.handle(turn)
        subscriber.idle(time.monotonic())
    return subscriber


@contextmanager
def playing(replay: DetectorReplay, n_frames: int, config: ReplayConfig) -> Iterator[None]:
    """Plays a series beside the test."""
    frames = [pixels(number) for number in range(n_frames)]
    player = threading.Thread(target=replay.play, args=(frames, config))
    player.start()
    try:
        yield
    finally:
        player.join(PATIENCE_S)


@pytest.mark.parametrize("compression", ["bslz4", "lz4", ""])
@pytest.mark.parametrize("detector_binds", [True, False])
def test_every_frame_arrives_by_push_and_pull(
    tmp_path: Path, detector_binds: bool, compression: Literal["bslz4", "lz4", ""]
) -> None:
    # Queues much shorter than the series: the detector has to wait and nothing may be dropped.
    with ExitStack() as sockets:
        if detector_binds:
            replay = sockets.enter_context(DetectorReplay(LOOPBACK, queue=4))
            inlet = sockets.enter_context(Socket("PULL", Endpoint(address=replay.address), queue=4))
        else:
            inlet = sockets.enter_context(Socket("PULL", LOOPBACK, queue=4))
            replay = sockets.enter_context(DetectorReplay(Endpoint(address=inlet.address), queue=4))
        with playing(replay, 300, ReplayConfig(series_uid="a", compression=compression)):
            record(inlet, tmp_path)
    (scan,) = scans_in(tmp_path)
    assert_recorded(scan, range(300))
    assert account(scan, STAGE).is_complete


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_frame_arrives_in_every_dialect(tmp_path: Path, dialect: str) -> None:
    with (
        DetectorReplay(LOOPBACK, queue=4, format=dialect) as replay,
        Socket("PULL", Endpoint(address=replay.address), queue=4) as inlet,
        playing(replay, 100, ReplayConfig(series_uid="a")),
    ):
        record(inlet, tmp_path, dialect)
    (scan,) = scans_in(tmp_path)
    assert_recorded(scan, range(100))
    assert account(scan, STAGE).is_complete


def test_every_frame_arrives_by_publish_and_subscribe(tmp_path: Path) -> None:
    with (
        DetectorReplay(LOOPBACK, "PUB") as replay,
        Socket("SUB", Endpoint(address=replay.address)) as inlet,
    ):
        # What is published before the subscription has arrived is lost.
        while inlet.receive(0.01) is None:
            replay.send([[cbor2.dumps({"type": "metadata"})]])
        with playing(replay, 300, ReplayConfig(series_uid="a")):
            record(inlet, tmp_path)
    (scan,) = scans_in(tmp_path)
    assert_recorded(scan, range(300))


def test_two_detectors_behind_one_socket_keep_their_scans_apart(tmp_path: Path) -> None:
    with (
        DetectorReplay(LOOPBACK) as first,
        DetectorReplay(LOOPBACK) as second,
        Socket("PULL", [Endpoint(address=first.address), Endpoint(address=second.address)]) as inlet,
    ):
        with playing(first, 20, ReplayConfig(series_uid="a")):
            subscriber = record(inlet, tmp_path)
        with playing(second, 30, ReplayConfig(series_uid="b")):
            turn = [inlet.receive(PATIENCE_S) for _ in range(32)]
        subscriber.handle([parts for parts in turn if parts is not None])
    subscriber.close()
    one, two = scans_in(tmp_path)
    assert_recorded(one, range(20))
    assert_recorded(two, range(30))
