"""Which frames the next update looks at.

Separate from the engine because the order decides how fast new ground appears and whether old frames
starve, and can be tested without a single array of the physics. Called by `operators.refiner`.
"""

from collections import deque

import numpy as np


class VisitOrder:
    """Frames by slot: half of each batch never seen, oldest first, the rest a random sweep over those seen.

    Every sweep visits each frame seen so far exactly once, so no frame starves however fast new ones
    arrive; while nothing has been seen, or nothing is new, the other half gets the whole batch. New frames
    are taken in the order of the scan: each then has neighbours that are explained already. Taken from the
    far end they would begin islands, whose free phases leave seams where they meet.

    Parameters
    ----------
    seed : int
        Of the random order; equal seeds and calls give equal batches.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._unseen: deque[int] = deque()
        self._seen: list[int] = []
        self._sweep: list[int] = []

    def add(self, slots: list[int]) -> None:
        """Put new slots, oldest first, behind all that have not been seen."""
        self._unseen.extend(slots)

    def next_batch(self, size: int) -> np.ndarray:
        """Return at most `size` distinct slots, int64; fewer at the end of a sweep, none without frames."""
        if not self._sweep:
            self._sweep = self._rng.permutation(self._seen).tolist()
        n_new = min(len(self._unseen), max(size // 2, size - len(self._sweep)))
        new = [self._unseen.popleft() for _ in range(n_new)]
        old = [self._sweep.pop() for _ in range(min(size - n_new, len(self._sweep)))]
        self._seen.extend(new)
        return np.array(new + old, dtype=np.int64)

    def mark_seen(self) -> None:
        """Treat every slot as seen, as after restoring a state that knew them."""
        self._seen.extend(self._unseen)
        self._unseen.clear()
