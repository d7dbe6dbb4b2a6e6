"""What it costs that several stages read the frames: one subscriber with three readers, against one.

Subscriber and readers run as in a run, each in its own process with its own loop, bell and ledger; a reader
reads every frame and does nothing else with it. The detector keeps its pace, so processor times count. Runs
with one reader and with three alternate.
"""

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

from stream.detector.config import DetectorConfig
from stream.detector.dectris import encode_frame
from stream.detector.simulator import DetectorReplay, ReplayConfig
from stream.record.scan import Numbers, Scan, State, scans_in
from stream.stages.ingest.subscriber import Subscriber
from stream.stages.link import StageContext
from stream.stages.loop import run_stage
from stream.stages.stage import ScanWork, Stage
from stream.wire.codec import decode, encode
from stream.wire.handshake import answer_to
from stream.wire.messages import Hello, Ready, Stop
from stream.wire.sockets import Endpoint, Socket
from tests.benchmarks.figures import Figures
from tests.benchmarks.kilohertz.live import process_cpu_s

RATE_HZ, N_FRAMES, N_PAIRS = 1000.0, 4000, 3
N_PIXELS, N_READERS = 128, 3
SUBSCRIBER = "subscriber"
PATIENCE_S, LOOK_S = 60.0, 0.05


class Reader:
    """Worker: reads every frame."""

    inputs: tuple[str, ...] = (SUBSCRIBER,)
    waits_for: tuple[str, ...] = ()
    batch_size, deadline_s = 32, 0.02

    def __init__(self, name: str) -> None:
        self.name = name

    def open(self, scan: Scan) -> ScanWork:
        """Begins with `scan`."""
        return _Reading(self.name, scan)


class _Reading(ScanWork):
    def __init__(self, name: str, scan: Scan) -> None:
        self._name, self._scan = name, scan

    def handle(self, numbers: Numbers) -> None:
        """Reads these frames, of which none is empty, and marks them."""
        is_there = self._scan.column("frames").read(numbers).any(axis=(1, 2))
        self._scan.mark(self._name, numbers[is_there], State.DONE)


def measure(folder: Path, *, n_frames: int = N_FRAMES, n_pairs: int = N_PAIRS) -> Iterator[Figures]:
    """Yield the ratios, of the subscriber and of all processes together, and what a paced frame costs."""
    costs: dict[int, list[dict[str, float]]] = {1: [], N_READERS: []}
    for pair in range(n_pairs):
        for n_readers, found in costs.items():
            found.append(_cpu_s(folder / f"{pair}-{n_readers}", n_readers, n_frames))
    one, several = costs[1], costs[N_READERS]

    def ratio(*names: str) -> float:
        def summed(cpu_s: dict[str, float]) -> float:
            return sum(value for name, value in cpu_s.items() if not names or name in names)

        return statistics.median(summed(b) / summed(a) for a, b in zip(one, several, strict=True))

    paced = statistics.median(cpu_s[SUBSCRIBER] for cpu_s in several)
    yield {
        "fan_out": ratio(SUBSCRIBER),
        "fan_out_whole": ratio(),
        "paced_cpu_ms_per_1000_128": paced / n_frames * 1e6,
    }


def _cpu_s(scans: Path, n_readers: int, n_frames: int) -> dict[str, float]:
    """Returns what each process took for one series, seconds of the processor."""
    scans.mkdir(parents=True)
    names = [f"reader-{number}" for number in range(n_readers)]
    with tempfile.TemporaryDirectory(prefix="fan-") as rendezvous:
        context = StageContext(scans=scans, rendezvous=Path(rendezvous))
        with _processes(context, names) as (pids, address):
            before = {name: process_cpu_s(pid) for name, pid in pids.items()}
            _play(address, n_frames)
            _wait_for(scans, names, n_frames)
            return {name: process_cpu_s(pid) - before[name] for name, pid in pids.items()}


@contextmanager
def _processes(context: StageContext, readers: list[str]) -> Iterator[tuple[dict[str, int], str]]:
    """Yields the processes by name, all of them ready, and where the detector sends to."""
    spawn = multiprocessing.get_context("spawn")
    with Socket("ROUTER", context.local("control", bind=True)) as control:
        processes: dict[str, BaseProcess] = {
            name: spawn.Process(target=_run, args=(name, context)) for name in (SUBSCRIBER, *readers)
        }
        for process in processes.values():
            process.start()
        clients: list[bytes] = []
        address = ""
        while len(clients) < len(processes):
            parts = control.receive(PATIENCE_S)
            if parts is None:
                raise TimeoutError(f"{len(clients)} of {len(processes)} stages are ready")
            message, _ = decode(parts[1:])
            if isinstance(message, Hello):
                control.send([parts[0], *encode(answer_to(message, "fan-out"))])
            elif isinstance(message, Ready):
                clients.append(bytes(parts[0]))
                address = message.address or address
        try:
            yield {name: process.pid or 0 for name, process in processes.items()}, address
        finally:
            for client in clients:
                control.send([client, *encode(Stop())])
            for process in processes.values():
                process.join(PATIENCE_S)


def _run(name: str, context: StageContext) -> None:
    def build() -> Stage:
        if name != SUBSCRIBER:
            return Reader(name)
        config = DetectorConfig(address="tcp://127.0.0.1:*", bind=True)
        return Subscriber(config, context.scans, stages=(SUBSCRIBER,))

    run_stage(name, build, context)


def _play(address: str, n_frames: int) -> None:
    rng, shape = np.random.default_rng(0), (N_PIXELS, N_PIXELS)
    encoded = [encode_frame(rng.poisson(3.0, shape).astype("<u2"), "") for _ in range(50)]
    config = ReplayConfig(series_uid="fan-out", rate_hz=RATE_HZ)
    with DetectorReplay(Endpoint(address=address)) as detector:
        detector.wait_for_receiver()
        detector.play((encoded[number % 50] for number in range(n_frames)), config, n_frames)


def _wait_for(scans: Path, readers: list[str], n_frames: int) -> None:
    ends_at = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends_at:
        for scan in scans_in(scans):
            if all(scan.done(name).size == n_frames for name in (SUBSCRIBER, *readers)):
                return
        time.sleep(LOOK_S)
    raise TimeoutError(f"{n_frames} frames were not read by all of {', '.join(readers)}")


TARGETS = {"fan_out": ("<=", 1.3)}
