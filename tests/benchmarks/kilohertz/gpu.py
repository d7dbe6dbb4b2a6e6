"""A live run at 2 kHz of 128 x 128 pixels, end to end, with network and refinement on the GPU.

The network has random weights: its speed is that of a trained one, what it sees means nothing, and only the
refined object could be judged. Fails, with its figures written, where the run did not come to its end.
"""

from collections.abc import Iterator
from pathlib import Path

from launch.run.processes import RunFailedError
from tests.benchmarks.figures import Benchmark, Figures
from tests.benchmarks.kilohertz.live import LiveRun, run_live
from tests.benchmarks.kilohertz.scan import RepeatingScan
from tests.benchmarks.network.untrained import SHAPE_32, SHAPE_128, save_untrained

RATE_HZ, N_FRAMES = 2000.0, 20_000
PATIENCE_S = 60.0
GPU = {
    "network": {"device": "cuda", "batch_size": 64, "deadline_s": 0.01, "threads": 4},
    "refinement": {"device": "cupy-fused", "batch_size": 132, "algorithm": "epie", "probe_step": 0},
}
CPU = {
    "network": {"device": "cpu", "batch_size": 8},
    "refinement": {"device": "numpy", "epochs": 2.0, "algorithm": "epie", "probe_step": 0},
}
TARGETS = {
    "frames_lost": ("<=", 0),
    "frames_pending": ("<=", 0),
    "time_to_image_ms_p50": ("<=", 20),
    "time_to_image_ms_p99": ("<=", 50),
}


def measure(folder: Path) -> Iterator[Figures]:
    """Yield the figures of the run; fails after that if it did not come to its end."""
    weights = save_untrained(folder / "untrained.safetensors", SHAPE_128)
    scan = RepeatingScan(n_frames=N_FRAMES)
    run = LiveRun(
        scan=scan, rate_hz=RATE_HZ, weights=weights, settings=GPU, positions="file", patience_s=PATIENCE_S
    )
    yield from _measured(run, folder)


def rehearse(folder: Path) -> Iterator[Figures]:
    """Yield the same figures of a slow run of small frames on the processor."""
    weights = save_untrained(folder / "untrained.safetensors", SHAPE_32)
    scan = RepeatingScan(n_frames=200, n_pixels=32)
    run = LiveRun(scan=scan, rate_hz=50.0, weights=weights, settings=CPU, positions="file")
    yield from _measured(run, folder)


def _measured(run: LiveRun, folder: Path) -> Iterator[Figures]:
    figures = run_live(run, folder / "live")
    yield figures
    if figures["why"]:
        raise RunFailedError(figures["why"])


BENCHMARK = Benchmark(measure=measure, rehearse=rehearse, targets=TARGETS)
