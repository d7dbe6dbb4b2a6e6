"""Is the image ever worse for being refined, on a slow machine and on a fast one.

One process and no socket: simulated scans of every family pass through refinement and stitcher, whose clock
stands still but for the updates that are run and the wait for frames. A slow machine is one of few updates a
second, so the figures are the same wherever they are measured.
"""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from launch.beamline.accuracy import WELL_LIT, on_truth
from launch.beamline.simulation import SimulatedScan, Simulation, simulate_scan
from launch.config.config import Config
from launch.config.file import load_config
from launch.config.probe import known_probe
from operators.arrays import Array, Object, Probe, abs2, corner_origin
from operators.engine.backends import Backend
from operators.engine.config import RefinerConfig
from operators.engine.epie import Batch
from operators.geometry import Bounds, window_corners
from operators.metrics.errors import nrmse
from operators.mosaic.mosaic import Mosaic
from operators.mosaic.stitching import stitch
from operators.patches import add_patches, widened
from operators.reconstruct import reconstruct
from stream.files.weights import load_network
from stream.live.image import LiveImage
from stream.record.scan import Scan, ScanHeader, State
from stream.record.snapshot import read_snapshot
from stream.stages.inference.predictors import build_predictor
from stream.stages.inputs import ImageOrigin, Optics
from stream.stages.loop import WorkerLoop
from stream.stages.refinement.worker import Refinement
from stream.stages.stitching.worker import Stitcher
from tests.benchmarks.figures import Benchmark, Figures
from tests.benchmarks.live import AFTER_S, OFFLINE_EPOCHS, RATE_HZ, SAMPLES
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.stitcher_client import Watcher

UPDATES_HZ = (4_000.0, 16_000.0)
NETWORK_S = 0.1  # from a frame to its patch
LOOKS_EVERY_S = 0.5
WORST = ("while_scanning", "two_s_after", "later", "refined_over_offline", "result_over_offline")
NEVER_WORSE = ("while_scanning", "two_s_after", "later")
TARGETS = {f"{name}_{hz:g}": ("<=", 1.02) for name in NEVER_WORSE for hz in UPDATES_HZ}
TARGETS |= {f"refined_over_offline_{hz:g}": ("<=", 1.10) for hz in UPDATES_HZ}


class Sample:
    """A simulated scan, what the network makes of it, and what else its image is compared with."""

    def __init__(self, family: str, config: Config) -> None:
        self.truth: SimulatedScan = simulate_scan(Simulation(family=family, seed=7))
        self.corners = window_corners(self.truth.geometry.to_pixels(self.truth.positions_m))
        probe = known_probe(config.probe, config.geometry.n_pixels)
        assert probe is not None and config.network.weights is not None
        self.probe: Probe = probe
        predictor = build_predictor(
            load_network(config.network.weights)[0], probe, config.network, device="cpu"
        )
        patches, sigma = predictor.submit(corner_origin(self.truth.frames.astype(np.float32)))()
        self.patches, self.sigma = widened(patches, sigma.astype(np.float16), probe.shape[-1])

    def __len__(self) -> int:
        return len(self.corners)

    def error(self, object_: Object, bounds: Bounds, n_frames: int) -> float:
        """Returns `c` of an object that covers `bounds`, where these first frames light the sample well."""
        truth = self.truth.object
        light = np.zeros(truth.shape, np.float32)
        add_patches(light, abs2(self.truth.probe).sum(axis=0), self.corners[:n_frames])
        lit = (light > WELL_LIT * light.max()).astype(np.float32)
        return nrmse(on_truth(object_, bounds, truth), truth, lit).c

    def c_mosaic(self) -> float:
        """Returns the error of the mosaic of all frames."""
        mosaic = stitch(self.patches, self.sigma, abs2(self.probe).sum(axis=0), self.corners)
        assert mosaic.bounds is not None
        return self.error(mosaic.picture(mosaic.bounds).object, mosaic.bounds, len(self))

    def c_offline(self, config: Config) -> float:
        """Returns the error of an offline reconstruction from a flat start."""
        refiner = RefinerConfig(**config.refinement.model_dump(include=set(RefinerConfig.model_fields)))
        positions_px = self.truth.geometry.to_pixels(self.truth.positions_m)
        end = reconstruct(
            self.truth.frames,
            positions_px,
            self.probe,
            config=refiner,
            epochs=OFFLINE_EPOCHS,
            scale_probe=config.scales_probe,
        )
        return self.error(end.object, end.bounds, len(self))


class Replay:
    """One scan, whose frames come at the pace of the detector, and the two stages that make its image.

    Parameters
    ----------
    folder : Path
        Gets the scan.
    sample : Sample
    config : Config
    updates_hz : float
        Frames that the machine updates per second.
    """

    def __init__(self, folder: Path, sample: Sample, config: Config, updates_hz: float) -> None:
        self.sample, self.clock = sample, Clock(0.0)
        shutil.rmtree(folder, ignore_errors=True)
        self.scan = _recorded(folder / "scans" / "0000-replayed", sample)
        np.save(folder / "probe.npy", sample.probe)
        optics = Optics(config.geometry, folder / "probe.npy")
        refinement = _refinement(config, optics, self.clock, updates_hz)
        origin = ImageOrigin(optics=optics, uses_network=True, uses_refinement=True)
        stitcher = Stitcher(config.live, origin, self.clock)
        self._loops = [WorkerLoop(each, folder / "scans", self.clock) for each in (refinement, stitcher)]
        self._watcher = Watcher(stitcher)
        self._image: LiveImage | None = None
        self._mosaic = Mosaic(abs2(sample.probe).sum(axis=0))
        self._n_arrived = 0

    @property
    def end_s(self) -> float:
        """When the last frame has come."""
        return len(self.sample) / RATE_HZ

    @property
    def is_over(self) -> bool:
        """Whether the last image has been published."""
        return bool(self.scan.count("stitcher", "closed"))

    def run(self, until_s: float) -> None:
        """Goes on until this time, or the end."""
        refinement, stitcher = self._loops
        while self.clock.now < until_s and not self.is_over:
            self._arrive()
            before, pause_s = self.clock.now, refinement.turn()
            while stitcher.turn() == 0.0 and not self.is_over:
                pass
            if self.clock.now == before:
                self.clock.now += max(pause_s, 1e-3)

    def errors(self) -> tuple[float, float] | None:
        """Returns `c` of what a client sees, and of the mosaic of the same frames; None before the first."""
        self._image = self._watcher.asks() or self._image
        n_frames = 0 if self._image is None else self._image.frames_seen
        if self._image is None or not n_frames:
            return None
        (top, left), (height, width) = self._image.origin_px, self._image.shape
        shown = np.where(self._image.source > 0, self._image.object, np.complex64(1))
        new = slice(self._mosaic.n_patches, n_frames)
        sample = self.sample
        self._mosaic.add(sample.patches[new], sample.sigma[new], sample.corners[new])
        assert self._mosaic.bounds is not None
        mosaic = self._mosaic.object_on(self._mosaic.bounds)
        return (
            sample.error(shown, Bounds(top, left, top + height, left + width), n_frames),
            sample.error(np.where(mosaic != 0, mosaic, np.complex64(1)), self._mosaic.bounds, n_frames),
        )

    def c_refined(self) -> float:
        """Returns `c` of the refined object published last."""
        snapshot = read_snapshot(self.scan.folder)
        assert snapshot is not None
        return self.sample.error(snapshot.object, snapshot.bounds, len(self.sample))

    def _arrive(self) -> None:
        scan, n = self.scan, len(self.sample)
        n_arrived = min(int(self.clock.now * RATE_HZ) + 1, n)
        n_inferred = min(max(int((self.clock.now - NETWORK_S) * RATE_HZ) + 1, 0), n)
        scan.counters("subscriber", writable=True)["head"] = n_arrived
        for stage, n_done in (
            ("subscriber", n_arrived),
            ("positions", n_arrived),
            ("inference", n_inferred),
        ):
            new = np.arange(len(scan.done(stage)), n_done)
            if new.size:
                scan.mark(stage, new, State.DONE)
            scan.counters(stage, writable=True)["closed"] = int(n_done == n)


def _recorded(folder: Path, sample: Sample) -> Scan:
    frames = sample.truth.frames
    header = ScanHeader(
        series_id=0,
        series_uid="replayed",
        frame_shape=frames.shape[1:],
        frame_dtype=frames.dtype.str,
        started_s=0.0,
    )
    scan, numbers = Scan.create(folder, header, len(frames)), np.arange(len(frames))
    n = sample.probe.shape[-1]
    for name, values in (
        ("frames", frames),
        ("exposed_s", numbers / RATE_HZ),
        ("received_s", numbers / RATE_HZ),
        ("positions_m", sample.truth.positions_m),
        ("patches", sample.patches),
        ("sigma", sample.sigma),
    ):
        scan.column(name, writable=True, shape=(n, n)).write(numbers, values)
    return scan


def _refinement(config: Config, optics: Optics, clock: Clock, updates_hz: float) -> Refinement:
    """Return a refinement for which an update of so many frames takes so long."""
    stage = Refinement(
        config.refinement,
        optics,
        n_modes=config.probe.n_modes,
        scale_probe=config.scales_probe,
        uses_network=True,
        starts_over=False,
        clock=clock,
    )
    name, xp, run_update = stage.setup.backend

    def timed(object_: Object, probe: Probe, batch: Batch, *others: Any, **named: Any) -> Array:
        clock.now += len(batch.corners) / updates_hz
        return run_update(object_, probe, batch, *others, **named)

    stage.setup = replace(stage.setup, backend=Backend(name, xp, timed))
    return stage


def measure(folder: Path, samples: tuple[str, ...] = SAMPLES) -> Iterator[Figures]:
    """Yield the figures of every scan as `by_sample`, then the worst of them; a family keeps a core busy."""
    by_sample: dict[str, Figures] = {}
    cores = min(len(os.sched_getaffinity(0)), len(samples))
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as processes:
        for family, figures in zip(samples, processes.map(partial(of_family, folder), samples), strict=True):
            by_sample[family] = figures
            yield {"by_sample": by_sample}
    names = [f"{name}_{updates_hz:g}" for updates_hz in UPDATES_HZ for name in WORST]
    yield {name: max(scan[name] for scan in by_sample.values()) for name in names}


def of_family(folder: Path, family: str) -> Figures:
    """Returns the figures of one family at all speeds."""
    torch.set_num_threads(1)
    config = load_config("demo", overrides=["live.interval_s=0.2"])
    sample = Sample(family, config)
    known = {"c_mosaic": sample.c_mosaic(), "c_offline": sample.c_offline(config)}
    figures = dict(known)
    for updates_hz in UPDATES_HZ:
        found = of_one(Replay(folder / family, sample, config, updates_hz), known)
        figures |= {f"{name}_{updates_hz:g}": value for name, value in found.items()}
    return figures


def of_one(replay: Replay, known: Figures) -> Figures:
    """Returns errors of the image over those of the mosaic, and of the object over the offline one's."""
    shown: list[tuple[float, float, float]] = []
    refined = float("nan")
    while not replay.is_over:
        replay.run(replay.clock.now + LOOKS_EVERY_S)
        if (errors := replay.errors()) is not None:
            shown.append((replay.clock.now, *errors))
        if replay.clock.now <= replay.end_s + AFTER_S:
            refined = replay.c_refined() if replay.clock.now > replay.end_s else refined
    due_s = replay.end_s + AFTER_S - LOOKS_EVERY_S
    scanning = [c / mosaic for now, c, mosaic in shown if now <= replay.end_s]
    # On a fast machine the last image may be there already.
    after = [c / known["c_mosaic"] for now, c, _ in shown if now > due_s or now == shown[-1][0]]
    return {
        "while_scanning": max(scanning),
        "two_s_after": after[0],
        "later": max(after),
        "refined_over_offline": refined / known["c_offline"],
        "result_over_offline": replay.c_refined() / known["c_offline"],
    }


COLUMNS = tuple(f"{name}_{UPDATES_HZ[0]:g}" for name in WORST)
BENCHMARK = Benchmark(measure=measure, targets=TARGETS, columns={"by_sample": COLUMNS})
