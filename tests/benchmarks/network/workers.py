"""What several workers of inference do together, beside what one process does, alone and with threads.

Every way gets the same frames, all recorded before it begins, in its real processes and nothing else beside
them; the rate is that of the frames after the first tenth. Then two workers again, of which one is stopped
and one killed in the middle: what is lost by that, and how long nothing at all was done.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from launch.config.config import Config
from launch.run.stages import resolve
from launch.run.supervisor import Supervisor
from stream.record.account import account
from stream.record.scan import Scan, ScanHeader, State
from tests.benchmarks.figures import Benchmark, Figures
from tests.benchmarks.kilohertz.live import process_cpu_s
from tests.benchmarks.kilohertz.scan import RepeatingScan

N_FRAMES, N_PIXELS = 6000, 64
MEASURED = ("inference", "stitcher")
PATIENCE_S = 300.0
WAYS: dict[str, dict[str, Any]] = {"one": {}, "threads": {"threads": 2}, "workers": {"workers": 2}}
TARGETS = {
    "workers_over_one": (">=", 1.8),
    "workers_ms": ("<=", 0.35),
    "stopped_pending": ("<=", 0),
    "killed_pending": ("<=", 0),
    "stopped_gap_s": ("<=", 2.0),
    "killed_gap_s": ("<=", 2.0),
}


def measure(folder: Path, n_frames: int = N_FRAMES, **network: Any) -> Iterator[Figures]:
    """Yield the figures of each way, then of two workers that are disturbed.

    Parameters
    ----------
    folder : Path
    n_frames : int
    network : Any
        Settings of the network, for example its weights.
    """
    scan = RepeatingScan(n_frames=n_frames, n_pixels=N_PIXELS)
    frames = scan.frames()[scan.numbers()]
    hz = {}
    for way, settings in WAYS.items():
        inferred_s, _, cpu_s = _run(scan, frames, folder / way, network | settings)
        hz[way] = rate_hz(inferred_s)
        yield {f"{way}_hz": hz[way], f"{way}_ms": 1e3 / hz[way]}
        yield {f"{way}_cpu_ms": 1e3 * sum(cpu_s.values()) / n_frames}
    yield {"dispatcher_cpu_ms": 1e3 * cpu_s["inference"] / n_frames}
    yield {f"{way}_over_one": hz[way] / hz["one"] for way in ("threads", "workers")}
    for how, number in (("stopped", signal.SIGSTOP), ("killed", signal.SIGKILL)):
        two = network | WAYS["workers"]
        inferred_s, n_pending, _ = _run(scan, frames, folder / how, two, disturbed_by=number)
        yield {f"{how}_pending": n_pending, f"{how}_gap_s": float(np.diff(inferred_s).max())}


def rate_hz(inferred_s: np.ndarray) -> float:
    """Return frames a second after the first tenth, of the times at which they were done, ascending."""
    steady_s = inferred_s[len(inferred_s) // 10 :]
    return (len(steady_s) - 1) / (steady_s[-1] - steady_s[0])


def _run(
    scan: RepeatingScan,
    frames: np.ndarray,
    folder: Path,
    network: dict[str, Any],
    disturbed_by: signal.Signals | None = None,
) -> tuple[np.ndarray, int, dict[str, float]]:
    """Return when each frame was done, ascending, monotonic seconds; how many never were; what it took.

    The last is the processor time of each process, seconds, from the first frame on.
    """
    run = resolve(run_config(scan, folder, network))
    run = run.model_copy(
        update={"stages": tuple(spec for spec in run.stages if spec.name.startswith(MEASURED))}
    )
    with Supervisor(run) as supervisor:
        supervisor.start()
        before = _cpu_s(supervisor)
        recorded = record_all(run.scans, run.run_id, frames)
        deadline = supervisor.clock() + PATIENCE_S
        while account(recorded, "inference").pending and supervisor.clock() < deadline:
            if disturbed_by is not None and len(recorded.done("inference")) > len(frames) // 3:
                os.kill(supervisor.pid("inference-1"), disturbed_by)
                disturbed_by = None
            supervisor.poll()
        done = recorded.done("inference")
        inferred_s = np.sort(recorded.column("inferred_s").read(done))
        cpu_s = {name: after_s - before[name] for name, after_s in _cpu_s(supervisor).items()}
        return inferred_s, len(frames) - len(done), cpu_s


def _cpu_s(supervisor: Supervisor) -> dict[str, float]:
    return {spec.name: process_cpu_s(supervisor.pid(spec.name)) for spec in supervisor.run.stages}


def run_config(scan: RepeatingScan, folder: Path, network: dict[str, Any], **sections: Any) -> Config:
    """Return a run that makes nothing but patches, with further `sections` of its configuration."""
    geometry = scan.geometry
    return Config.model_validate(
        {
            "geometry": {
                "energy_ev": geometry.energy_ev,
                "detector_distance_m": geometry.detector_distance_m,
                "detector_pixel_m": geometry.detector_pixel_m,
                "n_pixels": geometry.n_pixels,
            },
            "detector": {"address": "tcp://127.0.0.1:1"},
            "positions": {"unit": "um"},
            "probe": {
                "source": "zone_plate",
                "pupil_radius_px": scan.pupil_radius_px,
                "disc_radius_px": scan.disc_radius_px,
                "photons": 4e5,
            },
            "network": {"weights": "demo-fast", "device": "cpu"} | network,
            "refinement": {"enabled": False},
            "viewer": {"enabled": False},
            "live": {"address": "tcp://127.0.0.1:*"},
            "save": folder,
        }
        | sections
    )


def record_all(scans: Path, run_id: str, frames: np.ndarray, positions_m: np.ndarray | None = None) -> Scan:
    """Leave a scan whose frames (frame, row, col) are all recorded, in the folder of a run.

    Without positions (frame, 2) the stitcher, which a run has to have, has no work.
    """
    header = ScanHeader(
        series_id=1,
        series_uid="recorded",
        frame_shape=frames.shape[1:],
        frame_dtype="<u2",
        started_s=0.0,
        run_id=run_id,
        stages=("subscriber", "positions", "inference"),
    )
    scan, numbers = Scan.create(scans / "0000-recorded", header, len(frames)), np.arange(len(frames))
    scan.column("frames", writable=True).write(numbers, frames)
    scan.mark("subscriber", numbers, State.DONE)
    if positions_m is None:
        scan.mark("positions", numbers, State.NO_POSITION)
    else:
        scan.column("positions_m", writable=True).write(numbers, positions_m)
        scan.mark("positions", numbers, State.DONE)
        scan.counters("positions", writable=True)["closed"] = 1
    counters = scan.counters("subscriber", writable=True)
    for name, value in (("announced", len(frames)), ("head", len(frames)), ("ended", 1), ("closed", 1)):
        counters[name] = value
    return scan


BENCHMARK = Benchmark(measure=measure, targets=TARGETS)
