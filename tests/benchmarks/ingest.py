"""How fast frames become a scan, as a share of what receiving and decoding alone would reach.

The baseline takes the same messages from the same socket and decodes every frame into one buffer, with
nothing else to do: each message with the CBOR library, as a program for one detector would, and once more
with the reader that the subscriber has (`same_reader`), which leaves what columns, ledger and accounting
cost. Repetitions alternate, and the median of the ratios of neighbours counts, so that a busy computer
disturbs them alike; the ratio of processor times beside it does not know the neighbours at all. Frames are
those of a larger detector, compressed; then small ones as they are, where what a message costs counts.
"""

import multiprocessing
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from operator import attrgetter
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from stream.detector.config import DetectorConfig
from stream.detector.dectris import decode_message, encode_message
from stream.detector.protocol import DetectorMessage, ImageMessage
from stream.detector.simulator import DetectorReplay, ReplayConfig, series_messages
from stream.detector.stream_v2 import StreamV2
from stream.stages.ingest.subscriber import Subscriber
from stream.stages.loop import MESSAGES_PER_TURN
from stream.wire import addresses
from stream.wire.codec import Buffer
from stream.wire.keys import create_keys
from stream.wire.sockets import Endpoint, Socket, wait_for_message
from tests.benchmarks.figures import Benchmark, Figures

_seconds, _cpu_s = attrgetter("seconds"), attrgetter("cpu_s")
N_FRAMES, N_REPETITIONS = 2000, 7
QUEUE = 256
OPEN_DETECTOR = Endpoint(address="tcp://127.0.0.1:*", bind=True)
OPEN_SUBSCRIBER = Endpoint(address="")  # where the detector is
PHOTONS = 2e5
PATIENCE_S = 60.0


class Cost(NamedTuple):
    """What one series took: wall and processor time of the receiving process, seconds."""

    seconds: float
    cpu_s: float


class Kind(NamedTuple):
    """What frames a detector sends."""

    n_pixels: int
    compression: Literal["bslz4", ""]

    @property
    def words(self) -> str:
        """As people read it."""
        return f"{self.n_pixels}x{self.n_pixels} uint16 {self.compression or 'uncompressed'}"


LARGE, SMALL = Kind(256, "bslz4"), Kind(128, "")


class Stopwatch:
    """Takes both times at once."""

    def __init__(self) -> None:
        self._begin = Cost(time.perf_counter(), time.process_time())

    def read(self) -> Cost:
        """Returns what has passed."""
        return Cost(time.perf_counter() - self._begin.seconds, time.process_time() - self._begin.cpu_s)


def measure(folder: Path, *, n_frames: int = N_FRAMES, repetitions: int = N_REPETITIONS) -> Iterator[Figures]:
    """Yield the figures, and as `measured_on` what was sent and where scans lie."""
    large = _costs(folder / "large", LARGE, n_frames, repetitions)
    measured_on = {
        "scans_on": _file_system(folder),
        "frames": f"{n_frames} of {LARGE.words}, of {SMALL.words}",
        "repetitions": repetitions,
    }
    yield _figures(large, n_frames) | {"measured_on": measured_on}
    costs = _costs(folder / "small", SMALL, n_frames, repetitions)
    small, curve = _figures(costs, n_frames), _encrypted(folder / "curve", SMALL, n_frames, repetitions)
    names = "cpu_ms_per_1000", "bare_cpu_ms_per_1000"
    yield {f"{name}_{SMALL.n_pixels}": small[name] for name in names} | {
        f"curve_cpu_ratio_{SMALL.n_pixels}": statistics.median(
            c.cpu_s / r.cpu_s for c, r in zip(curve, costs.recorded, strict=True)
        ),
        "measured_on": measured_on,
    }


def _encrypted(folder: Path, kind: Kind, n_frames: int, repetitions: int) -> list[Cost]:
    """Return what series cost that come over a line with CURVE, recorded."""
    theirs, ours = folder / "detector", folder / "subscriber"
    lock, key = create_keys(theirs, "detector"), create_keys(ours, "subscriber")
    detector = replace(OPEN_DETECTOR, key=lock, peers=ours)
    subscriber = replace(OPEN_SUBSCRIBER, key=key, peers=theirs / "detector.key")
    messages = _messages(kind, n_frames)
    with _detector(messages, detector, subscriber) as (inlet, go):
        return [
            _record(inlet, go, messages[0], n_frames, folder / str(repetition))
            for repetition in range(repetitions + 1)
        ][1:]


class Costs(NamedTuple):
    """What series cost, received and decoded alone in two ways, and recorded."""

    bare: list[Cost]
    same_reader: list[Cost]
    recorded: list[Cost]


def _costs(folder: Path, kind: Kind, n_frames: int, repetitions: int) -> Costs:
    messages = _messages(kind, n_frames)
    costs = Costs([], [], [])
    with _detector(messages) as (inlet, go):
        for repetition in range(repetitions + 1):
            costs.bare.append(_receive_and_decode(inlet, go, n_frames, kind.n_pixels, _by_library))
            again = StreamV2().decode
            costs.same_reader.append(_receive_and_decode(inlet, go, n_frames, kind.n_pixels, again))
            costs.recorded.append(_record(inlet, go, messages[0], n_frames, folder / str(repetition)))
    # The first of each pays for imports, caches and connections.
    return Costs(*(series[1:] for series in costs))


def _figures(costs: Costs, n_frames: int) -> Figures:
    bare, same_reader, recorded = costs

    def ratio(of: Callable[[Cost], float], baseline: list[Cost]) -> float:
        return statistics.median(of(b) / of(r) for b, r in zip(baseline, recorded, strict=True))

    return {
        "efficiency": ratio(_seconds, bare),
        "cpu_efficiency": ratio(_cpu_s, bare),
        "same_reader_efficiency": ratio(_seconds, same_reader),
        "same_reader_cpu_efficiency": ratio(_cpu_s, same_reader),
        "frames_per_s": n_frames / statistics.median(map(_seconds, recorded)),
        "bare_frames_per_s": n_frames / statistics.median(map(_seconds, bare)),
        "cpu_ms_per_1000": statistics.median(map(_cpu_s, recorded)) / n_frames * 1e6,
        "bare_cpu_ms_per_1000": statistics.median(map(_cpu_s, bare)) / n_frames * 1e6,
    }


def _messages(kind: Kind, n_frames: int) -> list[bytes]:
    rng, shape = np.random.default_rng(0), (kind.n_pixels, kind.n_pixels)
    ky, kx = np.meshgrid(*(np.arange(n) - n / 2 for n in shape), indexing="ij")
    # A bright disc with weak wings: what a focusing optic leaves on a far-field detector.
    mean = np.where(np.hypot(ky, kx) < kind.n_pixels / 8, 1.0, 2e-3) + 0.1 * np.exp(-np.hypot(ky, kx) / 20)
    mean *= PHOTONS / mean.sum()
    frames = [rng.poisson(mean).astype("<u2") for _ in range(50)]
    config = ReplayConfig(compression=kind.compression)
    series = series_messages((frames[number % 50] for number in range(n_frames)), config, n_frames)
    return [encode_message(message) for _, message in series]


@contextmanager
def _detector(
    messages: list[bytes],
    detector: Endpoint = OPEN_DETECTOR,
    subscriber: Endpoint = OPEN_SUBSCRIBER,
) -> Iterator[tuple[Socket, Connection]]:
    """Yields the receiving socket, and where to ask for the frames of one more series."""
    context = multiprocessing.get_context("spawn")
    go, asked = context.Pipe()
    sender = context.Process(target=_send, args=(asked, messages[1:-1], detector))
    sender.start()
    try:
        with Socket("PULL", replace(subscriber, address=go.recv()), queue=QUEUE) as inlet:
            yield inlet, go
            go.send(False)
    finally:
        sender.join(PATIENCE_S)


def _send(asked: Connection, images: list[bytes], endpoint: Endpoint) -> None:
    with DetectorReplay(endpoint, queue=QUEUE) as detector:
        asked.send(detector.address)
        while asked.recv():
            for message in images:
                detector.send([[message]])


def _turns(inlet: Socket, go: Connection, n_frames: int) -> Iterator[list[list[Buffer]]]:
    """Asks for a series and yields what `run_stage` would hand over at a time."""
    go.send(True)
    while n_frames:
        turn: list[list[Buffer]] = []
        while len(turn) < MESSAGES_PER_TURN and (parts := inlet.receive()) is not None:
            turn.append(parts)
        if turn:
            yield turn
        elif not wait_for_message([inlet], PATIENCE_S):
            raise TimeoutError(f"{n_frames} frames did not come")
        n_frames -= len(turn)


def _by_library(parts: list[Buffer]) -> DetectorMessage | None:
    return decode_message(parts[0])


def _receive_and_decode(
    inlet: Socket,
    go: Connection,
    n_frames: int,
    n_pixels: int,
    decode: Callable[[list[Buffer]], DetectorMessage | None],
) -> Cost:
    out = np.empty((n_pixels, n_pixels), "<u2")
    stopwatch = Stopwatch()
    for turn in _turns(inlet, go, n_frames):
        for parts in turn:
            message = decode(parts)
            if isinstance(message, ImageMessage):
                message.frame().decode_into(out)
    return stopwatch.read()


def _record(inlet: Socket, go: Connection, start: bytes, n_frames: int, scans: Path) -> Cost:
    subscriber = Subscriber(DetectorConfig(address=addresses.DETECTOR), scans)
    subscriber.handle([[start]])
    stopwatch = Stopwatch()
    for turn in _turns(inlet, go, n_frames):
        subscriber.handle(turn)
        subscriber.idle(time.monotonic())
        subscriber.progress()
    cost = stopwatch.read()
    subscriber.close()
    # Memory that is used again is what a detector meets after its first scan.
    shutil.rmtree(scans)
    name, counts = subscriber.progress()
    if counts["recorded"] != n_frames:
        raise RuntimeError(f"scan {name} has {counts} instead of {n_frames} frames")
    return cost


def _file_system(folder: Path) -> str:
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    return max(
        (mount for mount in mounts if folder.is_relative_to(mount[0])), key=lambda mount: len(mount[0])
    )[1]


TARGETS = {"efficiency": (">=", 0.85), "cpu_ms_per_1000_128": ("<=", 40.0)}
BENCHMARK = Benchmark(measure=measure, targets=TARGETS)
