"""The resolution of a scan that has ended, by a process of low priority that gives way to the next scan.

Two halves of its frames are reconstructed and compared (`launch.offline.halves_process`). The recorder has it
done when the scan was the last; where another has begun, the finisher has, when no scan waits for it.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launch.results.reconstruction import Reconstruction
from launch.results.summary import add_resolution
from stream.record.scan import NewScans, Scan

CHEAP_S = 30.0  # a run waits that long at most, for a figure that nobody asked for
WORK_PER_S = 1.2e7  # pixels of a probe's modes, times visits, that one core refines in a second
PATIENCE_S = 10 * CHEAP_S  # of the finisher, whose processes get what others leave
LOOK_S = 0.2
GLANCE_S = 0.02  # with less the end of a process would never be heard of: time is up before it is looked at
# What the recorder is at when its results are written: the counter `step`.
STORING, MEASURING, LEFT = 1, 2, 3  # left to the finisher
OVERTAKEN = "another scan had begun, and the finisher measures it when no scan waits for that"


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
    measurement = Measurement(scan, result_file)
    while (figures := measurement.figures(LOOK_S)) is None:
        if reason := why_not():
            measurement.give_up()
            return unmeasured(reason, scan)
    return figures


class Measurement:
    """The process that measures the resolution of one result, to be asked until it is done.

    Parameters
    ----------
    scan, result_file : Path
        As of `measured_resolution`.
    """

    def __init__(self, scan: Path, result_file: Path) -> None:
        self._scan = scan
        command = [sys.executable, "-P", "-m", "launch.offline.halves_process", "--parent", str(os.getpid())]
        self._process = subprocess.Popen(
            [*command, str(scan), str(result_file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def figures(self, timeout_s: float = GLANCE_S) -> dict[str, Any] | None:
        """Returns the figures, or `unmeasured` where it failed; None if it is not done within `timeout_s`."""
        try:
            said, complaint = self._process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return None
        if self._process.returncode:
            reason = (complaint.strip().splitlines() or ["no reason given"])[-1]
            return unmeasured(reason, self._scan)
        figures: dict[str, Any] = json.loads(said.splitlines()[-1])
        return figures

    def give_up(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()


def awaits_measuring(scan: Scan) -> bool:
    """Says whether the results of a scan are there but for its resolution, which is left to the finisher."""
    is_left = scan.count("recorder", "step") == LEFT and scan.count("recorder", "closed")
    return bool(is_left and not scan.count("finisher", "closed"))


class LeftMeasurements:
    """The resolutions that the recorder has left, measured one at a time while nothing else is to be done.

    Parameters
    ----------
    scans, results : Path
        Folders of the scans and of their results.
    patience_s : float
        After so long a measurement is given up for good.
    clock : callable
        Monotonic seconds.

    Attributes
    ----------
    scan : Scan or None
        Whose resolution is being measured.
    """

    def __init__(
        self, scans: Path, results: Path, patience_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.scan: Scan | None = None
        self._new, self._results, self._patience_s, self._clock = NewScans(scans), results, patience_s, clock
        self._waiting: dict[str, Scan] = {}  # those that may come to need it
        self._measurement: Measurement | None = None
        self._began_s = 0.0

    def turn(self) -> None:
        """Begins with the next one, or looks whether the one in hand is done."""
        if self.scan is None or self._measurement is None:
            self.scan = self._next()
            if self.scan is not None:
                result, self._began_s = self._results / f"{self.scan.name}.cxi", self._clock()
                self._measurement = Measurement(self.scan.folder, result)
            return
        measured = self._measurement.figures()
        if measured is None and self._clock() - self._began_s > self._patience_s:
            self._measurement.give_up()
            measured = unmeasured(f"it took more than {self._patience_s:.0f} s", self.scan.folder)
        if measured is not None:
            add_resolution(self._results / f"{self.scan.name}.json", measured)
            self.scan.counters("finisher", writable=True)["closed"] = 1
            self.scan = self._measurement = None

    def make_way(self) -> None:
        """Gives up the one in hand, which is begun again later."""
        if self._measurement is not None:
            self._measurement.give_up()
        self.scan = self._measurement = None

    def _next(self) -> Scan | None:
        self._waiting |= {scan.name: scan for scan in self._new.look()}
        for name, scan in list(self._waiting.items()):
            is_over = scan.count("recorder", "closed")  # before: it may be closed just now
            if awaits_measuring(scan):
                return scan
            scan.close()  # there may be many, and what is looked at is open
            if is_over:
                del self._waiting[name]
        return None
