"""Frames on their way through the stages of a scan that grows: what is new since the last look.

The ledger tells of every frame at any time; who asks again and again asks here, where a frame is looked at
only until a stage is through with it. That relies on one rule: a byte that is not PENDING does not change any
more.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.record.scan import Numbers, Scan, State

NONE: Numbers = np.zeros(0, np.int64)


class Ended(NamedTuple):
    """Frames that a stage could not do.

    Attributes
    ----------
    numbers : (frame,) int64, ascending
    states : (frame,) uint8
        A `State` above DONE of each.
    """

    numbers: Numbers
    states: NDArray[np.uint8]


class _Stop:
    """The frames that have come as far as one stage."""

    def __init__(self, scan: Scan, stage: str) -> None:
        self._scan, self._stage = scan, stage
        self.pending = NONE  # ascending
        self.n_by_state = np.zeros(len(State), np.int64)  # of those that are not pending

    def look(self, coming: Numbers) -> tuple[Numbers, Ended]:
        """Takes more frames; returns those that the stage is done with now, and those it could not do."""
        self.pending = merged(self.pending, coming)
        if not self.pending.size:
            return NONE, Ended(NONE, np.zeros(0, np.uint8))
        states = self._scan.states(self._stage, self.pending)
        self.n_by_state += np.bincount(states[states > State.PENDING], minlength=len(State))
        is_done, is_ended = states == State.DONE, states > State.DONE
        done, ended = self.pending[is_done], Ended(self.pending[is_ended], states[is_ended])
        self.pending = self.pending[states == State.PENDING]
        return done, ended


class Passage:
    """All frames of a scan on their way through `stages`, in this order.

    A look costs the frames that are new and those still on their way, however many are through. Frames before
    the one at which a series was joined are not on their way; they are looked at when the series is over, and
    LOST then.

    Parameters
    ----------
    scan : Scan
    stages : sequence of str
        A frame is at the first that is not done with it.

    Attributes
    ----------
    n_frames : int
        Known at the last look, as `Scan.n_frames`.
    n_missed : int
        Of these, frames before the first that was received: nothing is known of them yet.
    ended : list of Ended
        What the last look found that a stage could not do; no later stage is asked about them.
    """

    def __init__(self, scan: Scan, stages: Sequence[str]) -> None:
        self._scan, self._stops = scan, [_Stop(scan, stage) for stage in stages]
        self.n_frames = self.n_missed = 0
        self.ended: list[Ended] = []

    def look(self) -> Numbers:
        """Returns the frames that all stages are done with since the last look, ascending."""
        coming = self._coming()
        self.ended = []
        for stop in self._stops:
            coming, ended = stop.look(coming)
            self.ended.append(ended)
        return coming

    def _coming(self) -> Numbers:
        """Return the frames that were not looked at before, ascending."""
        scan, n_before, n_missed_before = self._scan, self.n_frames, self.n_missed
        self.n_frames = max(n_before, scan.n_frames)
        n_missed = 0 if scan.count("subscriber", "closed") else scan.count("subscriber", "joined")
        # it only falls, where frames have overtaken others, once there are any
        self.n_missed = min(n_missed, n_missed_before if n_before else self.n_frames)
        earlier: Numbers = np.arange(self.n_missed, n_missed_before)
        return np.concatenate([earlier, np.arange(max(n_before, self.n_missed), self.n_frames)])

    def pending(self, index: int = -1) -> Numbers:
        """Returns the frames that wait for the stage `index`, ascending: those before are done with them."""
        return self._stops[index].pending

    def n_by_state(self, index: int = -1) -> NDArray[np.int64]:
        """Returns how many frames are in each `State` at the stage `index`, of those that came so far."""
        counts = self._stops[index].n_by_state.copy()
        counts[State.PENDING] = len(self._stops[index].pending)
        return counts

    def on_the_way(self) -> Numbers:
        """Returns all frames that a stage still has to look at, unordered."""
        return np.concatenate([stop.pending for stop in self._stops])


class ReadyFrames:
    """The frames that a stage may work on: its inputs are done with them and it has not been given them.

    Parameters
    ----------
    scan : Scan
    stage : str
        Its ledger is this process's own.
    inputs : sequence of str

    Attributes
    ----------
    numbers : (frame,) int64, ascending
        Ready as of the last look, and not taken since.
    """

    def __init__(self, scan: Scan, stage: str, inputs: Sequence[str]) -> None:
        self._scan, self._stage, self._passage = scan, stage, Passage(scan, inputs)
        self.numbers = NONE

    def look(self) -> Numbers:
        """Returns the frames that have become ready; those that an input could not do get the same reason."""
        ready = self._passage.look()
        for ended in self._passage.ended:
            self._pass_on(ended)
        new = ready[self._is_pending(ready)]
        self.numbers = merged(self.numbers, new)
        return new

    def take(self, numbers: Numbers) -> None:
        """Notes that these ready frames, in any order, are given to be worked on."""
        self.numbers = np.delete(self.numbers, np.searchsorted(self.numbers, numbers))

    def in_hand(self) -> Numbers:
        """Returns the frames that were taken and are still PENDING, ascending; reads the whole ledger."""
        numbers = np.arange(self._passage.n_frames)
        is_in_hand = self._is_pending(numbers)
        is_in_hand[: self._passage.n_missed] = False
        is_in_hand[self.numbers] = is_in_hand[self._passage.on_the_way()] = False
        return numbers[is_in_hand]

    def _is_pending(self, numbers: Numbers) -> NDArray[np.bool_]:
        return self._scan.states(self._stage, numbers) == State.PENDING

    def _pass_on(self, ended: Ended) -> None:
        is_own = self._is_pending(ended.numbers)
        for state in np.unique(ended.states[is_own]):
            numbers = ended.numbers[is_own & (ended.states == state)]
            self._scan.mark(self._stage, numbers, State(int(state)))


def merged(held: Numbers, new: Numbers) -> Numbers:
    """Returns both together, ascending; each is so already, and they have none in common."""
    if not new.size:
        return held
    if not held.size:
        return new
    both = np.concatenate([held, new])
    return both if held[-1] < new[0] else np.sort(both, kind="stable")
