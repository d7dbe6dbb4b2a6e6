"""Maps that patterns alone give: what a pattern costs, and what they show of the recorded star.

The phase of the recorded Siemens star is compared with an independent reconstruction, smoothed as the maps
are: to the step of the scan, and to the width of the probe, beyond which no frame resolves anything. Samples
of the demo say what a defocused beam makes of absorption: once as they are, once with their phase alone.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from launch.beamline.simulation import Simulation, simulate_scan
from launch.offline.recorded import open_recorded
from operators.geometry import Bounds, window_corners
from operators.metrics.gauge import flattened
from operators.mosaic.scan_maps import on_pixels, scan_maps, scan_step_px
from operators.optics.forward import intensities
from operators.optics.moments import moments
from operators.optics.preprocess import Preprocess
from operators.optics.probe import probe_diameter_px
from operators.optics.samples import FAMILIES
from operators.patches import extract_patches
from tests.benchmarks.figures import Benchmark, Figures
from tests.helpers.recorded_data import SHARED_DATA

SIEMENS = SHARED_DATA / "siemens"
SIDE, N_FRAMES, N_ROUNDS = 128, 512, 9
LIT = 0.2  # of the most frames on a pixel
TARGETS = {"ms_a_pattern": ("<=", 0.1)}


def measure(folder: Path) -> Iterator[Figures]:
    """Yield what a pattern costs on one core, and how the maps of the recorded star correlate."""
    yield _cost(N_FRAMES)
    yield _simulated(FAMILIES)
    if SIEMENS.is_dir():
        yield _recorded()


def rehearse(folder: Path) -> Iterator[Figures]:
    """Yield the same of fewer frames."""
    yield _cost(64)
    yield _simulated(("glyphs",))
    if SIEMENS.is_dir():
        yield _recorded()


def _cost(n_frames: int) -> Figures:
    frames = np.random.default_rng(0).poisson(20, (n_frames, SIDE, SIDE)).astype(np.uint16)
    prepare = Preprocess(frame_shape=(SIDE, SIDE), n_pixels=SIDE)
    prepared, found = [], []
    for _ in range(N_ROUNDS):
        began_s = time.thread_time()
        patterns = prepare(frames)
        between_s = time.thread_time()
        moments(patterns, prepare.mask)
        prepared.append(between_s - began_s)
        found.append(time.thread_time() - between_s)
    return {
        "ms_a_pattern": 1e3 * (np.median(prepared) + np.median(found)) / n_frames,
        "of_which_moments_ms": 1e3 * float(np.median(found)) / n_frames,
    }


def _simulated(families: tuple[str, ...]) -> Figures:
    rows = {}
    for family in families:
        scan = simulate_scan(Simulation(n_rows=20, n_columns=20, family=family))
        n, corners = scan.geometry.n_pixels, window_corners(scan.geometry.to_pixels(scan.positions_m))
        phase = np.angle(scan.object).astype(np.float32)
        kinds = {"as it is": scan.object, "phase alone": np.exp(1j * phase).astype(np.complex64)}
        rows[family] = {
            name: _simulated_correlation(object_, phase, scan.probe, corners, n)
            for name, object_ in kinds.items()
        }
    return {
        "simulated": rows,
        "dpc_correlation_absorbing": float(np.mean([row["as it is"] for row in rows.values()])),
        "dpc_correlation_phase_alone": float(np.mean([row["phase alone"] for row in rows.values()])),
    }


def _simulated_correlation(object_: Any, phase: Any, probe: Any, corners: Any, n: int) -> float:
    patterns = intensities(probe, extract_patches(object_, corners, n))
    bounds = Bounds(0, 0, *object_.shape)
    maps, cell_px = scan_maps(moments(patterns), corners + n / 2, bounds, n)
    dpc, known = on_pixels(maps["dpc"], cell_px, object_.shape), np.zeros(object_.shape, bool)
    known[n // 2 : -n // 2, n // 2 : -n // 2] = True
    return _correlation(dpc, phase, known & np.isfinite(dpc), n / 4)


def _recorded() -> Figures:
    reference = np.load(SIEMENS / "reference.npz", allow_pickle=False)
    object_, corners = reference["O"].astype(np.complex64), reference["pos"]
    with open_recorded(str(SIEMENS / "siemens.cxi")) as scan:
        frames = np.asarray(scan.frames[:])
    n = frames.shape[-1]
    centres_px, bounds = corners + n / 2, Bounds(0, 0, *object_.shape)
    patterns = Preprocess(frame_shape=(n, n), n_pixels=n)(frames)
    maps, cell_px = scan_maps(moments(patterns), centres_px, bounds, n)
    lit = _lit(corners, n, object_.shape)
    phase = np.angle(flattened(object_, lit.astype(np.float32))[0])
    dpc = on_pixels(maps["dpc"], cell_px, object_.shape)
    known = lit & np.isfinite(dpc)
    step_px, probe_px = scan_step_px(centres_px), probe_diameter_px(reference["P"])
    return {
        "recorded_step_px": step_px,
        "recorded_probe_px": probe_px,
        "dpc_correlation_at_the_step": _correlation(dpc, phase, known, step_px),
        "dpc_correlation_at_the_probe": _correlation(dpc, phase, known, probe_px),
        "intensity_correlation_at_the_step": _correlation(
            on_pixels(maps["intensity"], cell_px, object_.shape), np.abs(object_) ** 2, known, step_px
        ),
    }


def _lit(corners: Any, n: int, shape: tuple[int, int]) -> np.ndarray:
    n_frames = np.zeros(shape)
    for row, column in np.rint(corners).astype(int):
        n_frames[row + n // 4 : row + 3 * n // 4, column + n // 4 : column + 3 * n // 4] += 1
    return n_frames > LIT * n_frames.max()


def _correlation(values: np.ndarray, truth: np.ndarray, known: np.ndarray, width_px: float) -> float:
    """Return that of a map with what is known better, smoothed to a full width at half maximum."""
    smooth = ndimage.gaussian_filter(truth, width_px / 2.355)
    return float(np.corrcoef(values[known], smooth[known])[0, 1])


BENCHMARK = Benchmark(
    measure=measure,
    rehearse=rehearse,
    targets=TARGETS,
    columns={"simulated": ("as it is", "phase alone")},
)
