"""The moments of frames as they come: what a scan shows before and beside all reconstruction."""

import numpy as np
from numpy.typing import NDArray

from operators.optics.moments import moments
from stream.record.passage import NONE, Passage, merged
from stream.record.scan import Numbers, Scan
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
        self._passage = Passage(scan, ("subscriber", "positions"))
        self._ready = NONE  # that are not taken

    def take(self) -> tuple[Numbers, NDArray[np.float32]]:
        """Returns the next frames and what clients are told of them, as of `read_moments`."""
        waiting = merged(self._ready, self._passage.look())
        ready, self._ready = waiting[:FRAMES_AT_ONCE], waiting[FRAMES_AT_ONCE:]
        if ready.size:
            # A process before this one has stored the others.
            new = ready[self._column.read(ready)[:, 0] == 0]
            if new.size:
                patterns = read_patterns(self._scan, self._preprocess, new)
                self._column.write(new, moments(patterns, self._preprocess.mask))
            return ready, read_moments(self._scan, self._optics.geometry, ready)
        return NONE, np.zeros((0, 6), np.float32)
