"""The run's side of workers on other machines that refine: one has the scan, the others wait. No sockets.

Here everything that comes from outside is checked; what is lent, and what becomes of what comes back, is for
the `Loan` to say.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from stream.record.scan import Numbers
from stream.remote.asking import Arrays
from stream.remote.files import SharedFiles
from stream.remote.messages import (
    DECODER,
    DIALECT,
    AskFrames,
    AskPart,
    AskScan,
    AskSetup,
    Fetch,
    Given,
    Leased,
    Leave,
    Lend,
    Over,
    Part,
    Question,
    Refined,
    Refused,
    Setup,
    Taken,
    Tiles,
    Unusable,
    Values,
    Wait,
)
from stream.wire.codec import Buffer, ProtocolError, decode_with, encode
from stream.wire.foreign import printable
from stream.wire.handshake import answer_to, rejection
from stream.wire.messages import MAX_REASON, Hello, Reject, Welcome

log = logging.getLogger(__name__)

NO_NEWS_S = 0.15  # after which a worker hears that there is nothing new: the line is good
GONE_S = 5.0  # a worker that is not heard for so long has gone; a line may be cut for less
ASKS_S = 1.0  # who has asked for a scan so lately is ready for one
MOST_WORKERS = 16  # one refines, the others wait

Answer = tuple[Question, Arrays]


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


@dataclass(slots=True)
class _Worker:
    """A worker that is welcome."""

    heard_at: float
    asked: AskScan | AskFrames | None = None  # not answered yet
    asked_at: float = 0.0


class Lender:
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

    Attributes
    ----------
    n_refused : int
        Questions that could not be answered.
    """

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
        self._run_id, self._role, self._setup, self._files, self._clock = run_id, role, setup, files, clock
        self._workers: dict[bytes, _Worker] = {}
        self._loan: Loan | None = None
        self._lease, self._next_lease = first_lease, first_lease + 1
        self._holder: bytes | None = None
        self._lent: Lend | None = None
        self.n_refused = 0

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

    def exchange(self, requests: Sequence[Sequence[Buffer]]) -> list[list[Buffer]]:
        """Takes [client, message, ...] parts and returns those to send."""
        replies = []
        for request in requests:
            client = bytes(request[0])
            if answer := self._answer(client, request[1:]):
                replies.append([client, *answer])
        now = self._clock()
        for client, worker in list(self._workers.items()):
            if now - worker.heard_at > GONE_S:
                self._forget(client)
            elif worker.asked is not None and (found := self._late_answer(client, worker, now)):
                replies.append([client, *_encoded(worker.asked, found)])
                worker.asked = None
        return replies

    def _answer(self, client: bytes, parts: Sequence[Buffer]) -> list[Buffer] | None:
        """Return what is answered at once, None where the answer has time."""
        try:
            message, arrays = decode_with(DECODER, parts)
        except ProtocolError as error:
            self.n_refused += 1
            return encode(rejection(error))
        if isinstance(message, Hello):
            return encode(self._greet(client, message))
        worker = self._workers.get(client)
        if worker is None or not isinstance(message, Question):
            return encode(rejection(f"{type(message).__name__}: greet first, then ask"))
        worker.heard_at = self._clock()
        if isinstance(message, Leave):
            self._forget(client)
            return None
        if isinstance(message, AskScan | AskFrames):
            worker.asked, worker.asked_at = message, worker.heard_at
            return None
        try:
            found = self._find(client, message, arrays)
        except (ValueError, OSError) as error:
            self.n_refused += 1
            found = Refused(reason=printable(str(error), MAX_REASON)), []
        return _encoded(message, found)

    def _greet(self, client: bytes, hello: Hello) -> Welcome | Reject:
        is_new, objection = client not in self._workers, ""
        if hello.role != self._role:
            objection = f"workers of {self._role} are let in here, not of {printable(hello.role, 50)}"
        elif is_new and len(self._workers) >= MOST_WORKERS:
            objection = f"{len(self._workers)} workers are here, and no more are taken"
        answer = answer_to(hello, self._run_id, objection, DIALECT)
        if isinstance(answer, Welcome):
            if is_new:
                self._workers[client] = _Worker(self._clock())
            self._workers[client].heard_at = self._clock()
        return answer

    def _forget(self, client: bytes) -> None:
        del self._workers[client]
        if client == self._holder:
            self._holder = self._lent = None
            if self._loan is not None:
                self._loan.has_gone()

    def _late_answer(self, client: bytes, worker: _Worker, now: float) -> Answer | None:
        """Return the answer to a question that may wait, None while it does."""
        is_old = now - worker.asked_at >= NO_NEWS_S
        if isinstance(worker.asked, AskScan):
            lent = self._lend_to(client)
            return (lent, []) if lent is not None else (Wait(), []) if is_old else None
        ask = worker.asked
        if ask is None or self._loan is None or not self._has(client, ask):
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
            case AskSetup():
                return self._setup, []
            case AskPart(sha256=sha256, offset=offset):
                return Part(), [self._files.part(sha256, offset)]
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


def _encoded(question: Question, found: Answer) -> list[Buffer]:
    answer, values = found
    return encode(msgspec.structs.replace(answer, question=question.question), values)
