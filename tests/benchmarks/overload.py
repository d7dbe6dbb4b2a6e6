"""Frames faster than the network: is none lost, how soon is what was scanned in the image, how good is it.

The demo's own processes and wires at 1 kHz, 64 x 64 pixels, on a field of 20,000 positions, once with each of
the shipped networks. A pixel's first photon is the end of the first exposure whose probe lights it, and it is
shown when the first image is published that a patch with it is part of. What refinement got is its processor
time while frames came; `share_beside_another` is what its nice gives it of a core that another process wants.

What the order of the frames makes of it is in `by_capacity`: the same field, stages of so many frames in a
second on a clock that is counted, by the rule of a run and by age. It does not depend on the machine.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from launch.beamline.simulation import simulate_scan
from launch.commands.demo import DemoOptions, demo_config, run_demo
from launch.config.config import SHIPPED_WEIGHTS, Config
from launch.run.stages import nice_for
from launch.training.recipe import read_recipe
from operators.arrays import Array, Corners, abs2
from operators.geometry import Geometry, window_corners
from operators.mosaic.mosaic import KNOWN_FRACTION
from operators.optics.trajectories import jittered_raster
from stream.files.weights import load_network
from stream.record.batches import BatchRule, oldest_of
from stream.record.ground_order import GroundOrder
from stream.record.scan import Numbers, Scan
from stream.stages.config import RefinementConfig
from stream.stages.inputs import read_corners
from tests.benchmarks.figures import Benchmark, Figures
from tests.benchmarks.network.speed import live_ms_per_pattern
from tests.helpers.stream.scans import GEOMETRY, make_scan, place, record

RATE_HZ, N_FRAMES = 1000.0, 20_000
SAMPLE = "cells"  # of the trained families, another specimen
CAPACITIES_HZ = 126, 250, 400
ORDERS = "new ground", "age"
EPOCHS = 2.0  # of refinement, after which the scan ends: 90 of so many frames take an hour
NETWORKS = {"fast": "demo-fast", "demo": "demo"}
OF_SCAN = {
    "frames_expected": "frames_expected",
    "frames_lost": "frames_lost",
    "frames_pending": "frames_pending",
    "c_mosaic": "c_mosaic",
    "time_to_image_ms_p50": "time_to_image_ms_p50",
}
TARGETS = {
    "frames_lost_fast": ("<=", 0),
    "ground_shown_ms_p95_fast": ("<=", 500),
    "c_mosaic_fast": ("<=", 0.16),
    "ms_per_pattern_fast": ("<=", 0.35),
    "frames_lost_demo": ("<=", 0),
    "ground_shown_ms_p95_demo": ("<=", 2000),
}


def measure(folder: Path, n_frames: int = N_FRAMES, rate_hz: float = RATE_HZ) -> Iterator[Figures]:
    """Yield the speed of the networks, then the figures of a scan with each."""
    yield {"offered_hz": rate_hz, "by_capacity": by_capacity(folder / "counted", n_frames, rate_hz)}
    yield _speed() | {"share_beside_another": share_beside_another(RefinementConfig().share)}
    for name, weights in NETWORKS.items():
        figures = _scan(folder / name, weights, n_frames, rate_hz)
        yield {f"{figure}_{name}": value for figure, value in figures.items()}


def _speed() -> Figures:
    networks = {name: load_network(SHIPPED_WEIGHTS[weights])[0] for name, weights in NETWORKS.items()}
    ms, on_both = live_ms_per_pattern(networks), live_ms_per_pattern(networks, threads=2)
    figures = {f"ms_per_pattern_{name}": value for name, value in on_both.items()}
    figures |= {f"ms_per_pattern_{name}_on_one_core": value for name, value in ms.items()}
    return figures | {"fast_over_demo": ms["fast"] / ms["demo"]}


def _scan(folder: Path, weights: str, n_frames: int, rate_hz: float) -> Figures:
    options = DemoOptions(
        save=folder, rate_hz=rate_hz, n_frames=n_frames, sample=SAMPLE, seed=7, stores=False
    )
    config = demo_config(options)
    settings = config.model_dump()
    settings["network"] |= {"weights": weights, "fast_weights": None}  # the rate is not to choose
    settings["refinement"] |= {"epochs": EPOCHS}
    config = Config.model_validate(settings)
    refinement = ProcessorTime("refinement")
    truth = simulate_scan(options.simulation)
    n_frames = len(truth.frames)

    def look(scan: Scan) -> None:
        n_recorded = scan.n_frames
        if 0 < n_recorded < n_frames:
            refinement.look()

    figures = run_demo(options, config, Console(), on_scan=look)
    scan = Scan(config.save / "scans" / figures["scan"])
    shown_s = ground_shown_s(scan, truth.geometry, abs2(truth.probe).sum(axis=0))
    found = {name: figures[own] for name, own in OF_SCAN.items()}
    found |= {f"ground_shown_ms_p{p}": float(np.percentile(shown_s, p) * 1e3) for p in (50, 95, 99)}
    found["frames_deferred"] = n_deferred(scan)
    found["inferred_hz"] = inferred_hz(scan)
    found["refinement_share"] = refinement.share
    return found


def by_capacity(folder: Path, n_frames: int, rate_hz: float) -> dict[str, Figures]:
    """Return how soon ground is shown by stages that do so many frames a second, in each order."""
    recipe = read_recipe()
    illumination = abs2(recipe.probe.nominal_modes(recipe.n_pixels)).sum(axis=0)
    n_rows = round(n_frames**0.5)
    corners = jittered_raster(n_rows, n_rows, 8.0, 1.0, np.random.default_rng(0)).reshape(n_rows, n_rows, 2)
    corners[1::2] = corners[1::2, ::-1].copy()
    corners = window_corners(corners.reshape(-1, 2))
    rows: dict[str, Figures] = {}
    for capacity_hz in CAPACITIES_HZ:
        row = rows[f"{capacity_hz} frames a second"] = {}
        for order in ORDERS:
            scan = make_scan(folder / f"{capacity_hz}-{order.replace(' ', '-')}")
            run_on_counted_clock(scan, corners, illumination, order, rate_hz, capacity_hz)
            shown_s = ground_shown_s(scan, GEOMETRY, illumination)
            row |= {f"{order}, p{p} ms": float(np.percentile(shown_s, p) * 1e3) for p in (50, 95)}
    return rows


def run_on_counted_clock(
    scan: Scan, corners: Corners, illumination: Array, order: str, rate_hz: float, capacity_hz: float
) -> None:
    """Let frames come and be shown at two rates, and leave their times in the columns of the scan."""
    numbers = np.arange(len(corners))
    record(scan, numbers)
    place(scan, numbers, corners)
    for column in ("exposed_s", "received_s"):
        scan.column(column, writable=True).write(numbers, (numbers + 1) / rate_hz)
    shown_s = scan.column("mosaicked_s", writable=True)
    ground = GroundOrder(scan, "inference", partial(read_corners, scan, GEOMETRY), lambda: illumination)
    first_of = ground.first_of if order == "new ground" else oldest_of
    rule, ready, n_come, now = BatchRule(8, 0.0), numbers[:0], 0, 0.0
    while n_come < len(numbers) or ready.size:
        now = max(now, 0.0 if ready.size else (n_come + 1) / rate_hz)
        n_came, n_come = n_come, min(int(now * rate_hz + 1e-6), len(numbers))
        ready = np.concatenate([ready, numbers[n_came:n_come]])
        batch = rule.pick(ready, now, is_tail=True, first_of=first_of)
        ground.take(batch)
        now += len(batch) / capacity_hz
        shown_s.write(batch, now)
        ready = np.setdiff1d(ready, batch, assume_unique=True)


def ground_shown_s(scan: Scan, geometry: Geometry, illumination: Array) -> NDArray[np.float64]:
    """Return how long each lit pixel waited from its first photon until it was shown, (pixel,) float64.

    Infinite where it never was. The clocks of detector and computer are set beside each other as for time to
    image: the fastest frame took no time on its way.
    """
    numbers = placed(scan)
    received_s, exposed_s = (scan.column(name).read(numbers) for name in ("received_s", "exposed_s"))
    exposed_s = exposed_s + (received_s - exposed_s).min()
    published_s = scan.column("mosaicked_s").read(numbers)
    published_s[published_s == 0] = np.inf
    corners = read_corners(scan, geometry, numbers)
    corners = corners - corners.min(axis=0)
    lit = illumination > KNOWN_FRACTION * illumination.max()
    rows, columns = corners.max(axis=0) + len(lit)
    first, shown = np.full((2, rows, columns), np.inf)
    for (row, column), exposed, published in zip(corners, exposed_s, published_s, strict=True):
        window = slice(row, row + len(lit)), slice(column, column + len(lit))
        for earliest, moment in ((first[window], exposed), (shown[window], published)):
            earliest[lit] = np.minimum(earliest[lit], moment)
    is_lit = np.isfinite(first)
    return shown[is_lit] - first[is_lit]


def placed(scan: Scan) -> Numbers:
    """Return the recorded frames whose position is known."""
    return np.intersect1d(scan.done("subscriber"), scan.done("positions"))


def n_deferred(scan: Scan) -> int:
    """Return how many frames the network did later than one that is newer."""
    inferred_s = scan.column("inferred_s").read(scan.done("inference"))
    earliest_from_here = np.minimum.accumulate(inferred_s[::-1])[::-1]
    return int(np.count_nonzero(inferred_s > earliest_from_here))


def inferred_hz(scan: Scan) -> float:
    """Return how many frames the network did in a second while they came."""
    inferred_s = scan.column("inferred_s").read(scan.done("inference"))
    received_s = scan.column("received_s").read(scan.done("subscriber"))
    return float(np.count_nonzero(inferred_s <= received_s.max()) / np.ptp(received_s))


def share_beside_another(share: float, seconds: float = 6.0) -> float:
    """Return what a process with refinement's nice gets beside one that wants all of the same core.

    Of the time of both: what others take of that core they take of both.
    """
    work = (
        f"import os, time\nos.sched_setaffinity(0, [{max(os.sched_getaffinity(0))}])\n"
        f"end = time.time() + {seconds}\nwhile time.time() < end: pass\nprint(time.process_time())"
    )
    processes = [
        subprocess.Popen(
            ["nice", "-n", str(nice), sys.executable, "-c", work],
            stdout=subprocess.PIPE,
            text=True,
        )
        for nice in (0, nice_for(share))
    ]
    other, own = (float(process.communicate()[0]) for process in processes)
    return own / (own + other)


class ProcessorTime:
    """The processor time of one stage of the run of this process, from the first look to the last."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._looks: list[tuple[float, float]] = []  # moment, seconds of processor

    def look(self) -> None:
        """Note how much the stage has had by now."""
        used_s = _processor_s(self._stage)
        if used_s is not None:
            self._looks = [*self._looks[:1], (time.monotonic(), used_s)]

    @property
    def share(self) -> float:
        """Of one core, between the first look and the last."""
        (begin, before), (end, after) = self._looks[0], self._looks[-1]
        return (after - before) / (end - begin)


def _processor_s(stage: str) -> float | None:
    """Return the processor seconds of the newest process of a stage, None where there is none."""
    for folder in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: -int(path.name)):
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            is_own = int(fields[1]) == os.getpid()
            if is_own and b"launch.run.stage_process" in command and stage.encode() in command:
                return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except OSError:
            continue  # it has ended meanwhile
    return None


COLUMNS = tuple(f"{order}, p{p} ms" for order in ORDERS for p in (50, 95))
BENCHMARK = Benchmark(measure=measure, targets=TARGETS, columns={"by_capacity": COLUMNS})
