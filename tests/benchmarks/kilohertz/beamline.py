"""The beamline of a run at kHz rates: a detector in a process of its own, and bluesky beside it.

`python -m tests.benchmarks.kilohertz.beamline FILE.json` says when it is ready, sends at a line on its stdin,
and leaves what it did as figures.
"""

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
import numpy as np

from stream.atomic import write_atomically
from stream.detector.dectris import encode_frame
from stream.detector.protocol import EncodedFrame
from stream.detector.simulator import DetectorReplay, ReplayConfig
from stream.wire.sockets import Endpoint
from tests.benchmarks.kilohertz.scan import RepeatingScan, stamped

SERIES = "kilohertz"
READY = "ready"
FLUSH_S = 0.02  # between two pages of positions


class BeamlineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the beamline does.

    Attributes
    ----------
    detector, positions : str
        Addresses of the pipeline; "" for positions where the pipeline has them from a file.
    rate_hz : float
        Frames per second.
    scan : RepeatingScan
    report : str
        File that gets `Sent`.
    """

    detector: str
    positions: str
    rate_hz: float
    scan: RepeatingScan
    report: str


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """What the detector did: when it began and ended, monotonic seconds, and the processor time it took."""

    begin_s: float
    end_s: float
    cpu_s: float
    n_frames: int


def run_beamline(settings: BeamlineSettings) -> None:
    """Runs one scan; blocks."""
    context = multiprocessing.get_context("spawn")
    door, its_door = context.Pipe()
    detector = context.Process(target=_send, args=(its_door, settings), daemon=True)
    detector.start()
    its_door.close()
    if door.recv() != READY:
        raise RuntimeError("the detector is not ready")

    def play() -> None:
        door.send("go")
        write_atomically(Path(settings.report), door.recv_bytes())

    if settings.positions:
        _fly(settings, play)
    else:
        _say_ready_and_wait()
        play()
    detector.join()


def _say_ready_and_wait() -> None:
    print(READY, flush=True)
    if not sys.stdin.readline():
        sys.exit("the beamline was not told to go")


def _fly(settings: BeamlineSettings, play: Callable[[], None]) -> None:
    from bluesky import RunEngine

    from launch.beamline.flown import FlyingDetector, FlyingStage, HeardPublisher, simulated_fly_scan

    publisher = HeardPublisher(settings.positions)
    engine = RunEngine()
    engine.subscribe(publisher)
    stage, detector = FlyingStage(settings.scan.positions_m(), settings.rate_hz), FlyingDetector(play)
    _say_ready_and_wait()
    try:
        engine(simulated_fly_scan(stage, detector, {"detector_series_id": SERIES}, flush_period_s=FLUSH_S))
    finally:
        detector.close()
        publisher.close()


def _send(door: Connection, settings: BeamlineSettings) -> None:
    scan = settings.scan
    # A detector compresses in its own electronics: here before the scan, each of the different frames once.
    frames, numbers = scan.frames(), scan.numbers()
    encoded = [encode_frame(frame) for frame in ([] if scan.is_stamped else frames)]

    def sent_ones() -> Iterator[EncodedFrame]:
        for index, number in enumerate(numbers):
            own = stamped(frames[number][None], np.array([index]))[0] if scan.is_stamped else None
            yield encoded[number] if own is None else encode_frame(own)

    series = ReplayConfig(series_uid=SERIES, rate_hz=settings.rate_hz)
    with DetectorReplay(Endpoint(address=settings.detector)) as detector:
        door.send(READY)
        door.recv()
        cpu_s, begin_s = time.process_time(), time.monotonic()
        n_sent = detector.play(sent_ones(), series, len(numbers))
        sent = Sent(
            begin_s=begin_s,
            end_s=time.monotonic(),
            cpu_s=time.process_time() - cpu_s,
            n_frames=n_sent,
        )
    door.send_bytes(msgspec.json.encode(sent))


if __name__ == "__main__":
    run_beamline(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=BeamlineSettings))
