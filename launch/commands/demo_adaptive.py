"""The steered demo: a sparse sample, a survey, then density where structure is, and a spiral to compare with.

Everything is real but the beamline: the network and its uncertainty, the policy's process, a RunEngine and
the plan. Afterwards a Fermat spiral of as many positions over the same sample goes through the same
pipeline.
"""

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from launch.beamline.accuracy import on_truth
from launch.beamline.steered import SteeredBeamlineConfig
from launch.beamline.steered_sample import SparseSample, Specimen, simulate_specimen
from launch.commands.demo import DemoOptions, beside_beamline, demo_config
from launch.config.config import Config
from launch.results.facts_table import FactsTable
from launch.results.summary import read_summary, show_summary, write_summary
from operators.arrays import abs2
from stream.documents.codec import decisions_of
from stream.record.scan import Scan
from stream.record.snapshot import read_snapshot
from stream.steering.record import PATTERN, replay
from stream.wire.sockets import Endpoint

BATCH = 24
DOSE_EXPOSURES = 40  # most light on a pixel, in exposures with the probe's maximum on it


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One scan of the sample and what came of it."""

    scan: Scan
    error: float

    @classmethod
    def of(cls, scan: Scan, specimen: Specimen) -> "Compared":
        """Returns the scan with the error of its refined object on the islands, NaN without one."""
        snapshot = read_snapshot(scan.folder)
        if snapshot is None:
            return cls(scan=scan, error=float("nan"))
        picture = on_truth(snapshot.object, snapshot.bounds, specimen.object)
        return cls(scan=scan, error=specimen.error_of(picture))


def demo_adaptive(
    options: DemoOptions,
    *,
    json_file: Path | None = None,
    opens_browser: bool = False,
    console: Console | None = None,
) -> int:
    """Runs the steered demo; returns 0 if every frame of both scans is in the picture, otherwise 1."""
    console = console or Console()
    begin_s = time.monotonic()
    sample = SparseSample(family=options.sample, seed=options.seed)
    specimen = simulate_specimen(sample)
    config = adaptive_config(options, specimen)
    settings = SteeredBeamlineConfig(
        detector=Endpoint(address=config.detector.address),
        positions=config.positions.address,
        policy=config.policy.address,
        n_points=options.n_frames,
        batch=BATCH,
        rate_hz=options.rate_hz,
        max_dose=float(config.policy.max_dose or np.inf),
        sample=sample,
    )
    beamline = "launch.beamline.steered", settings
    with beside_beamline(
        config, beamline, console, opens_browser=opens_browser, n_series=2, json_file=json_file
    ) as (scans, restarts):
        figures = compared([Compared.of(scan, specimen) for scan in scans], config.save)
        figures |= {"restarts": restarts, "offered_hz": options.rate_hz, "wall_s": time.monotonic() - begin_s}
        show_summary(figures, console)
        _steering_table(figures).show(console)
        if json_file:
            write_summary(json_file, figures)
    return 0 if figures["is_complete"] and figures["spiral_is_complete"] else 1


def adaptive_config(options: DemoOptions, specimen: Specimen) -> Config:
    """Returns `demo_config` with a policy for the whole sample."""
    policy = {
        "limits": specimen.limits,
        "max_dose": DOSE_EXPOSURES * float(abs2(specimen.probe).sum(axis=0).max()),
        "seed": options.seed,
    }
    return demo_config(options, policy)


def compared(scans: list[Compared], save: Path) -> dict[str, Any]:
    """Returns the figures of the steered scan, the first, with those of the spiral beside them."""
    steered, spiral = scans
    figures = read_summary(save, steered.scan)
    other = read_summary(save, spiral.scan)
    sources = Counter(decision["source"] for decision in decisions_of(steered.scan.folder))
    again = [one for file in steered.scan.folder.glob(PATTERN) for one in replay(file)]
    return figures | {
        "error_steered": steered.error,
        "error_spiral": spiral.error,
        "frames_spiral": other["frames_recorded"],
        "spiral_is_complete": other["is_complete"],
        "spiral_incomplete": other["incomplete"],
        "decisions": dict(sources),
        "recommendations": len(again),
        "recommendations_replayed": sum(not one.difference for one in again),
    }


def _steering_table(figures: dict[str, Any]) -> FactsTable:
    rows = FactsTable()
    sources = ", ".join(f"{n} {source}" for source, n in figures["decisions"].items())
    n_same, n_all = figures["recommendations_replayed"], figures["recommendations"]
    steered, spiral = figures["error_steered"], figures["error_spiral"]
    rows.add_row("decisions", f"{sources}; {n_same} of {n_all} recommendations the same when made again")
    rows.add_row(
        "phase error on structure", f"steered {steered:.3f} with {figures['frames_recorded']} frames"
    )
    better = f"{100 * (1 - steered / spiral):.0f} % lower" if steered < spiral else "the spiral is better"
    rows.add_row("", f"spiral  {spiral:.3f} with {figures['frames_spiral']} frames: {better}")
    if not figures["spiral_is_complete"]:
        rows.add_row("the spiral is", f"[red]incomplete[/]: {figures['spiral_incomplete']}")
    return rows
