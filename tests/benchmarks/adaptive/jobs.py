"""Every scan of the benchmark of adaptive scanning as a job, worked off by a pool of processes."""

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache

import torch

from launch.config.config import DEMO_WEIGHTS
from launch.training.recipe import DEMO_RECIPE, read_recipe
from operators.steering.routes import Travel
from stream.files.weights import load_network
from tests.benchmarks.adaptive.arms import (
    N_PIXELS,
    Instrument,
    Sample,
    fermat_arm,
    random_arm,
    raster_arm,
    refine,
)
from tests.benchmarks.adaptive.steered import steered_scan

SPEED_PX_S = 5000.0
PLANNED = {"fermat": fermat_arm, "raster": raster_arm, "random": random_arm}
STEERED = {"adaptive": {}, "greedy": {"greedy": True}, "oracle": {"knows": True}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One scan: of which sample, by which arm, and after how many positions it is reconstructed.

    Attributes
    ----------
    kind, seed, photons
        Of the sample.
    arm : str
        Of `PLANNED`, which make a scan for each of `counts`, or `STEERED`, which go on from one to the next.
    counts : tuple of int
    stale : int
        Batches by which the policy's image is late.
    dwell_s : float
        What the policy is told an exposure takes; 0 tells it nothing about moving.
    """

    kind: str
    seed: int
    photons: float
    arm: str
    counts: tuple[int, ...]
    stale: int = 0
    dwell_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """One reconstruction: positions, error, way."""

    n: int
    error: float
    path_px: float

    def time_s(self, dwell_s: float) -> float:
        """Return how long the scan takes."""
        return self.n * dwell_s + self.path_px / SPEED_PX_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a job."""

    results: tuple[Result, ...]
    n_violations: int = 0
    stops: tuple[tuple[float, float], ...] = ()  # target, true error of the live image at the stop, rad


def work_off(jobs: Sequence[Job]) -> dict[Job, Outcome]:
    """Return the outcome of every job, from as many processes as this one may use cores."""
    n_processes = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(n_processes, multiprocessing.get_context("spawn")) as pool:
        return dict(zip(jobs, pool.map(outcome, jobs), strict=True))


def outcome(job: Job) -> Outcome:
    """Return what comes of one job; every scan sees the same sample through its own noise."""
    if job.arm in PLANNED:
        return Outcome(results=tuple(_planned(job, n) for n in job.counts))
    travel = Travel(dwell_s=job.dwell_s, speed_px_s=SPEED_PX_S) if job.dwell_s else None
    sample = _sample(job)
    scan = steered_scan(sample, job.counts[-1], stale=job.stale, travel=travel, **STEERED[job.arm])
    results = []
    for n in job.counts:
        until = scan.first(n)
        results.append(Result(n, refine(sample, until), until.path_px))
    return Outcome(results=tuple(results), n_violations=scan.n_violations, stops=scan.stops)


def _planned(job: Job, n: int) -> Result:
    sample = _sample(job)
    scan = PLANNED[job.arm](sample, n)
    return Result(len(scan.corners), refine(sample, scan), scan.path_px)


def _sample(job: Job) -> Sample:
    return Sample(job.kind, job.seed, _instrument(), job.photons)


@cache
def _instrument() -> Instrument:
    """Return the demo's probe, material and network; once for each process."""
    torch.set_num_threads(1)
    recipe = read_recipe(DEMO_RECIPE)
    return Instrument(
        probe=recipe.probe.nominal(N_PIXELS)[None],
        material=recipe.material.complex,
        network=load_network(DEMO_WEIGHTS)[0],
    )
