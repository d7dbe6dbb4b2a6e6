"""Whether the first frames of a run contradict its configuration: asked once, beside everything else."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from stream.record.scan import Scan, State

log = logging.getLogger(__name__)

COMMAND = [sys.executable, "-P", "-m", "launch.offline.orientation_process"]
FIRST_FRAMES = 200  # that are waited for: fewer seldom tell
_SHARE = 0.9  # of these that must have a position


class OrientationWatch:
    """Has the first scan with enough frames looked at by a process of the lowest priority."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._is_done = False

    @property
    def is_asking(self) -> bool:
        """Whether the process has begun and is not done."""
        return self._process is not None and not self._is_done

    def look(self, scans: Sequence[Scan]) -> tuple[str, list[str]]:
        """Returns the scan and sentences of what its frames contradict, once; ("", []) otherwise."""
        if self._is_done:
            return "", []
        if self._process is None:
            if scans and _has_enough(scans[-1]):
                self._begin(scans[-1])
            return "", []
        if self._process.poll() is None:
            return "", []
        said, complaint = self._process.communicate()
        failed, self._is_done = self._process.returncode, True
        if failed:
            log.info("orientation of %s: %s", self._scan, complaint.strip().splitlines()[-1:])
            return "", []
        sentences: list[str] = json.loads(said.splitlines()[-1])
        return self._scan, sentences

    def close(self) -> None:
        """Ends the process, if it is still at it."""
        self._is_done = True
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            with suppress(ValueError):
                self._process.communicate()

    def _begin(self, scan: Scan) -> None:
        self._scan = scan.name
        self._process = subprocess.Popen(
            [*COMMAND, "--parent", str(os.getpid()), str(scan.folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def _has_enough(scan: Scan) -> bool:
    if scan.count("subscriber", "head") < FIRST_FRAMES:
        return False
    placed = scan.states("positions", np.arange(FIRST_FRAMES)) == State.DONE
    return int(np.count_nonzero(placed)) >= _SHARE * FIRST_FRAMES
