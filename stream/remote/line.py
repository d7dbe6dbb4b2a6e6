"""The line from a worker to its run: opened anew when it falls silent, and all is asked again."""

import math
import secrets
import socket
import time
from collections.abc import Callable
from typing import Any, Protocol

from numpy.typing import NDArray

from stream.remote.asking import Asker
from stream.remote.messages import DECODER, DIALECT, AnyRemote, Leave, Question
from stream.wire.codec import ProtocolError, decode_with, encode
from stream.wire.greeting import trouble_with_keys
from stream.wire.handshake import greeting
from stream.wire.messages import MAX_REASON, Message, Reject, Welcome
from stream.wire.sockets import Endpoint, Socket, wait_for_message

POLL_S = 0.05
SILENCE_S = 0.4  # a run answers twice as often, also when it has nothing
GREETING_S = 0.2  # the same for a greeting, which is answered at once
GREETINGS_ALIKE = 5  # before the next ones are given twice the time: a busy run is slow, not gone
FIRST_S = 3.0  # for the first answer of all: how long the way takes is not known
SLOWER, MOST_SILENCE_S = 2.0, 10.0
FAREWELL_S = 0.5

Heard = tuple[AnyRemote, list[NDArray[Any]]]


class RemoteStage(Protocol):
    """A stage at work for a run elsewhere; what it asks goes through the `Asker` that it was made with.

    Attributes
    ----------
    n_done : int
        Frames.
    """

    n_done: int

    def turn(self) -> bool:
        """Does a piece of work; says whether there was any."""

    def close(self) -> None:
        """Lets go of what is in hand."""


class Line:
    """A socket to the run that is replaced when it seems dead.

    Parameters
    ----------
    endpoint : Endpoint
    role : str
        The stage that this side runs.
    clock : callable
        Monotonic seconds.

    Attributes
    ----------
    is_welcome : bool
        Whether the run has taken this socket's greeting.
    heard_at : float
        When the run said anything, or the line was made.
    """

    def __init__(self, endpoint: Endpoint, role: str, clock: Callable[[], float]) -> None:
        self.endpoint, self._role, self._clock = endpoint, role, clock
        # The same for all sockets: the run knows which leases this worker holds.
        self._identity = f"{socket.gethostname()[:64]}-{secrets.token_hex(8)}".encode()
        self._socket: Socket | None = None
        self.is_welcome = False
        self.heard_at = self._quiet_since = self._opened_at = clock()
        self._greeting_s, self._answer_s = FIRST_S, SILENCE_S  # longest silence that is still none
        self._is_answered, self._n_unheard = False, 0  # greetings in a row

    @property
    def is_open(self) -> bool:
        """Whether there is a socket."""
        return self._socket is not None

    def open(self) -> Socket:
        """Returns the socket; the run is greeted where it is new."""
        if self._socket is None:
            self._socket = Socket("DEALER", self.endpoint, queue=64, identity=self._identity)
            self.is_welcome = self._is_answered = False
            self._opened_at = self._quiet_since = self._clock()
            self.say(greeting(self._role, DIALECT))
        return self._socket

    def say(self, message: Message, arrays: Any = ()) -> None:
        """Sends a message; one that is lost is asked again by whoever misses the answer."""
        self.open().send(encode(message, arrays))

    def hear(self) -> Heard | None:
        """Returns the next message, None where there is none.

        Raises
        ------
        ProtocolError
            If it is none of this protocol.
        """
        parts = self._socket.receive() if self._socket else None
        if parts is None:
            return None
        heard = decode_with(DECODER, parts)
        now = self._clock()
        self.heard_at = self._quiet_since = now
        if isinstance(heard[0], Welcome):
            self.is_welcome, self._n_unheard = True, 0
            self._greeting_s = max(GREETING_S, 3 * (now - self._opened_at))
        elif isinstance(heard[0], Question):
            self._is_answered = True
        return heard

    def listened(self) -> None:
        """Takes note that this side was busy: the run was not silent, nobody listened."""
        self._quiet_since = self._clock()

    def look_after(self, *, is_waiting: bool) -> None:
        """Hangs up if an answer is owed, by `is_waiting` or to the greeting, and none comes."""
        slower = SLOWER ** (self._n_unheard // GREETINGS_ALIKE)
        patience_s = self._answer_s if self.is_welcome else min(slower * self._greeting_s, MOST_SILENCE_S)
        if (self.is_welcome and not is_waiting) or self._clock() - self._quiet_since <= patience_s:
            return
        if self.is_welcome and not self._is_answered:  # it is there, and slow
            self._answer_s = min(SLOWER * self._answer_s, MOST_SILENCE_S)
        self._n_unheard = 0 if self.is_welcome else min(self._n_unheard + 1, 100)
        self.close()

    def close(self, flush_s: float = 0.0) -> None:
        """Hangs up; the next word connects again."""
        if self._socket is not None:
            self._socket.flush_and_close(flush_s)
        self._socket, self.is_welcome = None, False


def work_for(
    endpoint: Endpoint,
    role: str,
    make: Callable[[Asker], RemoteStage],
    *,
    tell: Callable[[str], object],
    patience_s: float = math.inf,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Works for the run at `endpoint`, and for the next one there, until nobody answers any more.

    Parameters
    ----------
    endpoint : Endpoint
    role : str
        Name of the stage.
    make : callable
        Makes a worker that has asked nothing yet.
    tell : callable
        Gets what a person may want to know, a sentence at a time.
    patience_s : float
        How long nobody may answer.
    clock : callable
        Monotonic seconds.

    Raises
    ------
    ProtocolError
        If the run refuses this worker.
    TimeoutError
        If nobody has answered for `patience_s`.
    ValueError
        If the worker can do nothing for this run.
    """
    work = _Work(Line(endpoint, role, clock), make, tell)
    try:
        while True:
            if work.turn():
                work.line.listened()
                continue
            work.line.look_after(is_waiting=work.asker.is_waiting)
            if clock() - work.line.heard_at > patience_s:
                raise TimeoutError(_silence(endpoint, patience_s))
            wait_for_message([work.line.open()], POLL_S)
    finally:
        work.close()


class _Work:
    """What is done for the run that has welcomed this machine last."""

    def __init__(
        self, line: Line, make: Callable[[Asker], RemoteStage], tell: Callable[[str], object]
    ) -> None:
        self.line, self.asker = line, Asker()
        self._make, self._tell = make, tell
        self._worker: RemoteStage | None = None
        self._run_id = ""

    def turn(self) -> bool:
        """Takes what was heard, works on it and asks what is to be asked; says whether it had work."""
        while (heard := _next(self.line)) is not None:
            self._take(*heard)
        is_busy = self._worker is not None and self._worker.turn()
        if self.line.is_welcome:
            for question, values in self.asker.due():
                self.line.say(question, values)
        return is_busy

    def _take(self, message: AnyRemote, arrays: list[NDArray[Any]]) -> None:
        if isinstance(message, Welcome) and message.run_id == self._run_id:
            self.asker.ask_again()
        elif isinstance(message, Welcome):
            if self._worker is not None:
                self._worker.close()
            self._run_id, self.asker = message.run_id, Asker()
            self._worker = self._make(self.asker)
            self._tell(f"works for run {self._run_id} at {self.line.endpoint.address}")
        elif isinstance(message, Reject):
            _refused(self.line, message)
        elif isinstance(message, Question):
            self.asker.take(message, arrays)

    def close(self) -> None:
        """Says farewell and hangs up."""
        if self._worker is not None:
            self._worker.close()
            if self.line.is_welcome:
                self.line.say(Leave())
        self.line.close(FAREWELL_S)


def _next(line: Line) -> Heard | None:
    try:
        return line.hear()
    except ProtocolError:
        line.close()  # what follows on this socket is no better
        return None


def _refused(line: Line, message: Reject) -> None:
    if not line.is_welcome:
        raise ProtocolError(f"{line.endpoint.address} refuses this worker: {message.reason[:MAX_REASON]}")
    line.close()  # the run's side was started again and does not know this one


def _silence(endpoint: Endpoint, patience_s: float) -> str:
    trouble = trouble_with_keys(endpoint)
    return f"nobody has answered at {endpoint.address} for {patience_s:g} s{': ' * bool(trouble)}{trouble}"
