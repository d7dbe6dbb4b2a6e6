"""How fast the engine is on a CUDA device, and that it computes there what the reference does.

Without a device there are no figures, and the table says so. Takes two minutes; also part of `engines`.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from operators.arrays import ArrayModule, to_numpy
from operators.engine.backends import Backend, get_backend
from operators.engine.config import RefinerConfig
from operators.engine.epie import Accumulators, Batch, Steps, update
from operators.engine.frame_store import FrameStore
from operators.engine.refiner import Refiner
from operators.optics.forward import simulate_counts
from tests.benchmarks.engines.data import MARGIN, N_PIXELS, STEP, discs, make_probes
from tests.benchmarks.engines.engine_scan import EngineScan
from tests.benchmarks.figures import Benchmark, Figures

TILE = 256  # pixels after which the object repeats
N_ROUNDS, N_COMPARED = 5, 3
N_EPOCHS = 20
# What an H200's shared memory, L2 and fp32 units allow at best for 128 x 128 pixels and one mode.
LIMIT_PER_S = 1e7
GPU_TARGETS = {
    "gpu_updates_per_s_batched": (">=", 1e6),
    "gpu_updates_per_s_fused": (">=", 2.5e6),
    "gpu_equal_to_reference": ("<=", 1e-3),
    "gpu_20_epochs_2000_frames_s": ("<=", 0.1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Of what is run, and on which backends: as measured on a GPU unless said otherwise.

    Attributes
    ----------
    batched, fused, best : str
        Names of backends (`operators.engine.backends`): the two that are compared with the reference, and the
        one that epochs are timed on.
    sides : (int, int)
        Positions of the scan in y and in x.
    batch_size, large_batch_size : int
        One frame for each multiprocessor of an H100 or H200, or four: with fewer, Python is slower than the
        device.
    n_batches : int
        Of one measurement.
    """

    batched: str = "cupy"
    fused: str = "cupy-fused"
    best: str = "auto"
    sides: tuple[int, int] = (50, 40)
    batch_size: int = 132
    large_batch_size: int = 528
    n_batches: int = 200


FULL = Sizes()
SMALL = Sizes(
    batched="numpy", fused="numpy", best="numpy", sides=(4, 3), batch_size=4, large_batch_size=8, n_batches=1
)


class Bench:
    """One object, probe and set of frames on a backend, updated batch after batch of random frames."""

    def __init__(
        self, scan: EngineScan, xp: ArrayModule, run_update: Callable[..., Any], batch_size: int
    ) -> None:
        self._run_update, self._corners, self._batch_size = run_update, scan.corners, batch_size
        self._store = FrameStore(N_PIXELS, None, xp)
        self._store.put(range(len(scan.corners)), scan.patterns, scan.corners.astype(float))
        self._rng = np.random.default_rng(0)
        # Scatters everywhere: where nothing arrives, the phase, and so the correction, is rounding alone.
        noise = self._rng.standard_normal((2, *scan.truth.shape))
        self.object = xp.asarray((1 + 0.3 * (noise[0] + 1j * noise[1])).astype(np.complex64))
        self.probe, self._sums = xp.array(scan.probe[None]), Accumulators(scan.truth.shape, xp)
        self._photons = float((np.abs(scan.probe) ** 2).sum())

    def batches(self, n_batches: int) -> list[np.ndarray]:
        """Returns the slots of frames."""
        n_frames = len(self._corners)
        return [self._rng.choice(n_frames, self._batch_size, replace=False) for _ in range(n_batches)]

    def run(self, batches: list[np.ndarray]) -> None:
        """Updates with these frames; the device may not be done when it returns."""
        steps = Steps(object_step=1, probe_step=1, alpha=0.5, probe_photons=self._photons)
        weights = np.ones(self._batch_size, np.float32)
        for slots in batches:
            batch = Batch(self._store.select(slots), self._corners[slots], weights)
            self._run_update(self.object, self.probe, batch, steps, self._sums)

    def wait(self) -> None:
        """Returns when the device has done everything."""
        to_numpy(self.probe)

    def updates_per_s(self, n_batches: int) -> float:
        """Returns the median over rounds of so many batches, with what Python does for each."""
        self.run(self.batches(N_COMPARED))  # compiles, and captures the graph
        rates = []
        for _ in range(N_ROUNDS):
            batches = self.batches(n_batches)
            self.wait()
            start = time.perf_counter()
            self.run(batches)
            self.wait()
            rates.append(n_batches * self._batch_size / (time.perf_counter() - start))
        return statistics.median(rates)


def gpu_figures(sizes: Sizes = FULL) -> Figures:
    """Returns the figures by name, and as "gpu" what they were measured on or why there are none."""
    try:
        batched, fused = get_backend(sizes.batched), get_backend(sizes.fused)
    except ValueError:
        return {"gpu": "no CUDA device: not measured"}
    scan = _make_scan(sizes.sides)
    figures: Figures = {}
    for name, backend in (("batched", batched), ("fused", fused)):
        for size in (sizes.batch_size, sizes.large_batch_size):
            bench = Bench(scan, *backend[1:], size)
            figures[f"gpu_updates_per_s_{name}_{size}"] = bench.updates_per_s(sizes.n_batches)
        figures[f"gpu_updates_per_s_{name}"] = figures[f"gpu_updates_per_s_{name}_{sizes.large_batch_size}"]
    best = max(figures["gpu_updates_per_s_batched"], figures["gpu_updates_per_s_fused"])
    difference = max(_difference(scan, backend, sizes.batch_size) for backend in (batched, fused))
    return figures | {
        "gpu_fraction_of_limit": best / LIMIT_PER_S,
        "gpu_equal_to_reference": difference,
        "gpu_20_epochs_2000_frames_s": _seconds_of_epochs(scan, get_backend(sizes.best), sizes.batch_size),
        "gpu_20_epochs_2000_frames_s_batched": _seconds_of_epochs(scan, batched, sizes.batch_size),
        "gpu": f"{_device_name(batched.xp)}, batches of {sizes.large_batch_size}, in epochs of "
        f"{sizes.batch_size}; the limit, from memory traffic and arithmetic of an H200, is taken as "
        f"{LIMIT_PER_S:.0e} updates/s",
    }


def _difference(scan: EngineScan, backend: Backend, batch_size: int) -> float:
    """Returns the largest difference of object or probe from the reference, over the largest value."""
    benches = Bench(scan, np, update, batch_size), Bench(scan, *backend[1:], batch_size)
    for bench in benches:
        bench.run(bench.batches(N_COMPARED))
    expected, found = (tuple(map(to_numpy, (bench.object, bench.probe))) for bench in benches)
    return max(float(abs(a - b).max() / abs(a).max()) for a, b in zip(expected, found, strict=True))


def _seconds_of_epochs(scan: EngineScan, backend: Backend, batch_size: int) -> float:
    """Returns what refining takes from the first update to the last, frames being held already."""
    for n_epochs in (1, N_EPOCHS):  # the first loads what a process loads once
        refiner = Refiner(
            RefinerConfig(batch_size=batch_size), scan.probe[None], xp=backend.xp, run_update=backend.update
        )
        refiner.append(range(len(scan.corners)), scan.patterns, scan.corners.astype(float))
        to_numpy(refiner.probe)
        start = time.perf_counter()
        while refiner.epoch < n_epochs:
            refiner.step()
        error = refiner.error  # waits for the device
        seconds = time.perf_counter() - start
    if not error < 0.05:
        raise RuntimeError(f"refinement on {backend.name} does not explain the data: amplitude error {error}")
    return seconds


def _make_scan(sides: tuple[int, int]) -> EngineScan:
    rng = np.random.default_rng(0)
    size = N_PIXELS + STEP * (max(sides) - 1) + 2 * MARGIN
    # The same again and again: drawing discs takes longer than all that is measured.
    tiles = (discs(TILE, np.random.default_rng(seed)) for seed in (0, 1))
    amplitude, phase = (np.tile(tile, (-(-size // TILE),) * 2)[:size, :size] for tile in tiles)
    truth = ((0.7 + 0.3 * amplitude) * np.exp(1.5j * phase)).astype(np.complex64)
    grid = STEP * np.indices(sides).reshape(2, -1).T
    corners = (grid + rng.integers(-2, 3, grid.shape) + MARGIN).astype(np.int64)
    true_probe, start = make_probes()
    patterns = simulate_counts(truth, true_probe[None], corners, rng).astype(np.float32)
    start *= np.float32(np.sqrt(patterns.sum(axis=(1, 2)).max() / np.sum(np.abs(start) ** 2)))
    return EngineScan(truth, start, corners, patterns)


def _device_name(xp: Any) -> str:
    if xp is np:
        return "the processor, a rehearsal"
    return str(xp.cuda.runtime.getDeviceProperties(xp.cuda.Device().id)["name"].decode())


def measure(folder: Path) -> Iterator[Figures]:
    """Yield the figures; nothing is written to `folder`."""
    yield gpu_figures()


def rehearse(folder: Path) -> Iterator[Figures]:
    """Yield the same figures of a few frames in NumPy; nothing is written to `folder`."""
    yield gpu_figures(SMALL)


BENCHMARK = Benchmark(measure=measure, rehearse=rehearse, targets=GPU_TARGETS)
