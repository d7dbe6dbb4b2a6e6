"""The resolution of a scan that has just ended, by a process of low priority that gives way to the next scan.

Two halves of its frames are reconstructed and compared (`launch.offline.halves_process`).
"""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launch.results.reconstruction import Reconstruction

CHEAP_S = 30.0  # a run waits that long at most, for a figure that nobody asked for
WORK_PER_S = 1.2e7  # pixels of a probe's modes, times visits, that one core refines in a second
LOOK_S = 0.2
STORING, MEASURING = 1, 2  # what the recorder is at when its results are written: the counter `step`


def seconds_of_halves(result: Reconstruction) -> float:
    """Returns about how long both halves take on one core, a process's start not counted."""
    visits = len(result.frame_numbers) * max(1, len(result.error_history))
    return visits * result.probe.size / WORK_PER_S


def unmeasured(reason: str, scan: Path) -> dict[str, Any]:
    """Returns the figure that says why there is no resolution, and how to get it of the recorded `scan`."""
    return {"resolution_unknown": f"not measured: {reason}; {how_to_measure(scan)}"}


def how_to_measure(scan: Path) -> str:
    """Returns with which command the resolution of a recorded scan is measured, ready to be pasted."""
    return f"`ptychostream reconstruct {shlex.quote(str(scan.absolute()))} --frc` measures it"


def measured_resolution(scan: Path, result_file: Path, why_not: Callable[[], str]) -> dict[str, Any]:
    """Returns the figures of the resolution, which the result then has as well, or `unmeasured`; blocks.

    Parameters
    ----------
    scan : Path
        Its record, a folder, or any file that `launch.offline.recorded.open_recorded` takes.
    result_file : Path
        CXI; gets the ring correlation.
    why_not : callable
        Asked a few times a second; when it gives a reason, the work is given up.
    """
    command = [sys.executable, "-P", "-m", "launch.offline.halves_process", "--parent", str(os.getpid())]
    with subprocess.Popen(
        [*command, str(scan), str(result_file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while True:
            try:
                said, complaint = process.communicate(timeout=LOOK_S)
                break
            except subprocess.TimeoutExpired:
                if reason := why_not():
                    process.kill()
                    return unmeasured(reason, scan)
    if process.returncode:
        reason = (complaint.strip().splitlines() or ["no reason given"])[-1]
        return unmeasured(reason, scan)
    figures: dict[str, Any] = json.loads(said.splitlines()[-1])
    return figures
