"""The stitcher's door: who asked for what, and who is owed an answer.

Every `Ask` gets exactly one answer: an update as soon as there is one, or `NoNews` after a second; a client
that asks again before its answer has changed its question. A client that does not ask costs nothing, and
what several ask for is put together, encoded and copied once: all of them are sent the same bytes.
"""

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from stream.wire.codec import Buffer, ProtocolError, decode, encode
from stream.wire.handshake import answer_to, rejection
from stream.wire.messages import Ask, Hello, NoNews, ObjectUpdate, RunState, Welcome
from stream.wire.sockets import Part, shared

HEARTBEAT_S = 1.0
MOST_CLIENTS = 256
KEPT_S = 0.2  # for which an answer is good for others that ask for the same
MOST_KEPT_BYTES = 32 << 20

Tell = Callable[[], tuple[dict[str, int], RunState | None]]
FindNews = Callable[[str, int], tuple[ObjectUpdate, list[NDArray[Any]]] | None]


class Door:
    """Answers clients of one live picture.

    Parameters
    ----------
    run_id : str
        Told to every client that is welcome.
    find_news : callable
        (scan, after) -> update and its buffers, or None when the client has everything.
    clock : callable
        Monotonic seconds.
    tell : callable
        Frames by where they are and how the run stands, sent along when there is no news.
    newest : callable
        Tells versions apart: while it returns the same, so does `find_news`, but for how the run stands.
    """

    def __init__(
        self,
        run_id: str,
        find_news: FindNews,
        clock: Callable[[], float],
        tell: Tell = lambda: ({}, None),
        newest: Callable[[], object] = object,
    ) -> None:
        self._run_id, self._find_news, self._clock, self._tell = run_id, find_news, clock, tell
        self._answers = _Answers(newest)
        self._waiting: dict[bytes, tuple[Ask, float]] = {}
        self._welcome: dict[bytes, None] = {}  # the one that spoke last is last

    def exchange(self, requests: Sequence[Sequence[Buffer]]) -> list[list[Part]]:
        """Takes [client, message, ...] parts and returns those to send."""
        replies = [reply for request in requests for reply in self._take(request)]
        now, no_news = self._clock(), list[Part]()
        self._answers.forget(now)
        # Those that ask the same one after the other: of large answers one at a time is held.
        for client, (ask, since) in sorted(self._waiting.items(), key=_question):
            if (answer := self._answer_to(ask)) is None:
                if now - since < HEARTBEAT_S:
                    continue
                answer = no_news = no_news or shared(self._no_news())
            replies.append([client, *answer])
            del self._waiting[client]
        return replies

    def _answer_to(self, ask: Ask) -> list[Part] | None:
        question = ask.scan, ask.after
        if (answer := self._answers.get(question)) is None:
            news = self._find_news(*question)
            if news is None:
                return None
            answer = shared(encode(*news))
            self._answers.keep(question, answer)
        return answer

    def _no_news(self) -> list[Buffer]:
        counts, state = self._tell()
        return encode(NoNews(counts=counts, state=state))

    def _take(self, request: Sequence[Buffer]) -> list[list[Part]]:
        client = bytes(request[0])
        try:
            message, _ = decode(request[1:])
        except ProtocolError as error:
            return [[client, *encode(rejection(error))]]
        if isinstance(message, Hello):
            answer = answer_to(message, self._run_id)
            if isinstance(answer, Welcome):
                self._remember(client)
            return [[client, *encode(answer)]]
        if isinstance(message, Ask) and client in self._welcome:
            self._remember(client)
            self._waiting[client] = (message, self._clock())
            return []
        reason = f"{type(message).__name__} before Hello: greet first, then Ask"
        return [[client, *encode(rejection(reason))]]

    def _remember(self, client: bytes) -> None:
        """Note that `client` has spoken; forget who has been silent longest: clients leave without a word."""
        self._welcome.pop(client, None)
        self._welcome[client] = None
        if len(self._welcome) > MOST_CLIENTS:
            del self._welcome[next(iter(self._welcome))]


def _question(waiting: tuple[bytes, tuple[Ask, float]]) -> tuple[str, int]:
    ask, _ = waiting[1]
    return ask.scan, ask.after


class _Answers:
    """What was answered to one client and is as good for others: nobody publishes twice in a moment.

    Parameters
    ----------
    newest : callable
        Tells versions apart.
    """

    def __init__(self, newest: Callable[[], object]) -> None:
        self._newest = newest
        self._version: object = None
        self._good_until = float("-inf")
        self._by_question: dict[tuple[str, int], list[Part]] = {}
        self._n_bytes = 0
        self.get = self._by_question.get

    def forget(self, now: float) -> None:
        """Forgets all answers when there is another version, or a moment is over."""
        version = self._newest()
        if version != self._version or now >= self._good_until:
            self._version, self._good_until = version, now + KEPT_S
            self._clear()

    def keep(self, question: tuple[str, int], answer: list[Part]) -> None:
        """Keeps an answer, alone where those of this moment have become large together."""
        n_bytes = sum(map(len, answer))
        if self._n_bytes + n_bytes > MOST_KEPT_BYTES:
            self._clear()
        self._by_question[question] = answer
        self._n_bytes += n_bytes

    def _clear(self) -> None:
        self._by_question.clear()
        self._n_bytes = 0
