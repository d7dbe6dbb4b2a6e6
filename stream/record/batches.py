"""When frames that are ready become a batch: when there are enough, or the first has waited long enough."""

import math
from collections.abc import Callable

from stream.record.scan import Numbers

FirstOf = Callable[[Numbers, int], Numbers]


def oldest_of(ready: Numbers, n_most: int) -> Numbers:
    """Returns the oldest `n_most` of the frames that are `ready`, ascending."""
    return ready[:n_most]


class BatchRule:
    """Decides when a batch is large enough or has waited long enough.

    Parameters
    ----------
    size : int
        Frames of a batch.
    deadline_s : float
        A frame waits no longer than this for its batch to fill.
    """

    def __init__(self, size: int, deadline_s: float) -> None:
        self.size, self.deadline_s = size, deadline_s
        self._waiting_since: float | None = None

    def pick(self, ready: Numbers, now: float, *, is_tail: bool, first_of: FirstOf = oldest_of) -> Numbers:
        """Returns the frames to work on now, none while a batch still fills.

        Where more than two batches wait `first_of` says which go first.
        """
        if not ready.size:
            self._waiting_since = None
            return ready
        if self._waiting_since is None:
            self._waiting_since = now
        if ready.size < self.size and not is_tail and now - self._waiting_since < self.deadline_s:
            return ready[:0]
        self._waiting_since = None
        is_behind = ready.size > 2 * self.size
        return (first_of if is_behind else oldest_of)(ready, self.size)

    def remaining_s(self, now: float) -> float:
        """Returns how long the next batch may still wait, infinity where no frame does."""
        if self._waiting_since is None:
            return math.inf
        return max(self._waiting_since + self.deadline_s - now, 0.0)
