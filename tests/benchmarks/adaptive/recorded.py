"""Steering on real photons: the policy chooses among the positions of a recorded, denser scan.

A Siemens star measured at 516 positions (three modes of a partly coherent beam). Every arm measures some of
them: the policy, which sees nothing but the object that the engine has refined so far, as a run without a
network shows it; the recorded positions nearest to those of a Fermat spiral, and of a raster. All are
reconstructed by one recipe from one probe, that of the whole scan. Compared at equal agreement of two halves
of the frames, and at equal difference from the reconstruction of all frames.
"""

import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from launch.offline.reconstruct import half_data_correlation, reconstruct
from launch.offline.recorded import RecordedScan, open_recorded
from launch.offline.task import ReconstructOptions, task_of
from operators.arrays import Mask, Object, Probe, abs2
from operators.engine.backends import get_backend
from operators.engine.config import RefinerConfig
from operators.engine.refiner import Refiner
from operators.geometry import Bounds
from operators.metrics.errors import nrmse
from operators.metrics.gauge import remove_gauge
from operators.mosaic.mosaic import Mosaic
from operators.optics.trajectories import fermat_spiral, raster
from operators.steering.routes import snake_route
from stream.live.image import LiveImage
from stream.stages.stitching.composition import Refined, compose
from stream.steering.config import PolicyConfig
from stream.steering.motor_axes import Axes
from stream.steering.policy import Policy
from tests.benchmarks.adaptive.comparison import Curve
from tests.benchmarks.adaptive.jobs import Outcome, Result
from tests.benchmarks.engines.recorded import SIEMENS
from tests.benchmarks.figures import Benchmark, Figures
from tests.helpers.stream.live_images import live_image

N_MODES, BATCH = 3, 32
EPOCHS_PER_BATCH = 4  # of all frames held, before the next question
LIT = 0.3  # of the median photons where there are any: ground that the whole scan tells about
PLANNED = ("fermat", "raster")
ARMS = ("adaptive", *PLANNED)
SCAN, WHOLE = str(SIEMENS / "siemens.cxi"), "whole.npz"
REFINER = RefinerConfig(subpixel=True)  # the recorded positions lie between pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much is measured.

    Attributes
    ----------
    seeds : tuple of int
        Of the policy, and of where spiral and raster lie.
    counts : tuple of int
        Positions of each arm; savings are those of all but the first and the last.
    epochs, epochs_of_whole : float
        Of a reconstruction, and of that of all frames.
    """

    seeds: tuple[int, ...]
    counts: tuple[int, ...]
    epochs: float
    epochs_of_whole: float


FULL = Extent(seeds=tuple(range(5)), counts=(96, 144, 208, 288), epochs=20, epochs_of_whole=40)
REHEARSAL = Extent(seeds=(0,), counts=(64, 80, 96), epochs=2, epochs_of_whole=1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Whole:
    """What all frames of the scan became.

    Attributes
    ----------
    object : (row, col) complex64
    photons : (row, col) float32
    bounds : Bounds
        Of both, absolute object pixels.
    probe : (mode, y, x) complex64
    """

    object: Object
    photons: np.ndarray
    bounds: Bounds
    probe: Probe


class Ground:
    """The recorded scan, of which an arm may measure any position once.

    Parameters
    ----------
    scan : RecordedScan
        With its frames in memory.
    whole : Whole
        What is compared with, and the probe that all arms are told.
    """

    def __init__(self, scan: RecordedScan, whole: Whole) -> None:
        assert scan.geometry is not None
        self.scan, self.whole, self.geometry = replace(scan, probe=whole.probe), whole, scan.geometry
        self.corners_px = scan.geometry.to_pixels(scan.positions_m)
        self.axes = Axes(geometry=scan.geometry, unit="m", signs=(1, 1))
        self.centres = self.axes.centres(scan.positions_m)

    @cached_property
    def lit(self) -> Mask:
        """Where the whole scan tells something, on its bounds."""
        photons = self.whole.photons
        return photons > LIT * np.median(photons[photons > 0])

    @property
    def limits(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Motor positions that hold all of the recorded ones."""
        margin = 0.4 * self.geometry.object_pixel_m
        positions_m = self.axes.positions(self.centres)
        low, high = positions_m.min(axis=0) - margin, positions_m.max(axis=0) + margin
        return (low[0], high[0]), (low[1], high[1])

    def nearest(self, wanted: np.ndarray) -> list[int]:
        """Return for each wanted centre, (point, 2) pixels, the nearest recorded frame not yet taken."""
        tree, taken = cKDTree(self.centres), dict[int, None]()
        for row in tree.query(wanted, k=len(self.centres))[1].tolist():
            taken[next(frame for frame in row if frame not in taken)] = None
        return list(taken)

    def judged(self, frames: list[int], epochs: float, seed: int) -> tuple[float, float]:
        """Return the difference `c` from the whole scan's object, and where halves cease to agree by 0.5.

        The latter in cycles per pixel. Which frames make a half is drawn: every other one of a raster would
        leave out columns.
        """
        frames = np.random.default_rng(seed).permutation(frames).tolist()
        some = replace(
            self.scan,
            frames=self.scan.frames[frames],
            positions_m=self.scan.positions_m[frames],
            frame_numbers=np.arange(len(frames)),
        )
        options = ReconstructOptions(refiner=REFINER, n_modes=N_MODES, epochs=epochs)
        found, truth = reconstruct(some, options), self.whole
        object_ = np.ones(truth.bounds.shape, np.complex64)
        shared = truth.bounds.intersection(found.bounds)
        assert shared is not None
        object_[shared.slices_in(truth.bounds)] = found.object[shared.slices_in(found.bounds)]
        aligned = remove_gauge(object_, truth.object, scale=True, weights=self.lit.astype(np.float64))
        crossing = half_data_correlation(some, options).crossing(0.5)
        return nrmse(aligned, truth.object, self.lit).c, crossing


def planned_frames(ground: Ground, arm: str, n: int, seed: int) -> list[int]:
    """Return the recorded frames nearest to `n` positions of a pattern that fills the field.

    The spiral is turned, the raster moved by less than a step, as the seed says.
    """
    rng = np.random.default_rng(seed)
    low, high = ground.centres.min(axis=0), ground.centres.max(axis=0)
    middle, span = (low + high) / 2, (high - low).astype(float)
    if arm == "raster":
        rows = round(np.sqrt(n))
        columns = -(-n // rows)
        steps = span / (rows - 1 + 0.5, columns - 1 + 0.5)
        wanted = low + (raster(rows, columns, 1.0) + 0.5 * rng.random(2)) * steps
        wanted = wanted[np.sort(rng.permutation(len(wanted))[:n])]
    else:
        spiral = fermat_spiral(4 * n, 1.0)
        angle = rng.uniform(0, 2 * np.pi)
        turned = spiral @ [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
        reach = np.abs(turned).max(axis=1)
        step = (span.min() / 2) / np.sort(reach)[n - 1]
        wanted = middle + step * turned[reach <= np.sort(reach)[n - 1]]
    frames = ground.nearest(wanted)
    step_px = np.sqrt(span.prod() / n)
    return np.array(frames)[snake_route(ground.centres[frames], step_px)].tolist()


def steered_frames(ground: Ground, n: int, seed: int) -> list[int]:
    """Return `n` recorded frames in the order in which a policy, shown the refined object, asks for them."""
    probe = ground.whole.probe
    illumination = abs2(probe).sum(axis=0)
    aims = PolicyConfig(limits=ground.limits, seed=seed).aims(ground.axes)
    positions = ground.axes.positions(ground.centres)
    policy = Policy(aims, illumination, positions)
    frame_at = {tuple(centre): frame for frame, centre in enumerate(ground.centres.tolist())}
    seen = _Seen(ground, illumination)
    frames: list[int] = []
    while len(frames) < n:
        _, points = policy.recommend(min(BATCH, n - len(frames)))
        new = [frame_at[tuple(centre)] for centre in ground.axes.centres(points).tolist()]
        frames += new
        policy.count(positions[frames])
        policy.look(seen.after(new))
    return frames


class _Seen:
    """The image of a run without a network: the object refined so far, with the error bars it has there."""

    def __init__(self, ground: Ground, illumination: np.ndarray) -> None:
        self._ground, self._nothing = ground, Mosaic(illumination)
        options = ReconstructOptions(refiner=REFINER, n_modes=N_MODES)
        self._task = task_of(ground.scan, options)
        backend = get_backend(options.device, options.threads)
        self._refiner = Refiner(
            REFINER,
            ground.whole.probe,
            mask=self._task.preprocess.mask,
            xp=backend.xp,
            run_update=backend.update,
        )
        self._refined: Refined | None = None

    def after(self, frames: list[int]) -> LiveImage:
        """Return the image some epochs after these frames have come, too."""
        patterns = self._task.preprocess(self._ground.scan.frames[frames])
        refiner = self._refiner
        refiner.append(frames, patterns, self._ground.corners_px[frames])
        until = refiner.epoch + EPOCHS_PER_BATCH
        while refiner.epoch < until:
            refiner.step()
        refined = self._refined = Refined.of(refiner.snapshot(), self._nothing, self._refined)
        layers = compose(refined.bounds, self._nothing, refined)
        return live_image(
            layers.pop("object"),
            **layers,
            origin_px=refined.bounds.origin,
            object_pixel_m=self._ground.geometry.object_pixel_m,
            version=refiner.n_frames,
            frames_seen=refiner.n_frames,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """What came of one arm and seed, for each number of positions."""

    errors: tuple[float, ...]
    crossings: tuple[float, ...]
    cpu_s: float


def measure(folder: Path, extent: Extent = FULL) -> Iterator[Figures]:
    """Yield what each arm needs for the same image; nothing where the scan is absent."""
    if not SIEMENS.is_dir():
        return
    before_s = time.process_time()
    with open_recorded(SCAN) as scan:
        options = ReconstructOptions(refiner=REFINER, n_modes=N_MODES, epochs=extent.epochs_of_whole)
        found = reconstruct(scan, replace(options, probe="data"))
        n_frames = len(scan.positions_m)
    edges = [*found.bounds.origin, found.bounds.bottom, found.bounds.right]
    np.savez(folder / WHOLE, object=found.object, photons=found.photons, probe=found.probe, bounds=edges)
    cpu_s = time.process_time() - before_s
    jobs = [(name, seed) for seed in extent.seeds for name in ARMS]
    n_processes = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(n_processes, multiprocessing.get_context("spawn")) as pool:
        arms = dict(zip(jobs, pool.map(partial(_outcome, folder, extent), jobs), strict=True))
    yield {
        "recorded_frames": n_frames,
        **{f"c_{name}_{n}": value for name, n, value in _means(arms, extent, "errors")},
        **{f"frc_{name}_{n}": value for name, n, value in _means(arms, extent, "crossings")},
        **_savings(arms, extent),
        "cpu_s": cpu_s + sum(arm.cpu_s for arm in arms.values()),
    }


def rehearse(folder: Path) -> Iterator[Figures]:
    """Yield the same of one seed and few epochs."""
    yield from measure(folder, REHEARSAL)


def _outcome(folder: Path, extent: Extent, job: tuple[str, int]) -> Arm:
    name, seed = job
    before_s = time.process_time()
    with np.load(folder / WHOLE, allow_pickle=False) as file, open_recorded(SCAN) as scan:
        whole = Whole(
            object=file["object"],
            photons=file["photons"],
            bounds=Bounds(*file["bounds"].tolist()),
            probe=file["probe"],
        )
        ground = Ground(replace(scan, frames=np.asarray(scan.frames)), whole)
    if name == "adaptive":
        steered = steered_frames(ground, extent.counts[-1], seed)
        scans = [steered[:n] for n in extent.counts]
    else:
        scans = [planned_frames(ground, name, n, seed) for n in extent.counts]
    judged = [ground.judged(frames, extent.epochs, seed) for frames in scans]
    errors, crossings = zip(*judged, strict=True)
    return Arm(errors=errors, crossings=crossings, cpu_s=time.process_time() - before_s)


def _means(arms: dict[tuple[str, int], Arm], extent: Extent, figure: str) -> Iterator[tuple[str, int, float]]:
    for name in ARMS:
        values = np.mean([getattr(arms[name, seed], figure) for seed in extent.seeds], axis=0)
        yield from ((name, n, float(value)) for n, value in zip(extent.counts, values, strict=True))


def _savings(arms: dict[tuple[str, int], Arm], extent: Extent) -> Figures:
    """Return the share of positions saved against each planned pattern, below 0 where it takes more."""
    figures: Figures = {}
    for name in PLANNED:
        for judge, against in (("errors", "equal_error"), ("crossings", "equal_frc")):
            shares = []
            for seed in extent.seeds:
                planned, steered = (_results(arms[each, seed], extent, judge) for each in (name, "adaptive"))
                shares.append(Curve(Outcome(results=planned)).saving(steered[1:-1]))
            figures[f"saving_{name}_{against}"] = float(np.mean(shares))
            figures[f"saving_{name}_{against}_std"] = float(np.std(shares))
    return figures


def _results(arm: Arm, extent: Extent, judge: str) -> tuple[Result, ...]:
    # What halves agree on counts as the width of its finest detail: smaller is better, as of an error.
    values = arm.errors if judge == "errors" else [1 / crossing for crossing in arm.crossings]
    return tuple(Result(n, value, 1.0) for n, value in zip(extent.counts, values, strict=True))


BENCHMARK = Benchmark(measure=measure, rehearse=rehearse)
