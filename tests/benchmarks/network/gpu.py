"""How fast the default network runs on a GPU, alone and in the stage that reads and stores frames.

Without a device there are no figures, and the table says so. Also part of `network`.
"""

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from operators.network.predictor import Predictor
from operators.network.registry import NETWORKS
from operators.optics.probe import with_power, zone_plate_probe
from stream.files.weights import save_network
from stream.record.scan import Scan, ScanHeader, State
from stream.stages.config import GeometryConfig, NetworkConfig
from stream.stages.inference import Inference
from stream.stages.inputs import Optics
from stream.stages.loop import WorkerLoop
from tests.benchmarks.figures import Benchmark, Figures
from tests.helpers.operators.networks import untrained_card

N_PIXELS = 128
# The shape of the demo's network, for windows of twice the side; speed does not depend on the weights.
SHAPE_OF_NETWORK = {"n_pixels": N_PIXELS, "crop": 80, "n_last_steps": 3}
BATCH_SIZE = 512
N_THREADS = 4
N_FRAMES = 8 * BATCH_SIZE
N_ROUNDS = 3
PHOTONS = 4e5
GPU_TARGETS = {
    "gpu_patterns_per_s": (">=", 20_000),
    "gpu_stage_over_bare": (">=", 0.85),
}


def gpu_figures(folder: Path) -> Figures:
    """Returns the figures by name, and as "gpu" what they were measured on or why there are none."""
    if not torch.cuda.is_available():
        return {"gpu": "no CUDA device: not measured"}
    stage = _stage(folder)
    bare = _bare_patterns_per_s(stage)
    frames = np.random.default_rng(0).poisson(PHOTONS / N_PIXELS**2, (64, N_PIXELS, N_PIXELS))
    rates = [_patterns_per_s(stage, folder / str(i), frames.astype("<u2")) for i in range(N_ROUNDS)]
    return {
        "gpu_patterns_per_s_bare": bare,
        "gpu_patterns_per_s": statistics.median(rates),
        "gpu_stage_over_bare": statistics.median(rates) / bare,
        "gpu": f"{torch.cuda.get_device_name()}, {N_PIXELS} x {N_PIXELS} pixels, batches of {BATCH_SIZE}, "
        f"{N_THREADS} threads store patches",
    }


def _stage(folder: Path) -> Inference:
    torch.manual_seed(0)
    network = NETWORKS["physics"](**SHAPE_OF_NETWORK)
    network.largest_intensity.fill_(1.0)  # as if training had shown it any pattern
    save_network(folder / "weights.safetensors", network, untrained_card(SHAPE_OF_NETWORK))
    probe = with_power(zone_plate_probe(N_PIXELS, 24.0, 28.0)[None], PHOTONS).astype(np.complex64)
    np.save(folder / "probe.npy", probe)
    geometry = GeometryConfig(
        energy_ev=9000.0, detector_distance_m=1.0, detector_pixel_m=75e-6, n_pixels=N_PIXELS
    )
    return Inference(
        NetworkConfig(
            weights=folder / "weights.safetensors",
            batch_size=BATCH_SIZE,
            device="cuda",
            threads=N_THREADS,
        ),
        Optics(geometry, folder / "probe.npy"),
    )


def _bare_patterns_per_s(stage: Inference) -> float:
    """Returns the rate of the network alone: patterns are on the GPU, and the results stay there."""
    predictor = stage.before.predictor
    assert isinstance(predictor, Predictor)
    batch = torch.rand(BATCH_SIZE, N_PIXELS, N_PIXELS, device="cuda") / N_PIXELS**2
    rates = []
    with torch.inference_mode():
        for _ in range(N_ROUNDS + 1):
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(N_FRAMES // BATCH_SIZE):
                predictor._run(batch)
            torch.cuda.synchronize()
            rates.append(N_FRAMES / (time.perf_counter() - start))
    return statistics.median(rates[1:])


def _patterns_per_s(stage: Inference, scans: Path, frames: np.ndarray) -> float:
    """Returns the rate from recorded frames to stored patches, all of them being there from the start."""
    header = ScanHeader(
        series_id=0, series_uid="gpu", frame_shape=frames.shape[1:], frame_dtype="<u2", started_s=0.0
    )
    scan = Scan.create(scans / "0000-gpu", header, N_FRAMES)
    numbers = np.arange(N_FRAMES)
    scan.column("frames", writable=True).write(numbers, frames[numbers % len(frames)])
    scan.counters("subscriber", writable=True)["head"] = N_FRAMES
    scan.mark("subscriber", numbers, State.DONE)
    scan.counters("subscriber", writable=True)["closed"] = 1
    loop = WorkerLoop(stage, scans)
    start = time.perf_counter()
    while not scan.count("inference", "closed"):
        loop.turn()
    seconds = time.perf_counter() - start
    n_done = int((scan.states("inference") == State.DONE).sum())
    if n_done != N_FRAMES:
        raise RuntimeError(f"{n_done} of {N_FRAMES} frames have a patch")
    return N_FRAMES / seconds


def measure(folder: Path) -> Iterator[Figures]:
    """Yield the figures; the scans of some GB lie in `folder`."""
    yield gpu_figures(folder)


BENCHMARK = Benchmark(measure=measure, targets=GPU_TARGETS)
