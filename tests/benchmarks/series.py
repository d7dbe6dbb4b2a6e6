"""Scan after scan: is the image of a scan as prompt while the scans before it are still being finished.

The demo's own processes and wires at 100 Hz, 64 x 64 pixels: a scan alone, then five with one second between
the last frame of one and the first of the next. Times to image are the worst of the second to the fifth, over
those of the lone scan in the same run; a scan before all of them warms up what is loaded at the first use.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from launch.beamline.flown import BeamlineConfig
from launch.commands.demo import DemoOptions, demo_config
from launch.results.summary import result_folder
from launch.run.stages import resolve
from launch.run.supervisor import Supervisor
from stream.record.scan import Scan
from stream.wire.sockets import Endpoint
from tests.benchmarks.figures import Benchmark, Figures

RATE_HZ, N_FRAMES = 100.0, 625
N_ALONE, N_SERIES, PAUSE_S = 2, 5, 1.0
PATIENCE_S = 600.0
TIMES = ("time_to_mosaic_ms_p50", "time_to_mosaic_ms_p99")
TARGETS = {
    "series_over_single_p50": ("<=", 1.25),
    "series_over_single_p99": ("<=", 1.25),
    "frames_lost": ("<=", 0),
    "frames_pending": ("<=", 0),
    "scans_incomplete": ("<=", 0),
    "results_of_first_s": ("<=", 60.0),
}
COLUMNS = (*TIMES, "begins_ms", "epochs_at_the_next", "epochs", "amplitude_error", "results_s")

Go = Callable[[], None]


def measure(folder: Path) -> Iterator[Figures]:
    """Yield the figures of every scan as `by_scan`, then those over all."""
    options = DemoOptions(
        save=folder, rate_hz=RATE_HZ, n_frames=N_FRAMES, sample="siemens", seed=7, stores=False
    )
    config = demo_config(options)
    beamline = BeamlineConfig(
        detector=Endpoint(address=config.detector.address),
        positions=config.positions.address,
        rate_hz=RATE_HZ,
        n_series=N_ALONE + N_SERIES,
        simulation=options.simulation,
    )
    with Supervisor(resolve(config)) as supervisor, _beamline(beamline, folder) as go:
        supervisor.start()
        series = Series(supervisor, go)
        for index in range(N_ALONE + N_SERIES):
            series.fly()
            if index < N_ALONE:
                series.wait_for_results(index + 1)
        series.wait_for_results(N_ALONE + N_SERIES)
        supervisor.stop()
        scans = supervisor.scans()
        figures = [
            json.loads((result_folder(config.save) / f"{scan.name}.json").read_text()) for scan in scans
        ]
        by_scan = {scan.name: _of_scan(scan, own, series) for scan, own in zip(scans, figures, strict=True)}
    yield {"by_scan": by_scan}
    yield summary(list(by_scan.values()), figures)


def summary(by_scan: list[Figures], figures: list[dict[str, Any]]) -> Figures:
    """Return the figures over all scans, the first of which have gone alone."""
    alone, later = by_scan[N_ALONE - 1], by_scan[N_ALONE + 1 :]
    summed: Figures = {"offered_hz": RATE_HZ}
    summed |= {
        f"frames_{what}": sum(own[f"frames_{what}"] for own in figures) for what in ("lost", "pending")
    }
    summed["scans_incomplete"] = sum(not own["is_complete"] for own in figures)
    for name in TIMES:
        summed[f"single_{name}"] = alone[name]
        summed[f"series_{name}"] = max(own[name] for own in later)
        summed[f"series_over_single_{name[-3:]}"] = summed[f"series_{name}"] / alone[name]
    summed["results_of_first_s"] = by_scan[N_ALONE]["results_s"]
    summed["results_of_all_s"] = max(own["results_s"] for own in by_scan[N_ALONE:])
    return summed


class Series:
    """Flies one scan after the other and notes when each has results."""

    def __init__(self, supervisor: Supervisor, go: Go) -> None:
        self._supervisor, self._go = supervisor, go
        self.results_s: dict[str, float] = {}  # after the last frame of the scan
        self.epochs: dict[str, float] = {}  # of the scan when the next one began

    def fly(self) -> None:
        """Start the next scan and return a pause after its last frame."""
        n_before = len(self._supervisor.scans())
        self._go()
        self.wait(lambda: len(self._supervisor.scans()) > n_before)
        scan = self._supervisor.scans()[-1]
        for before in self._supervisor.scans()[:-1]:
            self.epochs.setdefault(before.name, before.count("refinement", "epochs_milli") / 1000)
        self.wait(lambda: len(scan.done("subscriber")) == N_FRAMES)
        over_at = time.monotonic() + PAUSE_S
        self.wait(lambda: time.monotonic() >= over_at)

    def wait_for_results(self, n_scans: int) -> None:
        """Look after the run until so many scans have results."""
        self.wait(lambda: len(self.results_s) == n_scans)

    def wait(self, is_reached: Callable[[], bool]) -> None:
        """Look after the run until something is reached."""
        deadline = time.monotonic() + PATIENCE_S
        while not is_reached():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not reached in {PATIENCE_S:g} s: {self._supervisor.state}")
            self._supervisor.poll()
            for scan in self._supervisor.scans():
                if scan.name not in self.results_s and scan.count("recorder", "closed"):
                    self.results_s[scan.name] = time.monotonic() - _last_s(scan)


def _of_scan(scan: Scan, figures: dict[str, Any], series: Series) -> Figures:
    first_s = float(scan.column("received_s").read([0])[0])
    shown_s = scan.column("mosaicked_s").read(np.arange(N_FRAMES))
    return {
        "time_to_mosaic_ms_p50": figures["time_to_image_ms_p50"],
        "time_to_mosaic_ms_p99": figures["time_to_image_ms_p99"],
        "begins_ms": 1e3 * (float(shown_s.min()) - first_s),
        "epochs_at_the_next": series.epochs.get(scan.name, figures["epochs"]),
        "epochs": figures["epochs"],
        "amplitude_error": figures["amplitude_error"],
        "results_s": series.results_s[scan.name],
    }


def _last_s(scan: Scan) -> float:
    return float(scan.column("received_s").read(np.arange(N_FRAMES)).max())


@contextmanager
def _beamline(config: BeamlineConfig, folder: Path) -> Iterator[Go]:
    """Start the process of the beamline; gives what lets it fly the next scan."""
    file = folder / "beamline.json"
    file.write_bytes(msgspec.json.encode(config, enc_hook=str))
    command = [sys.executable, "-m", "launch.beamline.flown", str(file), "--wait"]
    with (folder / "beamline.log").open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output)

    def go() -> None:
        if process.stdin is None or process.poll() is not None:
            raise RuntimeError(f"the simulated beamline has ended; {folder / 'beamline.log'} says why")
        process.stdin.write(b"go\n")
        process.stdin.flush()

    try:
        yield go
    finally:
        process.kill()
        process.wait()


BENCHMARK = Benchmark(measure=measure, targets=TARGETS, columns={"by_scan": COLUMNS})
