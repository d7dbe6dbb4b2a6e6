"""How fast this engine is, and how far it gets, beside others on the same data from the same start.

Every engine runs in a process of its own, in the environment that has it, and all are asked for an epoch in
turns: whatever else the computer does disturbs all alike. Speeds are ratios of neighbours in time; those on
one core compare processor time, those on all cores wall time. An engine that is not installed is named and
left out; `requirements-peers.txt` has them, best in an environment of their own, named by
PTYCHOSTREAM_PEERS, since their dependencies exclude each other's.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from tests.benchmarks.engines.data import EngineScan, error, make_scan
from tests.benchmarks.engines.gpu import GPU_TARGETS, gpu_figures
from tests.benchmarks.engines.growing import growing_figures
from tests.benchmarks.engines.memory import memory_figures
from tests.benchmarks.engines.peers import PEERS
from tests.benchmarks.engines.recorded import recorded_figures
from tests.benchmarks.engines.tiles import tiles_figures
from tests.benchmarks.figures import Benchmark, Figures

WORKER = "tests.benchmarks.engines.worker"
OURS = "ptychostream"
REFERENCE = "reference"
OWN = ("numpy", OURS, REFERENCE)
N_ROUNDS = 7
STOPS = (5, 10, 20, 35, 50)  # epochs after which peers are judged
OUR_STOPS = (*range(10, 31, 2), 50, 200)
ENOUGH = 0.065  # error that time is measured to
TARGETS = {
    "speed_vs_numpy": (">=", 2.2),
    "speed_vs_numpy_all_cores": (">=", 3.5),
    "speed_vs_ptylab": (">=", 5),
    "speed_vs_cdtools": (">=", 6),
    "speed_vs_ptychi": (">=", 15),
    "nrmse_50": ("<=", 0.060),
    "nrmse_200": ("<=", 0.046),
    "time_to_error_vs_best_peer": ("<=", 0.25),
    "tiles_error_over_serial": ("<=", 1.10),
    "growing_over_offline": ("<=", 1.03),
    "memory_20000_frames_gb": ("<=", 3),
    "siemens_error_40": ("<=", 0.0115),
    "siemens_frc_half": (">=", 0.22),
    "siemens_frc_one_seventh": (">=", 0.29),
    "siemens_phase_correlation": (">=", 0.98),
    "siemens_positions_px": ("<=", 0.8),
} | GPU_TARGETS


@dataclass
class Worker:
    """An engine in its process; a context manager that ends it."""

    name: str
    scan: Path
    threads: int = 1
    epochs: int = 0
    cpu_s: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        python = sys.executable if self.name in OWN else os.environ.get("PTYCHOSTREAM_PEERS", "")
        variables = "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"
        self._process = subprocess.Popen(
            [python or sys.executable, "-m", WORKER, self.name, str(self.scan)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ
            | dict.fromkeys(variables, str(self.threads))
            | {"TQDM_DISABLE": "1", "PYTHONPATH": str(Path(__file__).parents[3])},
        )
        self.about = self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with self._process:
            if self._process.stdin:
                self._process.stdin.close()

    @property
    def is_missing(self) -> bool:
        return "missing" in self.about

    def run(self, n_epochs: int) -> dict[str, float]:
        """Returns wall and processor seconds of one of these epochs."""
        times = self._ask(f"run {n_epochs}")
        self.epochs, self.cpu_s = self.epochs + n_epochs, self.cpu_s + times["cpu_s"]
        return {name: seconds / n_epochs for name, seconds in times.items()}

    def judge(self, scan: EngineScan) -> float:
        """Returns the error now, and notes it with the processor time it took."""
        path = self.scan.with_name(f"{self.name}.npy")
        origin = self._ask(f"save {path}")["origin"]
        value = error(np.pad(np.load(path), 16, mode="edge"), (origin[0] + 16, origin[1] + 16), scan)
        self.curve.append({"epochs": self.epochs, "cpu_s": self.cpu_s, "nrmse": value})
        return value

    def cpu_s_to(self, enough: float) -> float:
        """Returns the processor time at the first judgement of an error that small, infinite before."""
        return min((at["cpu_s"] for at in self.curve if at["nrmse"] <= enough), default=float("inf"))

    def _ask(self, task: str) -> Any:
        assert self._process.stdin
        self._process.stdin.write(task + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the engine {self.name} ended with exit status {self._process.wait()}")
        return json.loads(line)


def measure(folder: Path) -> Iterator[Figures]:
    """Yield the figures of all engines, then those of this one alone."""
    scan, path = make_scan(), folder / "scan.npz"
    scan.save(path)
    with ExitStack() as stack:

        def start(name: str, threads: int = 1) -> Worker:
            return stack.enter_context(Worker(name, path, threads))

        workers = {name: start(name) for name in (*OWN, *PEERS)}
        present = {name: worker for name, worker in workers.items() if not worker.is_missing}
        yield _speeds(present, start(OURS, len(os.sched_getaffinity(0))))
        yield _errors(present, scan, start(OURS))
        yield {
            "engines": {name: worker.about | {"curve": worker.curve} for name, worker in workers.items()},
            "missing": sorted(set(workers) - set(present)),
        }
    yield growing_figures(scan) | memory_figures(path)
    yield tiles_figures(scan, folder)
    yield recorded_figures()
    yield gpu_figures()


def _speeds(workers: dict[str, Worker], on_all_cores: Worker) -> dict[str, float]:
    rounds: list[dict[str, dict[str, float]]] = []
    for _ in range(N_ROUNDS + 1):
        times = {name: worker.run(1) for name, worker in workers.items()}
        rounds.append(times | {"all cores": on_all_cores.run(1)})
    rounds = rounds[1:]  # the first pays for imports and caches

    def ratio(name: str, ours: str, clock: str) -> float:
        return statistics.median(times[name][clock] / times[ours][clock] for times in rounds)

    figures = {f"speed_vs_{name}": ratio(name, OURS, "cpu_s") for name in workers if name != OURS}
    figures["speed_vs_numpy_all_cores"] = ratio("numpy", "all cores", "wall_s")
    figures["updates_per_cpu_s"] = 400 / statistics.median(times[OURS]["cpu_s"] for times in rounds)
    return figures


def _errors(workers: dict[str, Worker], scan: EngineScan, ours: Worker) -> dict[str, float]:
    for name, worker in workers.items():
        if name in PEERS or name == "numpy":
            _follow(worker, scan, STOPS)
    values = dict(zip(OUR_STOPS, _follow(ours, scan, OUR_STOPS), strict=True))
    figures = {"nrmse_20": values[20], "nrmse_50": values[50], "nrmse_200": values[200]}
    figures |= {f"nrmse_50_{name}": w.curve[-1]["nrmse"] for name, w in workers.items() if w.curve}
    figures["cpu_s_to_error"] = ours.cpu_s_to(ENOUGH)
    # A peer that is not there yet at the last stop has taken at least that long.
    spent = [min(w.cpu_s_to(ENOUGH), w.cpu_s) for name, w in workers.items() if name in PEERS]
    if spent:
        figures["time_to_error_vs_best_peer"] = figures["cpu_s_to_error"] / min(spent)
    workers[OURS].curve = ours.curve
    return figures


def _follow(worker: Worker, scan: EngineScan, stops: tuple[int, ...]) -> list[float]:
    values = []
    for stop in stops:
        if stop > worker.epochs:
            worker.run(stop - worker.epochs)
        values.append(worker.judge(scan))
    return values


BENCHMARK = Benchmark(
    measure=measure, targets=TARGETS, columns={"engines": ("version", "settings", "missing")}
)
