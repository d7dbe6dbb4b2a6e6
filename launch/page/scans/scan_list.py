"""The scans of a save folder, one line each, small pictures of them, and their final images."""

import json
from collections import OrderedDict
from typing import Any

import numpy as np

from launch.page.picture import Drawing
from launch.page.scans.packet import encode_arrays
from launch.page.scans.records import NotThereError, ScanRecord, ScanRecords
from launch.results.colours import PERCENTILES
from launch.results.cxi import read_result
from operators.arrays import abs2
from operators.mosaic.mosaic import KNOWN_FRACTION, phase_variance
from stream.live.image import LiveImage
from stream.record.account import frame_counts, incompleteness
from stream.record.handover import was_handed_over
from stream.record.scan import order_of
from stream.record.snapshot import written_at
from stream.stages.inputs import read_moments, read_positions_px
from stream.stages.stitching.composition import MOSAIC, NOTHING, REFINED

MOST_SCANS = 50  # in one answer
THUMBNAIL_PX = 128
MOST_THUMBNAILS = 400  # held, of at most 64 kB each


class ScanList:
    """What the page lists; used by one thread, and nothing is looked at before somebody asks for it."""

    def __init__(self, records: ScanRecords) -> None:
        self._records = records
        self._lines: dict[str, tuple[float, dict[str, Any]]] = {}
        self._thumbnails: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

    def page(self, before: str, n_scans: int) -> dict[str, Any]:
        """Returns the `n_scans` newest scans whose names come before `before`, all of them for ""."""
        names = self._records.names()
        older = [name for name in names if not before or order_of(name) < order_of(before)]
        shown = older[: min(max(n_scans, 1), MOST_SCANS)]
        lines = [self._line(name) for name in shown]
        return {"n_scans": len(names), "n_older": len(older) - len(shown), "scans": lines}

    def thumbnail(self, name: str) -> bytes:
        """Returns the phase of the final image, rad, at most 128 pixels wide, with the range to draw.

        Raises
        ------
        NotThereError
            If there is no such scan, or no image of it.
        """
        record = self._records.read(name)
        changed = _changed(record)
        held = self._thumbnails.get(name)
        if held is None or held[0] != changed:
            drawing = Drawing(final_image(record), THUMBNAIL_PX)
            phase = drawing.map("phase")
            low, high = (phase.percentiles[p] for p in PERCENTILES)
            range_ = {"low": -np.pi, "high": np.pi} if phase.is_cyclic else {"low": low, "high": high}
            facts = {"is_cyclic": phase.is_cyclic, **range_}
            held = self._thumbnails[name] = changed, encode_arrays(facts, {"phase": drawing.values("phase")})
        self._thumbnails.move_to_end(name)
        while len(self._thumbnails) > MOST_THUMBNAILS:
            self._thumbnails.popitem(last=False)
        return held[1]

    def picture(self, name: str) -> bytes:
        """Returns the packet of the final image, as the live one comes.

        Raises
        ------
        NotThereError
            If there is no such scan, or no image of it.
        """
        return Drawing(final_image(self._records.read(name))).packet()

    def _line(self, name: str) -> dict[str, Any]:
        try:
            record = self._records.read(name)
        except NotThereError as error:
            return {"scan": name, "state": "unreadable", "note": str(error), "has_image": False}
        summary = record.result.with_suffix(".json")
        changed = summary.stat().st_mtime if summary.exists() else 0.0
        held = self._lines.get(name)
        if held is None or not changed or held[0] != changed:
            held = self._lines[name] = changed, _described(record)
        return held[1]


def final_image(record: ScanRecord) -> LiveImage:
    """Returns the image that a scan ended with: that of its result, or the last refined one.

    Raises
    ------
    NotThereError
        If there is neither.
    """
    scan, geometry = record.scan, record.optics.geometry
    if record.result.exists():
        try:
            result = read_result(record.result)
        except ValueError as error:
            raise NotThereError(str(error)) from error
        object_, photons, probe, bounds = result.object, result.photons, result.probe, result.bounds
        positions_px, sigma = geometry.to_pixels(result.positions_m), result.maps.get("sigma")
    elif (snapshot := record.snapshot()) is not None:
        object_, photons, probe, bounds = (
            snapshot.object,
            snapshot.illumination,
            snapshot.probe,
            snapshot.bounds,
        )
        positions_px, sigma = read_positions_px(scan, geometry, scan.done("refinement")), None
    else:
        raise NotThereError(f"no image of {scan.name} is there")
    if sigma is None:
        sigma = np.sqrt(phase_variance(photons * abs2(object_)))
    is_refined = written_at(scan.folder) is not None
    is_known = photons > KNOWN_FRACTION * abs2(probe).sum(axis=0).max()
    return LiveImage(
        scan=scan.name,
        run_id=scan.header.run_id,
        version=scan.count("stitcher", "version"),
        object_pixel_m=geometry.object_pixel_m,
        frames_seen=len(positions_px),
        epoch=scan.count("refinement", "epochs_milli") / 1000,
        model="",
        config_hash=scan.header.config_hash,
        maps={
            "object": np.where(is_known, object_, 0).astype(np.complex64),
            "sigma": np.where(is_known, sigma, np.inf).astype(np.float32),
            "photons": np.where(is_known, photons, 0).astype(np.float32),
            "source": np.where(is_known, REFINED if is_refined else MOSAIC, NOTHING).astype(np.uint8),
        },
        path=(positions_px + geometry.n_pixels / 2).astype(np.float32),
        moments=read_moments(scan, geometry, scan.done("positions")),
        pattern_px=geometry.n_pixels,
        origin_px=bounds.origin,
    )


def _described(record: ScanRecord) -> dict[str, Any]:
    scan, summary = record.scan, record.result.with_suffix(".json")
    figures: dict[str, Any] | None = json.loads(summary.read_text()) if summary.exists() else None
    if figures is None:
        counts, note = frame_counts(scan), incompleteness(scan)
        n_recorded, n_expected = counts["recorded"], counts["expected"]
    else:
        n_recorded, n_expected = figures["frames_recorded"], figures["frames_expected"]
        note = figures["incomplete"]
    is_running = figures is None and record.is_going_on
    going_on = "finishing" if was_handed_over(scan) else "running"
    if figures is None and not is_running:
        note = f"{note}; its run ended without a result".removeprefix("; ")
    return {
        "scan": scan.name,
        "started_s": scan.header.started_s,
        "n_recorded": n_recorded,
        "n_expected": n_expected,
        "state": going_on if is_running else "incomplete" if note else "complete",
        "note": "" if is_running else note,
        "has_image": record.result.exists() or written_at(scan.folder) is not None,
    }


def _changed(record: ScanRecord) -> float:
    """Return when what the image is made of was written last."""
    result_at = record.result.stat().st_mtime if record.result.exists() else 0.0
    return max(result_at, written_at(record.scan.folder) or 0.0)
