"""How fast the default network runs on a GPU, alone and in the stage that reads and stores frames.

Without a device there are no figures, and the table says so. Also part of `network`.
"""

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from operators.network.predictor import Predictor
from operators.optics.probe import with_power, zone_plate_probe
from stream.record.scan import Scan, ScanHeader, State
from stream.stages.config import GeometryConfig, NetworkConfig
from stream.stages.inference.worker import Inference
from stream.stages.inputs import Optics
from stream.stages.loop import WorkerLoop
from tests.benchmarks.figures import Benchmark, Figures
from tests.benchmarks.network.untrained import SHAPE_32, SHAPE_128, save_untrained

N_ROUNDS = 3
PHOTONS = 4e5
GPU_TARGETS = {
    "gpu_patterns_per_s": (">=", 20_000),
    "gpu_stage_over_bare": (">=", 0.85),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Of what is run, and where: as measured on a GPU unless said otherwise."""

    device: Literal["cpu", "cuda"] = "cuda"
    shape_of_network: dict[str, Any]
    batch_size: int = 512
    n_threads: int = 4
    n_batches: int = 8

    @property
    def n_pixels(self) -> int:
        """Side of a pattern."""
        return int(self.shape_of_network["n_pixels"])

    @property
    def n_frames(self) -> int:
        """Of one measurement."""
        return self.n_batches * self.batch_size


FULL = Sizes(shape_of_network=SHAPE_128)
SMALL = Sizes(device="cpu", shape_of_network=SHAPE_32, batch_size=8, n_batches=2, n_threads=1)


def gpu_figures(folder: Path, sizes: Sizes = FULL) -> Figures:
    """Returns the figures by name, and as "gpu" what they were measured on or why there are none."""
    if sizes.device == "cuda" and not torch.cuda.is_available():
        return {"gpu": "no CUDA device: not measured"}
    stage = _stage(folder, sizes)
    bare = _bare_patterns_per_s(stage, sizes)
    n = sizes.n_pixels
    frames = np.random.default_rng(0).poisson(PHOTONS / n**2, (64, n, n)).astype("<u2")
    rates = [_patterns_per_s(stage, folder / str(i), frames, sizes.n_frames) for i in range(N_ROUNDS)]
    name = torch.cuda.get_device_name() if sizes.device == "cuda" else "the processor, a rehearsal"
    return {
        "gpu_patterns_per_s_bare": bare,
        "gpu_patterns_per_s": statistics.median(rates),
        "gpu_stage_over_bare": statistics.median(rates) / bare,
        "gpu": f"{name}, {n} x {n} pixels, batches of {sizes.batch_size}, "
        f"{sizes.n_threads} threads store patches",
    }


def _stage(folder: Path, sizes: Sizes) -> Inference:
    n = sizes.n_pixels
    weights = save_untrained(folder / "weights.safetensors", sizes.shape_of_network)
    probe = with_power(zone_plate_probe(n, 12 / 64 * n, 14 / 64 * n)[None], PHOTONS).astype(np.complex64)
    np.save(folder / "probe.npy", probe)
    geometry = GeometryConfig(energy_ev=9000.0, detector_distance_m=1.0, detector_pixel_m=75e-6, n_pixels=n)
    config = NetworkConfig(
        weights=weights, batch_size=sizes.batch_size, device=sizes.device, threads=sizes.n_threads
    )
    return Inference(config, Optics(geometry, folder / "probe.npy"))


def _bare_patterns_per_s(stage: Inference, sizes: Sizes) -> float:
    """Returns the rate of the network alone: patterns are on the device, and the results stay there."""
    predictor = stage.before.predictor
    assert isinstance(predictor, Predictor)
    shape = sizes.batch_size, sizes.n_pixels, sizes.n_pixels
    batch = torch.rand(shape, device=sizes.device) / sizes.n_pixels**2
    wait = torch.cuda.synchronize if sizes.device == "cuda" else lambda: None
    rates = []
    with torch.inference_mode():
        for _ in range(N_ROUNDS + 1):
            wait()
            start = time.perf_counter()
            for _ in range(sizes.n_batches):
                predictor._run(batch)
            wait()
            rates.append(sizes.n_frames / (time.perf_counter() - start))
    return statistics.median(rates[1:])


def _patterns_per_s(stage: Inference, scans: Path, frames: np.ndarray, n_frames: int) -> float:
    """Returns the rate from recorded frames to stored patches, all of them being there from the start."""
    header = ScanHeader(
        series_id=0, series_uid="gpu", frame_shape=frames.shape[1:], frame_dtype="<u2", started_s=0.0
    )
    scan = Scan.create(scans / "0000-gpu", header, n_frames)
    numbers = np.arange(n_frames)
    scan.column("frames", writable=True).write(numbers, frames[numbers % len(frames)])
    scan.counters("subscriber", writable=True)["head"] = n_frames
    scan.mark("subscriber", numbers, State.DONE)
    scan.counters("subscriber", writable=True)["closed"] = 1
    loop = WorkerLoop(stage, scans)
    start = time.perf_counter()
    while not scan.count("inference", "closed"):
        loop.turn()
    seconds = time.perf_counter() - start
    n_done = int((scan.states("inference") == State.DONE).sum())
    if n_done != n_frames:
        raise RuntimeError(f"{n_done} of {n_frames} frames have a patch")
    return n_frames / seconds


def measure(folder: Path) -> Iterator[Figures]:
    """Yield the figures; the scans of some GB lie in `folder`."""
    yield gpu_figures(folder)


def rehearse(folder: Path) -> Iterator[Figures]:
    """Yield the same figures of a few small patterns on the processor."""
    yield gpu_figures(folder, SMALL)


BENCHMARK = Benchmark(measure=measure, rehearse=rehearse, targets=GPU_TARGETS)
