"""The moments of frames as they come: what a scan shows before and beside all reconstruction."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.optics.moments import moments
from stream.record.passage import NONE
from stream.record.scan import Numbers, Scan, State
from stream.stages.inputs import Optics, read_moments, read_patterns

FRAMES_AT_ONCE = 64  # that are read between two batches


class FrameMoments:
    """Reads frames that have a position, once each, the oldest first.

    Parameters
    ----------
    scan : Scan
    optics : Optics
    """

    def __init__(self, scan: Scan, optics: Optics) -> None:
        self._scan, self._optics = scan, optics
        self._column = scan.column("moments", writable=True)
        self._preprocess = optics.preprocess(scan)
        self._head = 0  # frames from here on have not been looked at
        self._waiting = NONE  # before that, without a position so far

    def take(self) -> tuple[Numbers, NDArray[np.float32]]:
        """Returns the next frames and what clients are told of them, as of `read_moments`."""
        ready = self._ready()
        if ready.size:
            # A process before this one has stored the others.
            new = ready[self._column.read(ready)[:, 0] == 0]
            if new.size:
                patterns = read_patterns(self._scan, self._preprocess, new)
                self._column.write(new, moments(patterns, self._preprocess.mask))
            return ready, read_moments(self._scan, self._optics.geometry, ready)
        return NONE, np.zeros((0, 6), np.float32)

    def _ready(self) -> Numbers:
        head = self._scan.n_frames
        known: Any = np.concatenate([self._waiting, np.arange(self._head, head)])
        if not known.size:
            return NONE
        self._head = head
        states = self._scan.states("positions", known)
        is_done = states == State.DONE
        ready, rest = known[is_done][:FRAMES_AT_ONCE], known[is_done][FRAMES_AT_ONCE:]
        self._waiting = np.sort(np.concatenate([known[states == State.PENDING], rest]))
        return ready
