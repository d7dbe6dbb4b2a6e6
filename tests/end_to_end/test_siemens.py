"""A recorded scan of a Siemens star, replayed as a detector sends it, by the commands that pages name."""

import json
from pathlib import Path

import numpy as np
import pytest

from launch.results.cxi import read_result
from launch.results.reconstruction import Reconstruction
from operators.arrays import corner_origin
from operators.geometry import window_corners
from operators.metrics.errors import amplitude_error, phase_correlation_coefficient
from operators.metrics.gauge import remove_gauge
from stream.files.cxi import read_scan
from tests.helpers.launch.commands import free_address, ptychostream, running
from tests.helpers.recorded_data import SHARED_DATA, needs_shared_data

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400), needs_shared_data]

SIEMENS = SHARED_DATA / "siemens" / "siemens.cxi"
MARGIN_PX = 20  # from the edge of the well-lit ground: shifted pictures mirror their borders
PROBES = {"data": [], "file": ["--set", "probe.source=file", "--set", f"probe.path={SIEMENS}"]}


def error_of(result: Reconstruction) -> float:
    """The amplitude error over all frames, computed from the raw file."""
    with read_scan(SIEMENS) as scan:
        patterns = corner_origin(scan.frames[:]).astype(np.float32)
        corners = window_corners(result.geometry.to_pixels(scan.positions_m)) - result.bounds.origin
        mask = None if scan.mask is None else corner_origin(scan.mask)
    return amplitude_error(patterns, result.object, result.probe, corners, mask)


def correlation_with_reference(result: Reconstruction) -> float:
    """The correlation of the phase with an independent reconstruction, on well-lit ground, gauge removed."""
    reference = np.load(SIEMENS.with_name("reference.npz"), allow_pickle=False)
    positions_px = result.geometry.to_pixels(result.positions_m)
    shift = np.rint((positions_px - reference["pos"][result.frame_numbers]).mean(axis=0)).astype(int)
    lit = result.photons > 0.3 * result.photons.max()
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    top, bottom = rows[0] + MARGIN_PX, rows[-1] - MARGIN_PX
    left, right = columns[0] + MARGIN_PX, columns[-1] - MARGIN_PX
    row, column = np.array([top, left]) + result.bounds.origin - shift
    there = reference["O"][row : row + bottom - top, column : column + right - left]
    here, weights = result.object[top:bottom, left:right], lit[top:bottom, left:right]
    aligned = remove_gauge(here, there, weights=weights.astype(np.float32), scale=True)
    return phase_correlation_coefficient(aligned, there, weights)


@pytest.mark.parametrize("probe", PROBES)
def test_a_replayed_scan_becomes_a_siemens_star(tmp_path: Path, probe: str) -> None:
    frames, positions, figures = free_address(), free_address(), tmp_path / "figures.json"
    settings = {
        "detector.address": frames,
        "positions.address": positions,
        "live.address": "tcp://127.0.0.1:*",
        "viewer.enabled": "false",
    }
    options = [text for key, value in settings.items() for text in ("--set", f"{key}={value}")]
    config = tmp_path / "siemens.yaml"
    assert ptychostream("init", config, "--scan", SIEMENS).returncode == 0
    run = ["run", config, "--series", 1, "--save", tmp_path / "saved", "--json", figures]
    with running(tmp_path / "run.log", *run, *options, *PROBES[probe]) as pipeline:
        pipeline.until(lambda: "ready for frames" in pipeline.output())
        played = ptychostream(
            "replay", SIEMENS, "--rate", 100, "--address", frames, "--bind", "--positions", positions
        )
        assert (played.returncode, played.stdout) == (0, f"516 of 516 frames sent to {frames}\n"), (
            played.stderr
        )
        assert pipeline.ends(timeout_s=300) == 0, pipeline.output()

    (scan,) = json.loads(figures.read_text())["scans"]
    assert (scan["frames_expected"], scan["frames_recorded"], scan["frames_pending"]) == (516, 516, 0)
    assert scan["is_complete"] and not scan["divergences"]
    result = read_result(Path(scan["result"]))
    assert len(result.probe) == 3
    assert error_of(result) <= 0.013
    assert correlation_with_reference(result) >= 0.95
