"""The run's side of workers on other machines: who is let in, what they may ask, who has gone. No sockets.

What comes from outside is checked here, and by what finds the answers.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from stream.remote.asking import Arrays
from stream.remote.files import SharedFiles
from stream.remote.messages import DECODER, DIALECT, AskPart, AskSetup, Leave, Part, Question, Refused, Setup
from stream.wire.codec import Buffer, ProtocolError, decode_with, encode
from stream.wire.foreign import printable
from stream.wire.handshake import answer_to, rejection
from stream.wire.messages import MAX_REASON, Hello, Reject, Welcome

NO_NEWS_S = 0.15  # after which a worker hears that there is nothing new: the line is good

Answer = tuple[Question, Arrays]


def first_lease() -> int:
    """Returns a number above all that a process before this one has given."""
    return time.time_ns() >> 20  # about a thousand a second since 1970


@dataclass(slots=True, kw_only=True)
class Known:
    """A worker that is welcome."""

    heard_at: float
    asked: Question | None = None  # not answered yet
    asked_at: float = 0.0


Worker = TypeVar("Worker", bound=Known)


class Answering(ABC, Generic[Worker]):
    """Answers workers.

    Parameters
    ----------
    run_id : str
    role : str
        Of the workers that are let in.
    setup : Setup
    files : SharedFiles
        Those of `setup`; what comes with a scan is added.
    clock : callable
        Monotonic seconds.

    Attributes
    ----------
    gone_s : float
        A worker that is not heard for so long has gone; a line may be cut for less.
    n_refused : int
        Questions that could not be answered.
    """

    gone_s: float

    def __init__(
        self, run_id: str, role: str, setup: Setup, files: SharedFiles, clock: Callable[[], float]
    ) -> None:
        self._run_id, self._role, self._setup, self._files, self._clock = run_id, role, setup, files, clock
        self._workers: dict[bytes, Worker] = {}
        self.n_refused = 0

    @property
    def n_workers(self) -> int:
        """How many workers are there."""
        return len(self._workers)

    def exchange(self, requests: Sequence[Sequence[Buffer]]) -> list[list[Buffer]]:
        """Takes [client, message, ...] parts and returns those to send."""
        replies = []
        for request in requests:
            client = bytes(request[0])
            if answer := self._answer(client, request[1:]):
                replies.append([client, *answer])
        now = self._clock()
        for client, worker in list(self._workers.items()):
            if now - worker.heard_at > self.gone_s:
                self._lose(client)
            elif (found := self._late_answer(client, worker, now)) and worker.asked is not None:
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
        if self._has_time(worker, message):
            worker.asked, worker.asked_at = message, worker.heard_at
            return None
        try:
            found = self._found(client, message, arrays)
        except (ValueError, OSError) as error:
            self.n_refused += 1
            found = Refused(reason=printable(str(error), MAX_REASON)), []
        return _encoded(message, found)

    def _greet(self, client: bytes, hello: Hello) -> Welcome | Reject:
        is_new, objection = client not in self._workers, ""
        if hello.role != self._role:
            objection = f"workers of {self._role} are let in here, not of {printable(hello.role, 50)}"
        elif is_new and not self._has_room():
            objection = f"{self.n_workers} workers are here, and no more are taken"
        answer = answer_to(hello, self._run_id, objection, DIALECT)
        if isinstance(answer, Welcome):
            if is_new:
                self._workers[client] = self._new_worker(self._clock())
            self._workers[client].heard_at = self._clock()
        return answer

    def _found(self, client: bytes, message: Question, arrays: Arrays) -> Answer:
        match message:
            case AskSetup():
                return self._setup, []
            case AskPart(sha256=sha256, offset=offset):
                return Part(), [self._files.part(sha256, offset)]
        return self._find(client, message, arrays)

    @abstractmethod
    def _has_room(self) -> bool:
        """Say whether one more worker is taken."""

    @abstractmethod
    def _new_worker(self, now: float) -> Worker:
        """Return one more worker."""

    @abstractmethod
    def _forget(self, client: bytes) -> None:
        """Let go of a worker that leaves or has gone."""

    def _lose(self, client: bytes) -> None:
        """Let go of a worker that is not heard any more."""
        self._forget(client)

    @abstractmethod
    def _has_time(self, worker: Worker, message: Question) -> bool:
        """Say whether `_late_answer` answers a question, when there is something to answer."""

    @abstractmethod
    def _late_answer(self, client: bytes, worker: Worker, now: float) -> Answer | None:
        """Return the answer to what a worker has asked, None where it has not, or may wait."""

    @abstractmethod
    def _find(self, client: bytes, message: Question, arrays: Arrays) -> Answer:
        """Return the answer to a question; raise ValueError or OSError where there is none."""


def _encoded(question: Question, found: Answer) -> list[Buffer]:
    answer, values = found
    return encode(msgspec.structs.replace(answer, question=question.question), values)
