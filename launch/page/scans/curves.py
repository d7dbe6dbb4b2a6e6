"""How good a scan's object is: its error epoch by epoch, and at the end the correlation of halves."""

import json
from contextlib import suppress
from typing import Any

import numpy as np

from launch.page.scans.records import ScanRecord
from launch.results.cxi import read_halves
from launch.results.halves import how_to_measure
from launch.results.resolution import resolution_figures, resolution_text
from stream.record.error_curve import read_error_curve

MOST_POINTS = 2000
NOTHING = "no frame got into a picture"
TOO_EARLY = "it comes with the result, after the scan"
COMPUTING = "being measured: two halves of the frames are reconstructed and compared"


def curves_of(record: ScanRecord) -> dict[str, Any]:
    """Returns both curves, JSON can hold them; a curve that is not there has a "why" instead."""
    return {"scan": record.scan.name, "error": _error(record), "frc": _frc(record)}


def _error(record: ScanRecord) -> dict[str, Any]:
    if not record.run.config.refinement.enabled:
        return {"why": "nothing is refined in this run: the image is the network's"}
    curve = read_error_curve(record.scan.folder)
    if not len(curve):
        return {"why": "no epoch of refinement has ended yet"}
    # the last stays whatever is left out
    curve = curve[::-1][:: -(-len(curve) // MOST_POINTS)][::-1]
    received_s = record.scan.column("received_s").read(record.scan.done("subscriber"))
    since_s = float(np.min(received_s, initial=curve["time_s"].max(), where=np.isfinite(received_s)))
    return {
        "epoch": curve["epoch"].tolist(),
        "error": [float(error) if np.isfinite(error) else None for error in curve["error"]],
        "n_frames": curve["n_frames"].tolist(),
        "time_s": (curve["time_s"] - since_s).tolist(),
    }


def _frc(record: ScanRecord) -> dict[str, Any]:
    """Return correlation and threshold of the result, from the file that the recorder wrote."""
    if not record.result.exists():
        is_over = record.scan.count("recorder", "closed")
        return {"why": NOTHING if is_over else TOO_EARLY}
    try:
        halves = read_halves(record.result)
    except ValueError as error:
        return {"why": str(error)}
    if halves is None:
        return {"why": COMPUTING if record.is_going_on else _unmeasured(record)}
    pixel_m = record.optics.geometry.object_pixel_m
    figures = resolution_figures(halves, pixel_m)
    return {
        "frequency": halves.frequency.tolist(),
        "correlation": halves.correlation.tolist(),
        "half_bit": halves.half_bit.tolist(),
        "pixel_m": pixel_m,
        "resolution_m": figures["resolution_m"],
        "words": resolution_text(figures),
    }


def _unmeasured(record: ScanRecord) -> str:
    """Return why the recorder has not measured a resolution, as it wrote into the summary."""
    with suppress(OSError, ValueError):
        figures = json.loads(record.result.with_suffix(".json").read_text())
        if "resolution_unknown" in figures:
            return str(figures["resolution_unknown"])
    return f"not measured; {how_to_measure(record.scan.folder)}"
