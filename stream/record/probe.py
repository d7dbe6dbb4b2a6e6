"""A probe that was found during a scan, as versions in its folder: one stage writes, all others wait for it.

The counter `version` of the stage `probe` says which is the newest; it is raised when the file is complete.

    SCANS/0000-<name>/probe/0001.npy
"""

import io
from pathlib import Path

import numpy as np

from operators.arrays import Probe
from stream.atomic import write_atomically
from stream.record.scan import Counters, Scan

STAGE = "probe"


def publish_probe(scan: Scan, probe: Probe) -> int:
    """Leaves a newer probe (mode, y, x) complex64 in the scan's folder and returns its version, from 1 on."""
    counters = scan.counters(STAGE, writable=True)
    version = counters["version"] + 1
    content = io.BytesIO()
    np.save(content, np.asarray(probe, np.complex64))
    path = _path(scan, version)
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, content.getvalue())
    counters["version"] = version
    return version


def note_step(counters: Counters, step: int, n_steps: int) -> None:
    """Leaves how far the search for a probe is where others can read it."""
    counters["steps"] = n_steps
    counters["step"] = step + 1


def found_probe(scan: Scan) -> Probe | None:
    """Returns the newest probe found in this scan, None while there is none."""
    path = found_probe_file(scan)
    return None if path is None else np.load(path, allow_pickle=False)


def found_probe_file(scan: Scan) -> Path | None:
    """Returns the file of the newest probe found in this scan, None while there is none."""
    version = scan.count(STAGE, "version")
    return _path(scan, version) if version else None


def _path(scan: Scan, version: int) -> Path:
    return scan.folder / STAGE / f"{version:04d}.npy"
