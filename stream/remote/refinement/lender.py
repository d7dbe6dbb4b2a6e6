"""The run's side of workers on other machines that refine: one has the scan, the others wait. No sockets.

Here everything that comes from outside is checked; what is lent, and what becomes of what comes back, is for
the `Loan` to say.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from stream.record.scan import Numbers
from stream.remote.answering import NO_NEWS_S, Answer, Answering, Known
from stream.remote.asking import Arrays
from stream.remote.files import SharedFiles
from stream.remote.messages import (
    AskFrames,
    AskScan,
    Fetch,
    Given,
    Leased,
    Lend,
    Over,
    Question,
    Refined,
    Setup,
    Taken,
    Tiles,
    Unusable,
    Values,
    Wait,
)
from stream.wire.foreign import printable
from stream.wire.messages import MAX_REASON

log = logging.getLogger(__name__)

ASKS_S = 1.0  # who has asked for a scan so lately is ready for one
MOST_WORKERS = 16  # one refines, the others wait


class Loan(Protocol):
    """A scan that may be lent."""

    def lend(self, lease: int) -> Lend | None:
        """Returns what a worker is told that gets the scan now, None where it is not to be lent by now."""

    def numbers(self, after: int, n_most: int) -> Numbers:
        """Returns which frames are to be refined, in their order, after so many."""

    @property
    def is_all(self) -> bool:
        """Whether no more will come."""

    def values(self, fetch: Fetch, arrays: Arrays) -> tuple[Values, Arrays]:
        """Returns values of a column; raises ValueError where they may not be had."""

    def take_tiles(self, tiles: Tiles, arrays: Arrays) -> None:
        """Takes tiles of a state; raises ValueError where they cannot be some."""

    def take(self, refined: Refined, arrays: Arrays) -> None:
        """Takes a state; raises ValueError where it cannot be one."""

    def take_unusable(self, reason: str) -> None:
        """Takes note that nothing can come of the scan, as the worker says."""

    def note(self, counts: Mapping[str, int]) -> None:
        """Takes note of how far the worker is."""

    def has_gone(self) -> None:
        """Takes note that the worker has gone."""


class Lender(Answering[Known]):
    """Answers workers that refine.

    Parameters
    ----------
    run_id : str
    role : str
        Of the workers that are let in.
    setup : Setup
    files : SharedFiles
        Those of `setup`, and of what is lent.
    clock : callable
        Monotonic seconds.
    first_lease : int
        Above all numbers that a process before this one has given.
    """

    gone_s = 5.0

    def __init__(
        self,
        run_id: str,
        role: str,
        setup: Setup,
        files: SharedFiles,
        *,
        clock: Callable[[], float],
        first_lease: int,
    ) -> None:
        super().__init__(run_id, role, setup, files, clock)
        self._loan: Loan | None = None
        self._lease, self._next_lease = first_lease, first_lease + 1
        self._holder: bytes | None = None
        self._lent: Lend | None = None

    @property
    def is_lent(self) -> bool:
        """Whether a worker has the scan."""
        return self._holder is not None

    @property
    def is_asked(self) -> bool:
        """Whether there is a worker that is ready for a scan."""
        now = self._clock()
        return any(
            isinstance(it.asked, AskScan) or now - it.asked_at < ASKS_S
            for client, it in self._workers.items()
            if client != self._holder
        )

    def offer(self, loan: Loan | None) -> None:
        """Lends `loan` from now on, and nothing else: whoever has another one lets go of it."""
        self._loan, self._holder, self._lent = loan, None, None

    def _has_room(self) -> bool:
        return self.n_workers < MOST_WORKERS

    def _new_worker(self, now: float) -> Known:
        return Known(heard_at=now)

    def _forget(self, client: bytes) -> None:
        del self._workers[client]
        if client == self._holder:
            self._holder = self._lent = None
            if self._loan is not None:
                self._loan.has_gone()

    def _has_time(self, worker: Known, message: Question) -> bool:
        return isinstance(message, AskScan | AskFrames)

    def _late_answer(self, client: bytes, worker: Known, now: float) -> Answer | None:
        ask, is_old = worker.asked, now - worker.asked_at >= NO_NEWS_S
        if isinstance(ask, AskScan):
            lent = self._lend_to(client)
            return (lent, []) if lent is not None else (Wait(), []) if is_old else None
        if not isinstance(ask, AskFrames):
            return None
        if self._loan is None or not self._has(client, ask):
            return Over(), []
        self._loan.note(ask.counts)
        numbers = self._loan.numbers(ask.after, ask.room)
        is_all = self._loan.is_all and not self._loan.numbers(ask.after + len(numbers), 1).size
        return (Given(is_all=is_all), [numbers]) if numbers.size or is_old else None

    def _lend_to(self, client: bytes) -> Lend | None:
        if client == self._holder:  # what it was told was lost
            return self._lent
        if self._holder is not None or self._loan is None:
            return None
        lent = self._loan.lend(self._next_lease)
        if lent is not None:
            self._lease, self._next_lease = lent.lease, lent.lease + 1
            self._holder, self._lent = client, lent
        return lent

    def _has(self, client: bytes, message: Leased) -> bool:
        return client == self._holder and message.lease == self._lease

    def _find(self, client: bytes, message: Question, arrays: Arrays) -> Answer:
        match message:
            case Fetch():
                if client != self._holder or self._loan is None:
                    return Over(), []
                return self._loan.values(message, arrays)
            case Tiles() | Refined() | Unusable():
                return self._take(client, message, arrays), []
        raise ValueError(f"a worker of {self._role} asks, and sends no {type(message).__name__}")

    def _take(self, client: bytes, message: Tiles | Refined | Unusable, arrays: Arrays) -> Question:
        if self._loan is None or not self._has(client, message):
            return Over()
        match message:
            case Tiles():
                self._loan.take_tiles(message, arrays)
            case Refined():
                self._loan.take(message, arrays)
            case Unusable(reason=reason):
                self._loan.take_unusable(printable(reason, MAX_REASON))
        return Taken()
