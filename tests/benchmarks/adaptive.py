"""Adaptive scanning against planned patterns: how many positions it saves, and what it costs where it cannot.

Samples with structure on a part of the field are scanned by every arm with the same number of positions and
reconstructed by the same refiner from the same wrong probe. The adaptive arms see nothing but what the live
pipeline would show them: the demo's network on Poisson counts, stitched, with its own uncertainty. The error
is that of the phase inside the structured region, after global phase and ramp and then one phase per
connected part are removed. Run by `ptychostream bench adaptive`.
"""

import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from launch.config_stages import DEMO_WEIGHTS
from launch.recipe import DEMO_RECIPE, read_recipe
from operators.arrays import abs2
from operators.geometry import Geometry
from operators.probe import with_power, zone_plate_probe
from stream.motor_axes import Axes
from stream.policy import Policy, PolicyConfig
from stream.weights import load_network
from tests.benchmarks._adaptive_arms import (
    N_PIXELS,
    PHOTONS,
    SIDE,
    Arm,
    Instrument,
    Sample,
    adaptive_arm,
    fermat_arm,
    live_image,
    random_arm,
    raster_arm,
    refine,
)
from tests.benchmarks._machine import machine
from tests.benchmarks._steered_demo import steered_demo_times

CURVE = (169, 225, 324, 484, 729)  # positions of the planned patterns, for the curve to compare with
COUNTS = (225, 324)  # of the others: a survey alone takes 144
SEEDS = {"sparse": 5, "half": 3, "uniform": 3}
OTHER_PHOTONS, OTHER_SEEDS = (2e4, 3e6), 2
STALE, STALE_SEEDS = (1, 2, 4), 2  # batches
DWELLS_S, SPEED_PX_S = (0.001, 0.02, 0.1), 5000.0
N_DECISIONS, DECISION_SIDE, DECISION_DISC_PX = 60, 2048, 34.0  # a probe for which there are 16k candidates

GOALS = {
    "saving_sparse": (">= 0.35", lambda value: value >= 0.35),
    "saving_sparse_low": (">= 0.20", lambda value: value >= 0.20),
    "loss_uniform": ("<= 0.05", lambda value: value <= 0.05),
    "overlap_violations": ("0", lambda value: value == 0),
    "false_stops": ("<= 0.05", lambda value: value <= 0.05),
    "decision_ms_p95": ("<= 10", lambda value: value <= 10),
    "frame_to_recommendation_ms_p95": ("<= 200", lambda value: value <= 200),
}


class Bench:
    """What all samples share, and the figures so far."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        recipe = read_recipe(DEMO_RECIPE)
        self.instrument = Instrument(
            probe=recipe.probe.nominal(N_PIXELS)[None],
            material=recipe.material.complex,
            network=load_network(DEMO_WEIGHTS)[0],
        )
        self.figures: dict[str, Any] = {}
        self.n_violations = 0
        self.stops: list[tuple[float, float]] = []

    def curve(self, kind: str, seed: int, arm: Arm, photons: float = PHOTONS) -> "Curve":
        """Return error and way of a planned pattern against its positions."""
        scans = [arm(Sample(kind, seed, self.instrument, photons), n) for n in CURVE]
        errors = [refine(Sample(kind, seed, self.instrument, photons), scan) for scan in scans]
        n_positions = [len(scan.corners) for scan in scans]
        return Curve(n_positions, np.minimum.accumulate(errors), [scan.path_px for scan in scans])

    def adaptive(self, kind: str, seed: int, n: int, photons: float = PHOTONS, **options: Any) -> "Result":
        """Return error and way of the adaptive arm."""
        sample = Sample(kind, seed, self.instrument, photons)
        scan = adaptive_arm(sample, n, **options)
        self.n_violations += scan.n_violations
        if n == COUNTS[-1] and not options:
            self.stops += scan.stops
        return Result(n, refine(sample, scan), scan.path_px)


@dataclass(frozen=True, slots=True)
class Result:
    """One reconstruction: positions, error, way."""

    n: int
    error: float
    path_px: float

    def time_s(self, dwell_s: float) -> float:
        """Return how long the scan takes."""
        return self.n * dwell_s + self.path_px / SPEED_PX_S


class Curve:
    """Positions that a planned pattern needs for an error, and its way."""

    def __init__(self, n_positions: list[int], errors: np.ndarray, paths_px: list[float]) -> None:
        self._log_n, self._log_error, self._log_path = np.log(n_positions), np.log(errors), np.log(paths_px)

    def at(self, error: float) -> Result:
        """Return the pattern of equal error; never one beyond the ends of the curve."""
        log_n = np.interp(-np.log(error), -self._log_error, self._log_n)
        path_px = np.exp(np.interp(log_n, self._log_n, self._log_path))
        return Result(round(np.exp(log_n)), error, float(path_px))

    def saving(self, result: Result) -> float:
        """Return the share of positions that `result` saves against this pattern."""
        return 1 - result.n / self.at(result.error).n


def run(json_path: Path | None = None) -> dict[str, Any]:
    """Return the figures by name, show them, and write them to `json_path`."""
    begin_s = time.monotonic()
    bench = Bench()
    _sparse(bench)
    _other_samples(bench)
    _other_photons(bench)
    figures = bench.figures
    figures["overlap_violations"] = bench.n_violations
    figures["n_stops"] = len(bench.stops)
    false = sum(error > target for target, error in bench.stops)
    figures["false_stops"] = false / len(bench.stops) if bench.stops else float("nan")
    figures |= _decision_times()
    figures |= steered_demo_times(f"tcp://127.0.0.1:{_free_port()}")
    figures["wall_s"] = time.monotonic() - begin_s
    figures["measured_on"] = machine()
    _show(figures)
    if json_path is not None:
        json_path.write_text(json.dumps(figures, indent=2, default=float) + "\n")
    return figures


def _sparse(bench: Bench) -> None:
    savings: dict[str, list[Any]] = {name: [] for name in ("fermat", "raster", "random", "oracle")}
    times: dict[float, list[float]] = {dwell: [] for dwell in DWELLS_S}
    stale: dict[int, list[float]] = {n_batches: [] for n_batches in STALE}
    for seed in range(SEEDS["sparse"]):
        fermat, raster = (bench.curve("sparse", seed, arm) for arm in (fermat_arm, raster_arm))
        results = [bench.adaptive("sparse", seed, n) for n in COUNTS]
        oracle = [bench.adaptive("sparse", seed, n, knows=True) for n in COUNTS]
        savings["fermat"].append([fermat.saving(result) for result in results])
        savings["raster"].append([raster.saving(result) for result in results])
        savings["oracle"].append([fermat.saving(result) for result in oracle])
        sample = Sample("sparse", seed, bench.instrument)
        scans = [random_arm(sample, n) for n in COUNTS]
        savings["random"].append(
            [fermat.saving(Result(len(s.corners), refine(sample, s), 0.0)) for s in scans]
        )
        for dwell_s, shares in times.items():
            shares += [1 - r.time_s(dwell_s) / fermat.at(r.error).time_s(dwell_s) for r in results]
        if seed < STALE_SEEDS:
            for n_batches, shares in stale.items():
                late = bench.adaptive("sparse", seed, COUNTS[-1], stale=n_batches)
                shares.append(fermat.saving(late))
    by_seed = np.mean(savings["fermat"], axis=1)
    bench.figures |= {
        "saving_sparse": float(by_seed.mean()),
        "saving_sparse_low": bootstrap_low(by_seed),
        "saving_sparse_vs_raster": float(np.mean(savings["raster"])),
        "saving_sparse_oracle": float(np.mean(savings["oracle"])),
        "saving_sparse_random": float(np.mean(savings["random"])),
    }
    bench.figures |= {f"saving_sparse_stale_{n}": float(np.mean(shares)) for n, shares in stale.items()}
    bench.figures |= {f"time_saving_{1e3 * d:g}ms": float(np.mean(shares)) for d, shares in times.items()}


def _other_samples(bench: Bench) -> None:
    savings = []
    for seed in range(SEEDS["half"]):
        fermat = bench.curve("half", seed, fermat_arm)
        savings += [fermat.saving(bench.adaptive("half", seed, n)) for n in COUNTS]
    bench.figures["saving_half"] = float(np.mean(savings))
    losses = []
    for seed in range(SEEDS["uniform"]):
        raster = bench.curve("uniform", seed, raster_arm)
        losses += [-raster.saving(bench.adaptive("uniform", seed, n)) for n in COUNTS]
    bench.figures["loss_uniform"] = float(np.mean(losses))


def _other_photons(bench: Bench) -> None:
    for photons in OTHER_PHOTONS:
        savings = []
        for seed in range(OTHER_SEEDS):
            fermat = bench.curve("sparse", seed, fermat_arm, photons)
            savings += [fermat.saving(bench.adaptive("sparse", seed, n, photons)) for n in COUNTS]
        bench.figures[f"saving_sparse_{photons:.0e}_photons"] = float(np.mean(savings))


def bootstrap_low(values: np.ndarray, n_draws: int = 10_000) -> float:
    """Return the lower end of the 95 % bootstrap interval of the mean."""
    draws = np.random.default_rng(0).choice(values, (n_draws, len(values)))
    return float(np.quantile(draws.mean(axis=1), 0.025))


def _decision_times() -> dict[str, float]:
    """Return how long a decision takes on a large object, and taking a new image before it."""
    n_pixels, rng = 128, np.random.default_rng(0)
    geometry = Geometry(energy_ev=9000.0, detector_distance_m=1.0, detector_pixel_m=75e-6, n_pixels=n_pixels)
    illumination = abs2(with_power(zone_plate_probe(n_pixels, 24.0, DECISION_DISC_PX), PHOTONS))
    high = (DECISION_SIDE - n_pixels) * geometry.object_pixel_m * 1e6
    config = PolicyConfig(axes=Axes(geometry=geometry), limits=((0.0, high),) * 2, max_dose=1e6)
    policy = Policy(config, illumination)
    shape = (DECISION_SIDE, DECISION_SIDE)
    steps = (np.indices(shape).sum(axis=0) // 24 % 2) * (np.indices(shape)[0] < DECISION_SIDE // 3)
    object_ = np.exp(1j * (steps + rng.normal(0, 0.05, shape))).astype(np.complex64)
    measured, decisions_s, images_s = np.zeros((0, 2)), [], []
    for index in range(N_DECISIONS):
        corner = rng.integers(0, DECISION_SIDE - 300, 2)
        object_ = object_.copy()
        object_[corner[0] : corner[0] + 300, corner[1] : corner[1] + 300] *= np.complex64(1j)
        image = live_image(
            object_, np.full(shape, 0.1, np.float32), np.full(shape, 90, np.float32), (0, 0), index
        )
        started = time.perf_counter()
        policy.look(image)
        looked = time.perf_counter()
        _, points = policy.recommend(64)
        measured = np.concatenate([measured, points])
        policy.count(measured)
        decisions_s.append(time.perf_counter() - looked)
        images_s.append(looked - started)
    p50, p95 = np.percentile(decisions_s, [50, 95]) * 1e3
    return {
        "n_candidates": len(policy._selector.lattice),
        "decision_ms_p50": float(p50),
        "decision_ms_p95": float(p95),
        "image_ms_p95": float(np.percentile(images_s[1:], 95) * 1e3),
    }


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def _show(figures: dict[str, Any]) -> None:
    rows = Table(title=f"adaptive scanning, {SIDE} x {SIDE} pixels, on {figures['measured_on']}")
    for heading in ("figure", "measured", "target", ""):
        rows.add_column(heading)
    for name, value in figures.items():
        target, is_met = GOALS.get(name, ("", None))
        verdict = "" if is_met is None else "met" if is_met(value) else "missed"
        rows.add_row(name, f"{value:.3g}" if isinstance(value, float) else str(value), target, verdict)
    Console().print(rows)
