"""Who works on which frames, and until when: workers that share a stage lease its frames.

A lease that is not answered runs out, and its frames go to others; an answer that comes after all is as good
as any while nobody was faster. No clock: the time is an argument, monotonic seconds.
"""

import re
from dataclasses import dataclass, field

import numpy as np

from stream.record.handover import NETWORK
from stream.record.scan import Numbers

LEASE_S = 1.0
FIRST_S = 5.0  # of a worker of which nobody knows yet how long it takes
PATIENCE = 10.0  # as often as long as a worker usually takes, if that is more
SMOOTHING = 0.2
_NAME = re.compile(rf"{NETWORK}-([1-9]\d?|1\d\d|2[0-4]\d|25[0-5])")


def worker_name(number: int) -> str:
    """Returns what the worker of this number is called, from 1 to 255 as in the column `worker`."""
    return f"{NETWORK}-{number}"


def worker_number(name: str) -> int:
    """Returns the number of the worker that is called `name`, 0 if that is no worker."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else 0


@dataclass(slots=True)
class _Holder:
    n_most: int
    leases: list[Numbers] = field(default_factory=list)  # the oldest first
    since: float = 0.0  # when it answered last, or got the first lease that it has
    usual_s: float | None = None
    has_run_out: bool = False

    @property
    def patience_s(self) -> float:
        return FIRST_S if self.usual_s is None else max(LEASE_S, PATIENCE * self.usual_s)


class Leases:
    """The leases of one scan.

    A worker answers its leases one after the other, each whole: one that it has passed over never came to
    it. How long it usually takes is learnt from its answers: that says who is next, and how long a lease
    lasts.
    """

    def __init__(self) -> None:
        self._holders: dict[str, _Holder] = {}
        self._passed_over: list[tuple[str, Numbers]] = []

    def welcome(self, worker: str, n_most: int, n_held: int) -> None:
        """Takes note of a worker that may have `n_most` leases at a time and says that it has `n_held`."""
        holder = self._holders.setdefault(worker, _Holder(n_most))
        holder.n_most = n_most
        if holder.has_run_out and not n_held:  # they never came to it
            holder.leases.clear()
            holder.has_run_out = False

    def gone(self, worker: str) -> Numbers:
        """Forgets a worker; returns the frames that it had and that nobody was given since, ascending."""
        holder = self._holders.pop(worker, None)
        return _together([] if holder is None or holder.has_run_out else holder.leases)

    def next(self) -> str | None:
        """Returns the worker whose answer would be the first to come, None where nobody has room.

        A worker that is not known yet comes first, of equal ones the first by name.
        """
        free = [
            (holder.usual_s or 0.0, len(holder.leases), worker)
            for worker, holder in self._holders.items()
            if not holder.has_run_out and len(holder.leases) < holder.n_most
        ]
        return min(free, key=lambda it: ((it[1] + 1) * it[0], *it[1:]))[-1] if free else None

    def give(self, worker: str, numbers: Numbers, now: float) -> None:
        """Leases frames to a worker that is known and has room."""
        holder = self._holders[worker]
        if not holder.leases:
            holder.since = now
        holder.leases.append(numbers)

    def settle(self, worker: str, numbers: Numbers, now: float) -> bool:
        """Takes a worker's answer; says whether it is one to a lease that it has, run out or not."""
        holder = self._holders.get(worker)
        if holder is None:
            return False
        which = [i for i, lease in enumerate(holder.leases) if np.array_equal(lease, numbers)]
        if not which:
            return False
        passed_over = holder.leases[: which[0]]
        if passed_over and not holder.has_run_out:
            self._passed_over.append((worker, _together(passed_over)))
        del holder.leases[: which[0] + 1]
        # One that was frozen for an hour is as fast as before: it has to prove it, but not for an hour.
        took_s = min(now - holder.since, 2 * holder.patience_s)
        holder.usual_s = took_s if holder.usual_s is None else _smoothed(holder.usual_s, took_s)
        holder.since = now
        holder.has_run_out = holder.has_run_out and bool(holder.leases)
        return True

    def run_out(self, now: float) -> list[tuple[str, Numbers]]:
        """Returns who has not answered in time and which frames it had, ascending: others may have them.

        It gets nothing more until it has answered what it has, or says that it has nothing.
        """
        late, self._passed_over = self._passed_over, []
        for worker, holder in self._holders.items():
            if holder.leases and not holder.has_run_out and now - holder.since > holder.patience_s:
                holder.has_run_out = True
                late.append((worker, _together(holder.leases)))
        return late


def _smoothed(usual_s: float, took_s: float) -> float:
    return usual_s + SMOOTHING * (took_s - usual_s)


def _together(leases: list[Numbers]) -> Numbers:
    return np.sort(np.concatenate([np.zeros(0, np.int64), *leases]))
