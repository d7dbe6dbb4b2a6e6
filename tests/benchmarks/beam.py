"""What a beam that varies and a background cost: errors against a steady beam without one.

Each scan is simulated once; counts are thinned at random, which are counts of a weaker beam, and a background
is counted on top. Errors `c` of all versions are against the same object.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import geometric_mean

import numpy as np

from launch.beamline.accuracy import error_of
from launch.beamline.simulation import SimulatedScan, Simulation, simulate_scan
from launch.offline.reconstruct import reconstruct
from launch.offline.recorded import RecordedScan
from launch.offline.task import ReconstructOptions
from operators.engine.config import RefinerConfig
from operators.optics.preprocess import Preprocess, mean_frame
from tests.benchmarks.figures import Benchmark, Figures

SPREAD, MOST_SPREAD = 0.2, 2.5  # of the flux: standard deviation, and how many of them at most
THINNED = 0.6  # of the photons, in the mean
BACKGROUND = 1.0  # photons per pixel and frame
N_DARK = 200
TARGETS = {
    "flux_monitor_ratio": ("<=", 1.1),
    "flux_fitted_ratio": ("<=", 1.1),
    "background_dark_ratio": ("<=", 1.1),
}


def measure(_folder: Path) -> Iterator[Figures]:
    """Yield errors of three scans, and the geometric means of their ratios."""
    yield from _ratios(seeds=(1, 2, 4), side=12, epochs=40)


def rehearse(_folder: Path) -> Iterator[Figures]:
    """Yield the same of one small scan, refined for a few epochs."""
    yield from _ratios(seeds=(1,), side=6, epochs=6)


def _ratios(seeds: Sequence[int], side: int, epochs: float) -> Iterator[Figures]:
    ratios: dict[str, list[float]] = {}
    for seed in seeds:
        truth = simulate_scan(Simulation(n_rows=side, n_columns=side, seed=seed))
        errors = _errors(truth, np.random.default_rng(seed), epochs)
        yield {f"{name}_{seed}": error for name, error in errors.items()}
        for name, error in errors.items():
            against = "flux_steady" if name.startswith("flux") else "background_none"
            ratios.setdefault(name, []).append(error / errors[against])
    yield {
        f"{name}_ratio": geometric_mean(values)
        for name, values in ratios.items()
        if name not in ("flux_steady", "background_none")
    }


def _errors(truth: SimulatedScan, rng: np.random.Generator, epochs: float) -> dict[str, float]:
    """Return `c` of each version by name."""
    frames, kind = truth.frames, truth.frames.dtype
    flux = 1 + SPREAD * np.clip(rng.standard_normal(len(frames)), -MOST_SPREAD, MOST_SPREAD)
    steady = np.asarray(rng.binomial(frames, THINNED), kind)
    varied = np.asarray(rng.binomial(frames, THINNED * flux[:, None, None]), kind)
    bright = frames + np.asarray(rng.poisson(BACKGROUND, frames.shape), kind)
    dark = mean_frame(rng.poisson(BACKGROUND, (N_DARK, *frames.shape[1:])))
    scan = RecordedScan(
        frames=frames,
        frame_numbers=np.arange(len(frames)),
        positions_m=truth.positions_m,
        geometry=truth.geometry,
        probe=truth.nominal_probe,
        mask=truth.mask,
        name="simulated",
    )

    def error(scan: RecordedScan, *, fits_flux: bool = False, background: float | np.ndarray = 0.0) -> float:
        options = ReconstructOptions(epochs=epochs, refiner=RefinerConfig(fits_flux=fits_flux))
        preprocess = Preprocess(
            frame_shape=frames.shape[1:],
            n_pixels=truth.geometry.n_pixels,
            valid_pixels=truth.mask,
            background=background,
        )
        result = reconstruct(scan, options, preprocess=preprocess)
        return float(error_of(result.object, result.bounds, truth).c)

    return {
        "flux_steady": error(replace(scan, frames=steady)),
        "flux_unknown": error(replace(scan, frames=varied)),
        "flux_monitor": error(replace(scan, frames=varied, flux=flux)),
        "flux_fitted": error(replace(scan, frames=varied), fits_flux=True),
        "background_none": error(scan),
        "background_unknown": error(replace(scan, frames=bright)),
        "background_dark": error(replace(scan, frames=bright), background=dark),
    }


BENCHMARK = Benchmark(measure=measure, rehearse=rehearse, targets=TARGETS)
