"""The stitcher's door: who asked for what, and who is owed an answer.

Every `Ask` gets exactly one answer: an update as soon as there is one, or `NoNews` after a second; a client
that asks again before its answer has changed its question. A client that does not ask costs nothing.
"""

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from stream.wire.codec import Buffer, ProtocolError, decode, encode
from stream.wire.handshake import answer_to, rejection
from stream.wire.messages import Ask, Hello, NoNews, ObjectUpdate, RunState, Welcome

HEARTBEAT_S = 1.0
MOST_CLIENTS = 256

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
    """

    def __init__(
        self,
        run_id: str,
        find_news: FindNews,
        clock: Callable[[], float],
        tell: Tell = lambda: ({}, None),
    ) -> None:
        self._run_id, self._find_news, self._clock, self._tell = run_id, find_news, clock, tell
        self._waiting: dict[bytes, tuple[Ask, float]] = {}
        self._welcome: dict[bytes, None] = {}  # the one that spoke last is last

    def exchange(self, requests: Sequence[Sequence[Buffer]]) -> list[list[Buffer]]:
        """Takes [client, message, ...] parts and returns those to send."""
        replies = [reply for request in requests for reply in self._take(request)]
        now = self._clock()
        for client, (ask, since) in list(self._waiting.items()):
            news = self._find_news(ask.scan, ask.after)
            if news is not None:
                replies.append([client, *encode(*news)])
            elif now - since >= HEARTBEAT_S:
                counts, state = self._tell()
                replies.append([client, *encode(NoNews(counts=counts, state=state))])
            else:
                continue
            del self._waiting[client]
        return replies

    def _take(self, request: Sequence[Buffer]) -> list[list[Buffer]]:
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
