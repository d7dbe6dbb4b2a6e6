"""Which frames the next update looks at.

The order decides how fast new ground appears and whether old frames starve.
"""

from collections import Counter, deque

import numpy as np

MOST_VISITS_PER_SWEEP = 4
EVEN_VISITS = 4


class VisitOrder:
    """Frames by slot: half of each batch never seen, oldest first, the rest a random sweep over those seen.

    Every sweep visits each frame seen so far, so no frame starves however fast new ones arrive, and those
    that came late several times until they have caught up; while nothing has been seen, or nothing is new,
    the other half gets the whole batch. New frames are taken in the order of the scan: each then has
    neighbours that are explained already. Taken from the far end they would begin islands, whose free phases
    leave seams where they meet.

    Parameters
    ----------
    seed : int
        Of the random order; equal seeds and calls give equal batches.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._unseen: deque[int] = deque()
        self._n_visits: Counter[int] = Counter()  # of the slots seen
        self._sweep: list[int] = []

    @property
    def n_unseen(self) -> int:
        """Frames that no batch has had yet."""
        return len(self._unseen)

    def add(self, slots: list[int]) -> None:
        """Put new slots, oldest first, behind all that have not been seen."""
        self._unseen.extend(slots)

    def next_batch(self, size: int) -> np.ndarray:
        """Return at most `size` distinct slots, int64; fewer where a sweep ends, none without frames."""
        if not self._sweep:
            self._sweep = self._new_sweep()
        n_new = min(len(self._unseen), max(-(-size // 2), size - len(self._sweep)))
        first_swept = max(0, len(self._sweep) - (size - n_new))
        slots = [self._unseen.popleft() for _ in range(n_new)] + self._sweep[first_swept:][::-1]
        del self._sweep[first_swept:]
        batch = list(dict.fromkeys(slots))  # late frames are several times in a sweep
        self._n_visits.update(batch)
        return np.array(batch, dtype=np.int64)

    def mark_seen(self, n_visits: np.ndarray) -> None:
        """Treat every slot as seen so often, (slot,) int, as after restoring a state that knew them."""
        self._n_visits.update({slot: int(n_visits[slot]) for slot in self._unseen})
        self._unseen.clear()

    def _new_sweep(self) -> list[int]:
        slots, n_visits = (
            np.array(list(values), np.int64) for values in (self._n_visits, self._n_visits.values())
        )
        if not slots.size:
            return []
        # The margin keeps the first few visits, when a difference of one is large, even.
        shares = np.clip((n_visits.max() + EVEN_VISITS) // (n_visits + EVEN_VISITS), 1, MOST_VISITS_PER_SWEEP)
        return self._rng.permutation(np.repeat(slots, shares)).tolist()
