"""The handshake: a client says which protocol it speaks, a server bids it welcome or says why not.

A server compares the protocol's number and a hash of its schema, so that another version is refused with a
sentence instead of misread. Who gives no schema has a program of his own and passes over fields that it does
not know: within one number of the protocol none goes away and none changes its meaning.
"""

import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from msgspec.msgpack import Decoder
from numpy.typing import NDArray

from stream.wire.codec import DECODER, ProtocolError, decode_with, encode
from stream.wire.greeting import trouble_with_keys
from stream.wire.messages import (
    MAX_REASON,
    PROTOCOL,
    SCHEMA_HASH,
    AnyMessage,
    Hello,
    Message,
    Reject,
    Welcome,
)
from stream.wire.sockets import Endpoint, Socket

SILENCE_S = 3.0  # a live server answers within a second; three mean that it is gone or was started anew


class Dialect(NamedTuple):
    """What is spoken at a door: the number of its protocol, and a hash of its messages."""

    protocol: int
    schema: str


LIVE = Dialect(PROTOCOL, SCHEMA_HASH)


def greeting(role: str, dialect: Dialect = LIVE) -> Hello:
    """Returns the first message of a client that plays `role`."""
    return Hello(protocol=dialect.protocol, schema=dialect.schema, role=role, pid=os.getpid())


def answer_to(hello: Hello, run_id: str, objection: str = "", dialect: Dialect = LIVE) -> Welcome | Reject:
    """Returns what the server of a run says to a greeting; with an `objection` of its own it refuses."""
    if hello.protocol != dialect.protocol or hello.schema not in ("", dialect.schema):
        theirs = f"schema {hello.schema}" if hello.schema else "a schema of its own"
        objection = (
            f"protocol {dialect.protocol} with schema {dialect.schema} is spoken here, {hello.role} speaks "
            f"protocol {hello.protocol} with {theirs}: install the same version of ptychostream on both sides"
        )
    return rejection(objection) if objection else Welcome(run_id=run_id)


def rejection(reason: object) -> Reject:
    """Returns a refusal with as much of `reason`, a text or an error, as the protocol lets through."""
    return Reject(reason=str(reason)[:MAX_REASON])


class Connection:
    """A client's connection to a server: opened with a greeting at its first use, and again after `close`.

    Parameters
    ----------
    endpoint : Endpoint
    role : str
        As what the client introduces itself.
    queue : int
        Messages held on each side.
    identity : bytes
        By which the server knows the connection; a free one is taken without.
    clock : callable
        Monotonic seconds.
    decoder : Decoder
        Of what the server says; the live protocol unless given.

    Attributes
    ----------
    is_welcome : bool
        Whether the server has accepted this client; it may have fallen silent since.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        role: str,
        *,
        queue: int = 4,
        identity: bytes = b"",
        clock: Callable[[], float] = time.monotonic,
        decoder: Decoder[Any] = DECODER,
    ) -> None:
        self.endpoint, self.role = endpoint, role
        self.is_welcome = False
        self._queue, self._identity, self._clock, self._decoder = queue, identity, clock, decoder
        self._socket: Socket | None = None
        self._spoke_at = self._heard_at = -math.inf
        self._owed_since: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a socket."""
        return self._socket is not None

    @property
    def age_s(self) -> float:
        """Seconds since the server was last heard, infinite before its first word."""
        return self._clock() - self._heard_at

    @property
    def silence_s(self) -> float:
        """Seconds for which the server has owed an answer; unlike `age_s` zero while nothing was asked."""
        return 0.0 if self._owed_since is None else self._clock() - self._owed_since

    @property
    def is_lost(self) -> bool:
        """Whether the server has left the last word unanswered for so long that it needs a new greeting."""
        return self._owed_since is not None and self._clock() - self._spoke_at > SILENCE_S

    def open(self) -> Socket:
        """Returns the socket; the server is greeted where it is new."""
        if self._socket is None:
            self._socket = Socket("DEALER", self.endpoint, queue=self._queue, identity=self._identity)
            self.say(greeting(self.role))
        return self._socket

    def greet(self, timeout_s: float) -> None:
        """Greets the server and returns when this client is welcome.

        Raises
        ------
        ProtocolError
            If nobody answers within `timeout_s`, or with anything else.
        """
        self.open()
        heard = self.hear(timeout_s)
        if heard is None:
            trouble = trouble_with_keys(self.endpoint)
            raise ProtocolError(
                f"nobody has answered {self.role} at {self.endpoint.address} for {timeout_s:g} s"
                f"{': ' * bool(trouble)}{trouble}"
            )
        match heard[0]:
            case Welcome():
                return
            case Reject(reason=reason):
                raise ProtocolError(f"{self.role} is refused at {self.endpoint.address}: {reason}")
            case other:
                raise ProtocolError(f"{self.endpoint.address}: wanted Welcome, got {type(other).__name__}")

    def say(self, message: Message, arrays: Sequence[NDArray[Any]] = (), timeout_s: float = 0.0) -> bool:
        """Sends a message; says whether it went within `timeout_s`."""
        went = self.open().send(encode(message, arrays), timeout_s)
        self._spoke_at = self._clock()
        if self._owed_since is None:
            self._owed_since = self._spoke_at
        return went

    def hear(self, timeout_s: float = 0.0) -> tuple[AnyMessage, list[NDArray[Any]]] | None:
        """Returns the next message and its arrays, `Welcome` too; None if none comes within `timeout_s`.

        Raises
        ------
        ProtocolError
            If what comes is no message of this protocol.
        """
        parts = self._socket.receive(timeout_s) if self._socket else None
        if parts is None:
            return None
        self._heard_at, self._owed_since = self._clock(), None
        message, arrays = decode_with(self._decoder, parts)
        self.is_welcome = self.is_welcome or isinstance(message, Welcome)
        return message, arrays

    def close(self, flush_s: float = 0.0) -> None:
        """Hangs up; what was said last has `flush_s` to leave. The next word would connect again."""
        if self._socket is not None:
            self._socket.flush_and_close(flush_s)
        self._socket, self.is_welcome = None, False


def client_endpoint(
    address: str, *, insecure: bool, key: Path | str | None, peers: Path | str | None
) -> Endpoint:
    """Returns where a client connects, checked (`Endpoint.check`); files may be given as strings."""
    own, theirs = (None if file is None else Path(file) for file in (key, peers))
    endpoint = Endpoint(address=address, insecure=insecure, key=own, peers=theirs)
    endpoint.check()
    return endpoint


class Client:
    """What all clients have in common: an address, a connection, and an end; a context manager.

    Parameters
    ----------
    role, queue, clock
        As of `Connection`.
    address, insecure, key, peers
        As of `client_endpoint`, which raises an `EndpointError` for an address that is open to strangers.

    Attributes
    ----------
    endpoint : Endpoint
    """

    def __init__(
        self,
        role: str,
        address: str,
        *,
        insecure: bool,
        key: Path | str | None,
        peers: Path | str | None,
        queue: int = 4,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.endpoint = client_endpoint(address, insecure=insecure, key=key, peers=peers)
        self._connection = Connection(self.endpoint, role, queue=queue, clock=clock)

    def close(self) -> None:
        """Hangs up; the next call would connect again."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
