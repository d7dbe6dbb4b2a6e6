"""What a run says at its end: where every frame is, how long the image took, how good it is."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape

from launch.logs import JsonConsole
from launch.results.facts_table import FactsTable
from launch.results.resolution import resolution_text
from operators.optics.coherence import modes_of_travel
from stream.atomic import replacing
from stream.plain_json import plain_json
from stream.record.account import (
    STAGES,
    counted,
    frame_counts,
    incompleteness,
    percentiles_ms,
    shares_in_words,
    time_to_image_s,
)
from stream.record.calibration import read_calibration
from stream.record.events import events_of
from stream.record.forerunner import forerunner_of
from stream.record.scan import Scan
from stream.record.snapshot import read_snapshot
from stream.record.tuned_weights import count_models

MOST_TROUBLES = 8  # in the table for people; the figures have all


def summarise(scan: Scan) -> dict[str, Any]:
    """Returns the figures of one scan by name; JSON can hold all of them."""
    counts = frame_counts(scan)
    subscriber = scan.counters("subscriber").as_dict()
    figures: dict[str, Any] = {
        "scan": scan.name,
        "frames_without_position": counts.pop("no_position"),
        **{f"frames_{name}": n_frames for name, n_frames in counts.items()},
        "duplicates": subscriber["duplicates"],
        "rejected": subscriber["rejected"],
        "late": subscriber["late"],
        "position_conflicts": scan.count("positions", "conflicts"),
    }
    for column, name in (("mosaicked_s", "time_to_image"), ("refined_s", "time_to_refined")):
        if (times_ms := percentiles_ms(time_to_image_s(scan, column))) is not None:
            figures[f"{name}_ms_p50"], figures[f"{name}_ms_p99"] = times_ms
    snapshot = read_snapshot(scan.folder)
    if snapshot is not None:
        figures |= {
            "epochs": snapshot.epoch,
            "updates": snapshot.n_updates,
            "amplitude_error": snapshot.error,
            "divergences": snapshot.n_divergences,
        }
    if earlier := forerunner_of(scan):
        figures |= {"reused_from": earlier, "reused_object_frames": scan.count("refinement", "reused")}
    figures |= msgspec.structs.asdict(read_calibration(scan.folder))
    figures["models"] = count_models(scan, scan.done("inference"))
    figures["incomplete"] = incompleteness(scan)
    figures["is_complete"] = not figures["incomplete"]
    return figures | _events(scan)


def _events(scan: Scan) -> dict[str, Any]:
    return {"events": [msgspec.structs.asdict(event) for event in events_of(scan)]}


def write_summary(path: Path, figures: dict[str, Any]) -> None:
    """Writes figures to `path`, JSON that people can read; what is not finite is null."""
    with replacing(path) as temporary:
        temporary.write_bytes(plain_json(figures, indent=2) + b"\n")


def add_resolution(path: Path, measured: dict[str, Any]) -> None:
    """Adds the figures of a resolution that was measured later to those in `path`, if it is there."""
    if path.exists():
        figures = json.loads(path.read_text())
        figures.pop("resolution_unknown", None)
        write_summary(path, figures | measured)


def table(figures: dict[str, Any]) -> FactsTable:
    """Returns the figures as people read them."""
    rows = FactsTable()
    rows.add_row("scan", escape(str(figures["scan"])))
    rows.add_row("frames", _frames(figures))
    for key, words in (("time_to_image", "time to image"), ("time_to_refined", "time to refined image")):
        if f"{key}_ms_p50" in figures:
            p50, p99 = figures[f"{key}_ms_p50"], figures[f"{key}_ms_p99"]
            rows.add_row(words, f"whole scan: median {p50:.0f} ms, 99 % {p99:.0f} ms")
    if "epochs" in figures:
        error = figures["amplitude_error"]
        told = "unknown" if error is None or math.isnan(error) else f"{error:.4f}"
        rows.add_row("refined", f"{figures['epochs']:.1f} epochs, amplitude error {told}")
    if "reused_from" in figures:
        rows.add_row("started from", escape(_reused(figures)))
    if figures.get("coverage68") is not None:
        rows.add_row("error bars", _error_bars(figures))
    if "travel_px" in figures:
        rows.add_row("while exposed", motion_text(figures))
    if len(figures.get("models", {})) > 1:
        rows.add_row("patches by", ", ".join(f"{name}: {n}" for name, n in figures["models"].items()))
    if "c_constant" in figures:
        rows.add_row("against the truth", _accuracy(figures))
    if "resolution_m" in figures or "resolution_unknown" in figures:
        rows.add_row("resolution", escape(resolution_text(figures)))
    for key in ("result", "picture", "product"):
        if figures.get(key):
            rows.add_row(key, Path(figures[key]))
    if figures.get("uid"):
        rows.add_row("stored run", escape(figures["uid"]))
    for index, words in enumerate(_troubles(figures.get("events", ()))):
        rows.add_row("" if index else "events", words)
    verdict = "[green]complete" if figures["is_complete"] else f"[red]incomplete[/]: {figures['incomplete']}"
    rows.add_row("result is", verdict)
    return rows


def motion_text(figures: Mapping[str, Any]) -> str:
    """Returns how far the probe moved during an exposure, and what can be done about it."""
    travel_px, n_modes = figures["travel_px"], figures["probe_modes"]
    told = f"the probe moved by {travel_px:.1f} pixels"
    wanted = modes_of_travel(travel_px)
    if n_modes >= wanted:
        return told
    return f"{told}: refine with {wanted} modes (probe.n_modes, reconstruct --modes)"


def show_summary(figures: dict[str, Any], console: Console) -> None:
    """Shows the figures of a scan, on a console of JSON lines as the fields of one."""
    if not isinstance(console, JsonConsole):
        table(figures).show(console)
        return
    verdict = "complete" if figures["is_complete"] else f"incomplete: {figures['incomplete']}"
    fields = {name: value for name, value in figures.items() if name != "events"}  # each was a line
    console.lines.say(f"result is {verdict}", scan=str(figures["scan"]), fields=fields)


def _frames(figures: dict[str, Any]) -> str:
    counts = {name: figures[f"frames_{name}"] for name in ("expected", "recorded", "lost", "pending")}
    counts["no_position"] = figures.get("frames_without_position", 0)
    counts["settling"] = figures.get("frames_settling", 0)
    counts |= {key: figures[f"frames_{key}"] for key in STAGES.values() if f"frames_{key}" in figures}
    others = [f"{counts[key]} {key}" for key in STAGES.values() if key in counts and key != "mosaicked"]
    return "; ".join([shares_in_words(counts, is_final=True), *others])


def _troubles(events: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what went wrong, a line with its time for each of the last ones."""
    troubles = [event for event in events if event["level"] != "info"]
    left_out = len(troubles) - MOST_TROUBLES
    lines = [
        f"{time.strftime('%H:%M:%S', time.localtime(event['time_s']))} {event['source']}: {event['text']}"
        for event in troubles[-MOST_TROUBLES:]
    ]
    return list(map(escape, ([f"{left_out} earlier ones"] if left_out > 0 else []) + lines))


def _reused(figures: dict[str, Any]) -> str:
    n_frames = figures["reused_object_frames"]
    return f"probe of {figures['reused_from']}" + (
        f", and its object for {counted(n_frames)}" * bool(n_frames)
    )


def _error_bars(figures: dict[str, Any]) -> str:
    held = f"68 / 95 % hold {figures['coverage68']:.0%} / {figures['coverage95']:.0%}"
    return held + (f"; [red]{figures['alarm']}" if figures["alarm"] else "")


def _accuracy(figures: dict[str, Any]) -> str:
    names = {"c_mosaic": "network mosaic", "c_refined": "refined", "c_constant": "constant object"}
    return ", ".join(f"{words} c = {figures[key]:.3f}" for key, words in names.items() if key in figures)


def result_folder(save: Path) -> Path:
    """Returns where the recorder puts results."""
    return save / "results"


def read_summary(save: Path, scan: Scan) -> dict[str, Any]:
    """Returns what the recorder has written about `scan`, or what the scan itself tells if it has not."""
    path = result_folder(save) / f"{scan.name}.json"
    if path.exists():
        figures: dict[str, Any] = json.loads(path.read_text())
        return figures | _events(scan)  # more may have happened since
    return summarise(scan)
