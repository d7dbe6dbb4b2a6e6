"""The live image in another process: connect to a running pipeline and iterate.

The client asks, the server answers with the tiles that changed since, so a slow client skips versions and
never delays anybody. The web page, the terminal watcher and the scan policy are built on it.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from numpy.typing import NDArray

from stream.live.image import LiveImage, TiledImage, checked_buffers
from stream.wire import addresses
from stream.wire.codec import ProtocolError
from stream.wire.greeting import trouble_with_keys
from stream.wire.handshake import SILENCE_S, Client
from stream.wire.messages import (
    AnyMessage,
    Ask,
    ImageFigures,
    NoNews,
    ObjectUpdate,
    Reject,
    RunState,
    Welcome,
)

_WAKE_S = 0.2


class LiveReconstruction(Client):
    """The live image of a running pipeline; a context manager and an iterator of `LiveImage`.

    Iteration gives the newest image each time, skips what a slow loop missed, and ends after the final image
    of a scan. One thread at a time may use it.

    Parameters
    ----------
    address : str
        Where the pipeline publishes, as it prints at its start.
    insecure : bool
        Allows an address that other machines can reach without encryption.
    key, peers : path or None
        With CURVE: own secret key file, and the public key file of the pipeline.
    timeout_s : float
        How long iteration bears silence before it raises; a live server is never silent for more than 1 s.
    follow : bool
        Whether iteration goes on with the next scan instead of ending.

    Raises
    ------
    stream.wire.sockets.EndpointError
        If the address is malformed or open to strangers.
    """

    def __init__(
        self,
        address: str = addresses.LIVE,
        *,
        insecure: bool = False,
        key: Path | str | None = None,
        peers: Path | str | None = None,
        timeout_s: float = 10.0,
        follow: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__("client", address, insecure=insecure, key=key, peers=peers, clock=clock)
        self.timeout_s, self.follow = timeout_s, follow
        self.counts: Mapping[str, int] = {}  # the newest the server told, with or without an image
        self._run_state: RunState | None = None
        self._clock = clock
        self._has_asked = self._is_served = False
        self._canvas: TiledImage | None = None
        self._image: LiveImage | None = None

    def poll(self, timeout_s: float = 0.0) -> LiveImage | None:
        """Returns the next image, None if there was none within `timeout_s`; connects anew where needed.

        Raises
        ------
        ProtocolError
            If the server refuses this client or sends what cannot be understood.
        """
        deadline = self._clock() + timeout_s
        while True:
            image = self._turn(min(max(deadline - self._clock(), 0.0), _WAKE_S))
            if image is not None or self._clock() >= deadline:
                return image

    def latest(self, timeout_s: float = 1.0) -> LiveImage:
        """Returns the newest image, after waiting at most `timeout_s` for one newer than the last.

        Its `age_s` tells a quiet sample from a dead server.

        Raises
        ------
        TimeoutError
            If no image has ever come.
        """
        self.poll()  # an answer that has been waiting is as old as its question
        self.poll(timeout_s)
        if self._image is None:
            raise TimeoutError(self._complaint())
        return msgspec.structs.replace(self._image, age_s=self.age_s)

    @property
    def is_connected(self) -> bool:
        """Whether the server has accepted this client; it may have fallen silent since."""
        return self._connection.is_welcome

    @property
    def age_s(self) -> float:
        """Seconds since the server was last heard, infinite before its first word."""
        return self._connection.age_s

    @property
    def state(self) -> RunState | None:
        """What the run was seen to do, by stage; None while the server is silent or has not told."""
        return self._run_state if self.age_s <= SILENCE_S else None

    @property
    def silence_s(self) -> float:
        """Seconds for which the server has owed an answer; unlike `age_s` zero while nothing was asked."""
        return self._connection.silence_s

    def check_silence(self) -> None:
        """Raises TimeoutError once the server has owed an answer for longer than `timeout_s`."""
        if self.silence_s > self.timeout_s:
            raise TimeoutError(self._complaint())

    def close(self) -> None:
        """Hangs up; the next call would connect again."""
        super().close()
        self._has_asked = self._is_served = False
        # A connection that is made anew starts from a snapshot: versions may have begun anew as well.
        self._canvas = None

    def __iter__(self) -> Iterator[LiveImage]:
        return self

    def __next__(self) -> LiveImage:
        if self._image is not None and self._image.is_final and not self.follow:
            raise StopIteration
        while (image := self.poll(_WAKE_S)) is None:
            self.check_silence()
        return image

    def _turn(self, timeout_s: float) -> LiveImage | None:
        self._ask()
        try:
            heard = self._connection.hear(timeout_s)
            if heard is not None:
                return self._take(*heard)
        except ProtocolError as error:
            self.close()
            raise ProtocolError(f"{self.endpoint.address}: {error}") from error
        if self._connection.is_lost:
            self.close()
        return None

    def _ask(self) -> None:
        self._connection.open()
        if self._connection.is_welcome and not self._has_asked:
            canvas = self._canvas
            question = Ask(scan=canvas.scan, after=canvas.version) if canvas else Ask()
            self._connection.say(question, timeout_s=_WAKE_S)
            self._has_asked = True

    def _take(self, message: AnyMessage, arrays: list[NDArray[Any]]) -> LiveImage | None:
        match message:
            case Welcome():
                return None
            case Reject() if self._is_served:
                self.close()  # this server has never met us: it was started anew since we greeted
                return None
            case Reject(reason=reason):
                raise ProtocolError(f"this client is refused: {reason}")
            case NoNews(counts=counts, state=state):
                self._has_asked, self._is_served = False, True
                self.counts, self._run_state = counts or self.counts, state
                return None
            case ObjectUpdate():
                self._has_asked, self._is_served = False, True
                self._run_state = message.state
                return self._apply(message, arrays)
            case _:
                raise ProtocolError(f"wanted Welcome, ObjectUpdate or NoNews, got {type(message).__name__}")

    def _apply(self, update: ObjectUpdate, arrays: list[NDArray[Any]]) -> LiveImage | None:
        layers = checked_buffers(update, arrays)
        canvas = self._canvas
        if canvas is None or update.figures.scan != canvas.scan:
            canvas = self._canvas = TiledImage(update)
        elif not canvas.continues_with(update):
            self._canvas = None  # another process behind the same address: ask for everything
            return None
        self.counts = update.figures.counts
        previous, self._image = self._image, canvas.put(update, layers)
        return None if _is_same(previous, update.figures) else self._image

    def _complaint(self) -> str:
        if self.age_s < float("inf") and self.silence_s < SILENCE_S:
            return f"the pipeline at {self.endpoint.address} has no image yet; is the scan running?"
        silence = f"nobody has answered at {self.endpoint.address} for {self.silence_s:.1f} s"
        if trouble := trouble_with_keys(self.endpoint):
            return f"{silence}: {trouble}"
        return (
            f"{silence}; is the pipeline running, and is this the address it printed at its start "
            "(`ptychostream run`)?"
        )


def _is_same(image: LiveImage | None, update: ImageFigures) -> bool:
    """Whether `update` is the snapshot, after a new connection, of the image already given."""
    if image is None:
        return False
    return (image.scan, image.run_id, image.version) == (update.scan, update.run_id, update.version)
