"""The whole pipeline beside a simulated beamline: is every frame there, how late is the image, how good.

The demo's own processes and wires at 100 Hz, 64 x 64 pixels, once for every family of samples: those of the
network's training (other specimens) and those it has never seen. The refined object is judged two seconds
after the last frame, against the truth and against 200 epochs of offline reconstruction of the very same
recorded frames from a flat start; the image of a client, then and later, against the mosaic of all frames.
Counts are sums, errors medians, latencies and what is called worst or published the worst of all scans; every
scan's own figures are in `by_sample`.

`floor_ms` is what settings and machine make of time to image without a pipeline: a batch's deadline, its time
in the bare network, measured before the scans with what the stage runs, and the shortest time between two
images. Latencies over it hold on any machine.
"""

import math
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from launch.beamline.accuracy import error_of
from launch.beamline.simulation import SimulatedScan, simulate_scan
from launch.commands.demo import DemoOptions, demo_config, run_demo
from launch.config.config import Config
from launch.config.file import load_config
from launch.config.probe import known_probe
from launch.offline.reconstruct import reconstruct
from launch.offline.recorded import open_recorded
from launch.offline.task import options_for
from launch.results.reconstruction import Reconstruction
from operators.engine.config import RefinerSnapshot
from operators.geometry import Bounds
from operators.optics.samples import FAMILIES, HELD_OUT_FAMILIES
from stream.client import LiveReconstruction
from stream.files.weights import load_network
from stream.live.image import LiveImage
from stream.record.scan import Scan
from stream.record.snapshot import read_snapshot
from stream.stages.inference.predictors import build_predictor, torch_device
from tests.benchmarks.figures import Benchmark, Figures
from tests.benchmarks.network.threads import torch_threads

RATE_HZ, N_FRAMES = 100.0, 625
AFTER_S = 2.0
OFFLINE_EPOCHS = 200
N_TRIALS = 30
SAMPLES = (*FAMILIES, *HELD_OUT_FAMILIES)
SUMS = tuple(f"frames_{what}" for what in ("expected", "recorded", "inferred", "refined", "lost", "pending"))
WORST = {
    "time_to_mosaic_ms_p50": "time_to_image_ms_p50",
    "time_to_mosaic_ms_p99": "time_to_image_ms_p99",
    "time_to_refined_ms_p50": "time_to_refined_ms_p50",
    "time_to_refined_ms_p99": "time_to_refined_ms_p99",
    "c_refined_over_offline_worst": "c_refined_over_offline",
    "c_published_over_mosaic": "c_published_over_mosaic",
    "c_published_later_over_mosaic": "c_published_later_over_mosaic",
}
MEDIANS = ("c_mosaic", "c_refined", "c_constant", "c_offline", "c_refined_over_offline", "epochs_refined")
TARGETS = {
    "frames_lost": ("<=", 0),
    "frames_pending": ("<=", 0),
    "time_to_mosaic_ms_p50": ("<=", 80),
    "time_to_mosaic_ms_p99": ("<=", 220),
    "p50_over_floor": ("<=", 1.3),
    "p99_over_floor": ("<=", 3.0),
    "c_refined_over_offline_worst": ("<=", 1.10),
    "c_published_over_mosaic": ("<=", 1.02),
    "c_published_later_over_mosaic": ("<=", 1.02),
}
COLUMNS = (
    "c_mosaic",
    "c_published",
    "c_published_later_over_mosaic",
    "c_refined",
    "c_offline",
    "c_refined_over_offline",
    "time_to_image_ms_p99",
)


class SnapshotLater:
    """Takes the refined object that was published at a given time after the last frame."""

    def __init__(self, n_frames: int, after_s: float) -> None:
        self._n_frames, self._after_s = n_frames, after_s
        self.snapshot: RefinerSnapshot | None = None

    def look(self, scan: Scan) -> None:
        """Keep the newest snapshot until the time has come; later ones do not count."""
        if not _is_past(scan, self._n_frames, self._after_s):
            self.snapshot = read_snapshot(scan.folder) or self.snapshot


class ImagesLater:
    """Judges the image that a client has at a given time after the last frame, and those that follow.

    Attributes
    ----------
    errors : list of float
        `c` of each.
    """

    def __init__(self, client: LiveReconstruction, truth: SimulatedScan, after_s: float) -> None:
        self._client, self._truth, self._after_s = client, truth, after_s
        self._image: LiveImage | None = None
        self.errors: list[float] = []

    def look(self, scan: Scan) -> None:
        """Take what is new."""
        image = self._client.poll()
        self._image = image or self._image
        is_due = _is_past(scan, len(self._truth.frames), self._after_s)
        if self._image is not None and is_due and (image is not None or not self.errors):
            (top, left), (height, width) = self._image.origin_px, self._image.shape
            shown = np.where(self._image.coverage, self._image.object, np.complex64(1))
            bounds = Bounds(top, left, top + height, left + width)
            self.errors.append(error_of(shown, bounds, self._truth).c)


def _is_past(scan: Scan, n_frames: int, after_s: float) -> bool:
    """Return whether the last frame came longer ago."""
    if scan.count("subscriber", "head") < n_frames:
        return False
    last_s = float(scan.column("received_s").read([n_frames - 1])[0])
    return bool(last_s) and time.monotonic() > last_s + after_s


def measure(folder: Path, samples: tuple[str, ...] = SAMPLES) -> Iterator[Figures]:
    """Yield the floor, the figures of every scan as `by_sample`, then those over all."""
    console, by_sample = Console(), {}
    floor = floor_ms(load_config("demo"))
    yield {"floor_ms": floor}
    for sample in samples:
        console.print(f"sample {sample}")
        by_sample[sample] = _scan(sample, folder / sample, console)
        yield {"by_sample": by_sample}
    yield (over_all := summary(by_sample))
    yield {f"{p}_over_floor": over_all[f"time_to_mosaic_ms_{p}"] / floor for p in ("p50", "p99")}


def floor_ms(config: Config) -> float:
    """Return the time to image that settings and network alone would make, ms.

    The batch is of the frames that come within its deadline.
    """
    network, probe = config.network, known_probe(config.probe, config.geometry.n_pixels)
    assert network.weights is not None and probe is not None
    n_frames = min(network.batch_size, math.ceil(network.deadline_s * RATE_HZ) + 1)
    patterns = np.zeros((n_frames, *probe.shape[1:]), np.float32)
    with torch_threads(network.threads):
        device = torch_device(network.device)
        predictor = build_predictor(load_network(network.weights)[0], probe, network, device=device)
        predictor.warm_up()
        durations_s = []
        for _ in range(N_TRIALS):
            start = time.perf_counter()
            predictor.submit(patterns)()
            durations_s.append(time.perf_counter() - start)
    return 1e3 * (network.deadline_s + statistics.median(durations_s) + config.live.interval_s)


def summary(by_sample: Mapping[str, Mapping[str, Any]]) -> Figures:
    """Return the figures over all scans: sums of counts, worst latencies, median errors."""
    scans = by_sample.values()
    figures: Figures = {"offered_hz": RATE_HZ}
    figures |= {name: sum(scan[name] for scan in scans) for name in SUMS}
    figures |= {name: max(scan[own] for scan in scans) for name, own in WORST.items()}
    return figures | {name: statistics.median(scan[name] for scan in scans) for name in MEDIANS}


def _scan(sample: str, folder: Path, console: Console) -> Figures:
    options = DemoOptions(
        save=folder, rate_hz=RATE_HZ, n_frames=N_FRAMES, sample=sample, seed=7, stores=False
    )
    truth = simulate_scan(options.simulation)
    later = SnapshotLater(len(truth.frames), AFTER_S)
    config = demo_config(options)
    with LiveReconstruction(config.live.address, follow=True) as client:
        images = ImagesLater(client, truth, AFTER_S)

        def look(scan: Scan) -> None:
            later.look(scan)
            images.look(scan)

        figures = run_demo(options, config, console, on_scan=look)
    if later.snapshot is None:
        raise RuntimeError(f"refinement had published nothing {AFTER_S} s after the last frame")
    offline = _offline(config.save / "scans" / figures["scan"], config)
    figures["c_refined_at_the_end"] = figures["c_refined"]
    figures["c_refined"] = error_of(later.snapshot.object, later.snapshot.bounds, truth).c
    figures["epochs_refined"] = later.snapshot.epoch
    figures["c_published"] = images.errors[0]
    figures["c_published_over_mosaic"] = images.errors[0] / figures["c_mosaic"]
    figures["c_published_later_over_mosaic"] = max(images.errors) / figures["c_mosaic"]
    figures["c_offline"] = error_of(offline.object, offline.bounds, truth).c
    figures["c_refined_over_offline"] = figures["c_refined"] / figures["c_offline"]
    return figures


def _offline(folder: Path, config: Config) -> Reconstruction:
    with open_recorded(str(folder)) as scan:
        options = options_for(scan, {}, epochs=OFFLINE_EPOCHS, scale_probe=config.probe.scale)
        return reconstruct(scan, options, preprocess=scan.preprocess() if scan.preprocess else None)


BENCHMARK = Benchmark(measure=measure, targets=TARGETS, columns={"by_sample": COLUMNS})
