"""What a frame costs that is inferred on another machine, beside one that is inferred here.

The same frames, all recorded before, in real processes: by the one process of a run, then by a worker that
gets them over TCP on the loopback, with gateway and dispatcher. Processor time of all that take part counts,
both ends of the line; the worker beside the detector is stopped meanwhile. The same of refinement, for each
update and without a network. Then the line alone, without keys and with: messages of two megabytes, both
ends together.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from launch.run.stages import resolve
from launch.run.supervisor import Supervisor
from stream.record.account import account
from stream.record.snapshot import read_state
from stream.wire.keys import create_keys
from stream.wire.sockets import Endpoint, Socket
from tests.benchmarks.figures import Benchmark, Figures
from tests.benchmarks.kilohertz.live import process_cpu_s
from tests.benchmarks.kilohertz.scan import RepeatingScan
from tests.benchmarks.network.workers import MEASURED, PATIENCE_S, record_all, run_config
from tests.helpers.launch.commands import command_line

N_FRAMES, N_PIXELS = 3000, 64
MESSAGE_BYTES, IN_FLIGHT = 2 << 20, 8  # as frames are fetched
EPOCHS = 10.0  # of refinement
TARGETS = {"elsewhere_over_here": ("<=", 1.5), "refined_elsewhere_over_here": ("<=", 1.5)}


def measure(folder: Path, n_frames: int = N_FRAMES, **network: Any) -> Iterator[Figures]:
    """Yield milliseconds of the processor for each frame, and their ratios.

    Parameters
    ----------
    folder : Path
    n_frames : int
    network : Any
        Settings of the network, for example its weights.
    """
    scan = RepeatingScan(n_frames=n_frames, n_pixels=N_PIXELS)
    frames = scan.frames()[scan.numbers()]
    ms = {}
    for way in ("here", "elsewhere"):
        cpu_s = _run(scan, frames, folder / way, network, is_elsewhere=way == "elsewhere")
        ms[way] = 1e3 * sum(cpu_s.values()) / n_frames
        yield {f"{way}_cpu_ms": ms[way]}
    yield {f"{name}_cpu_ms": 1e3 * s / n_frames for name, s in cpu_s.items()}
    yield {"elsewhere_over_here": ms["elsewhere"] / ms["here"]}
    yield from _refinement(scan, frames, folder)
    for name in ("run", "worker"):
        create_keys(folder / name, name)
    yield {"plain_ns_per_byte": line_ns_per_byte({}, {})}
    server = {"key": folder / "run/run.key_secret", "peers": folder / "worker"}
    client = {"key": folder / "worker/worker.key_secret", "peers": folder / "run/run.key"}
    yield {"curve_ns_per_byte": line_ns_per_byte(server, client)}


def line_ns_per_byte(server: dict[str, Any], client: dict[str, Any], n_messages: int = 60) -> float:
    """Return nanoseconds of the processor for each byte over TCP on the loopback, the best of three."""
    part, took_s = bytes(MESSAGE_BYTES), []
    door = Endpoint(address="tcp://127.0.0.1:*", bind=True, **server)
    with ExitStack() as held:
        run = held.enter_context(Socket("ROUTER", door, queue=64))
        worker = held.enter_context(Socket("DEALER", Endpoint(address=run.address, **client)))
        worker.send([b"here"])
        who = bytes((run.receive(10.0) or [b""])[0])
        for _ in range(3):
            began, n_sent, n_came = time.process_time(), 0, 0
            while n_came < n_messages:
                if is_room := n_sent < n_messages and n_sent - n_came < IN_FLIGHT:
                    n_sent += run.send([who, part])
                while worker.receive(0.0 if is_room else 0.05) is not None:
                    n_came += 1
            took_s.append(time.process_time() - began)
    return 1e9 * min(took_s) / (n_messages * MESSAGE_BYTES)


def _run(
    scan: RepeatingScan, frames: np.ndarray, folder: Path, network: dict[str, Any], *, is_elsewhere: bool
) -> dict[str, float]:
    """Return the seconds of the processor that each process took for all frames."""
    remote = {"enabled": is_elsewhere, "address": "tcp://127.0.0.1:*"}
    run = resolve(run_config(scan, folder, network, remote=remote))
    stages = tuple(spec for spec in run.stages if spec.name.startswith((*MEASURED, "gateway")))
    with ExitStack() as held, Supervisor(run.model_copy(update={"stages": stages})) as supervisor:
        supervisor.start()
        processes = {"inference": supervisor.pid("inference")}
        if is_elsewhere:
            command = command_line("stage", "inference", "--of", supervisor.address("gateway"))
            worker = held.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            held.callback(worker.terminate)
            assert worker.stdout is not None
            next(line for line in worker.stdout if line.startswith("ready"))
            os.kill(supervisor.pid("inference-1"), signal.SIGSTOP)
            processes |= {"gateway": supervisor.pid("gateway"), "worker": worker.pid}
        before = {name: process_cpu_s(pid) for name, pid in processes.items()}
        recorded = record_all(supervisor.run.scans, supervisor.run.run_id, frames)
        deadline = supervisor.clock() + PATIENCE_S
        while account(recorded, "inference").pending and supervisor.clock() < deadline:
            supervisor.poll()
        if n_left := account(recorded, "inference").pending:
            raise RuntimeError(f"{n_left} of {len(frames)} frames are not done after {PATIENCE_S:g} s")
        return {name: process_cpu_s(pid) - before[name] for name, pid in processes.items()}


def _refinement(scan: RepeatingScan, frames: np.ndarray, folder: Path) -> Iterator[Figures]:
    ms = {}
    for way in ("here", "elsewhere"):
        cpu_s, n_updates = _refined(scan, frames, folder / f"refined-{way}", is_elsewhere=way == "elsewhere")
        ms[way] = 1e3 * sum(cpu_s.values()) / n_updates
        yield {f"refined_{way}_cpu_ms": ms[way]}
    yield {"refined_run_cpu_ms": 1e3 * cpu_s["refinement"] / n_updates}
    yield {"refined_elsewhere_over_here": ms["elsewhere"] / ms["here"]}


def _refined(
    scan: RepeatingScan, frames: np.ndarray, folder: Path, *, is_elsewhere: bool
) -> tuple[dict[str, float], int]:
    """Return the seconds of the processor that each process took to refine a scan, and its updates."""
    remote = {"enabled": is_elsewhere, "refinement": "elsewhere" if is_elsewhere else "here"}
    remote |= {"refinement_address": "tcp://127.0.0.1:*"}
    refinement = {"epochs": EPOCHS}
    run = resolve(run_config(scan, folder, {"weights": None}, remote=remote, refinement=refinement))
    stages = tuple(spec for spec in run.stages if spec.name in ("refinement", "stitcher"))
    with ExitStack() as held, Supervisor(run.model_copy(update={"stages": stages})) as supervisor:
        supervisor.start()
        processes = {"refinement": supervisor.pid("refinement")}
        if is_elsewhere:
            command = command_line("stage", "refinement", "--of", supervisor.address("refinement"))
            worker = held.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            held.callback(worker.terminate)
            assert worker.stdout is not None
            next(line for line in worker.stdout if line.startswith("ready"))
            processes |= {"worker": worker.pid}
        before = {name: process_cpu_s(pid) for name, pid in processes.items()}
        recorded = record_all(run.scans, run.run_id, frames, scan.positions_m())
        deadline = supervisor.clock() + PATIENCE_S
        while not recorded.count("refinement", "closed") and supervisor.clock() < deadline:
            supervisor.poll()
        cpu_s = {name: process_cpu_s(pid) - before[name] for name, pid in processes.items()}
    state = read_state(recorded.folder)
    if state is None or state.epoch < EPOCHS:
        raise RuntimeError(f"a scan of {len(frames)} frames is not refined after {PATIENCE_S:g} s")
    return cpu_s, state.n_updates


BENCHMARK = Benchmark(measure=measure, targets=TARGETS)
