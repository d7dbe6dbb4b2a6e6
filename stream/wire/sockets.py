"""The only file that knows ZeroMQ: sockets with bounds, doors that are closed to strangers, waiting.

A socket that other machines reach needs CURVE keys, or `insecure`; each has bounded queues and messages.
"""

import atexit
import functools
import itertools
import logging
import re
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import zmq
import zmq.auth

from stream.wire.codec import Buffer

if TYPE_CHECKING:
    from zmq.auth.thread import ThreadAuthenticator

Kind = Literal["PULL", "PUSH", "PUB", "XPUB", "SUB", "ROUTER", "DEALER"]
Part = Buffer | zmq.Frame  # of a message that is sent

MAX_MESSAGE_BYTES = 512 << 20  # of one part
MAX_REQUEST_BYTES = 64 << 20  # of what strangers ask a server, and of documents
MAX_PORT = 65535
MOST_STRANGERS = 16  # that a door names, each once
WRONG_KEY, NO_HANDSHAKE = STRANGERS = ("wrong_key", "no_handshake")  # why somebody was not let in
_ADDRESS = re.compile(r"(?:ipc|inproc)://.+|tcp://[^;]+:(?:\*|(\d+))")
_LOOPBACK = re.compile(r"(ipc|inproc)://.+|tcp://(127\.\d+\.\d+\.\d+|localhost|\[::1\]):(\d+|\*)")

_RECEIVE = ("PULL", "SUB", "ROUTER")
_REASONS = {  # who hangs up by himself, as one that asks who listens, was not refused
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: WRONG_KEY,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: NO_HANDSHAKE,
}
_WHY = "keys on one side alone, a wrong key for the other side, or no ZeroMQ"

log = logging.getLogger(__name__)


class EndpointError(ValueError):
    """An address that cannot or must not be used."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a socket connects to or binds, and who may use it.

    Attributes
    ----------
    address : str
        "tcp://host:port" or "ipc://path"; port "*" with `bind` takes a free one.
    bind : bool
        Whether this side owns the address.
    insecure : bool
        Allows an address that other machines can reach without encryption.
    key : Path or None
        Own CURVE secret key file (as written by `ptychostream keys`).
    peers : Path or None
        With `bind` the folder of allowed clients' public keys, beside whom the holder of `key` gets in;
        otherwise the server's public key file.
    """

    address: str
    bind: bool = False
    insecure: bool = False
    key: Path | None = None
    peers: Path | None = None

    def check(self) -> None:
        """Raises EndpointError unless the address is local, encrypted or knowingly open."""
        address = _ADDRESS.fullmatch(self.address)
        if address is None or int(address[1] or 0) > MAX_PORT:
            raise EndpointError(f"address {self.address!r}: wanted tcp://host:port or ipc://path")
        if (self.key is None) != (self.peers is None):
            lone = f"peers {self.peers}" if self.key is None else f"key {self.key}"
            raise EndpointError(f"{self.address}: CURVE needs both `key` and `peers`, got {lone} alone")
        if _LOOPBACK.fullmatch(self.address) or self.insecure or self.key:
            return
        raise EndpointError(
            f"{self.address} can be reached from other machines: give `key` and `peers` (CURVE), "
            "or say `insecure: true` if the network is trusted"
        )


def read_keys(endpoint: Endpoint) -> tuple[bytes, bytes, bytes | None] | None:
    """Returns the CURVE keys of a socket at `endpoint`, None where it is not encrypted.

    They are its public and secret key and, where it connects, the server's public key.

    Raises
    ------
    EndpointError
        If a file cannot be read or holds something else.
    """
    if endpoint.key is None or endpoint.peers is None:
        return None
    try:
        public, secret = zmq.auth.load_certificate(endpoint.key)
        if secret is None:
            raise ValueError(f"{endpoint.key} holds no secret key")  # noqa: TRY301
        if not endpoint.bind:
            return public, secret, zmq.auth.load_certificate(endpoint.peers)[0]
        if not endpoint.peers.is_dir():
            raise ValueError(f"{endpoint.peers} is no folder of public keys")  # noqa: TRY301
        zmq.auth.load_certificates(endpoint.peers)
    except OSError as error:
        why = f"{error.filename}: {error.strerror}" if error.strerror else error
        raise EndpointError(f"{endpoint.address}: cannot read the CURVE keys: {why}") from error
    except ValueError as error:
        raise EndpointError(f"{endpoint.address}: cannot use the CURVE keys: {error}") from error
    return public, secret, None


@functools.cache
def _context() -> zmq.Context[Any]:
    context = zmq.Context(io_threads=1)
    # What `flush_and_close` left to send would die with the interpreter.
    atexit.register(context.destroy, linger=0)
    return context


def _started_guard(context: zmq.Context[Any]) -> "ThreadAuthenticator":
    from zmq.auth.thread import ThreadAuthenticator  # brings asyncio, which no client needs

    guard = ThreadAuthenticator(context)
    guard.start()
    return guard


class _Allowed:
    """Who gets in at a door: whoever holds its own key, or one of a folder as it is when he connects.

    The processes of a run reach each other's doors with the one pair of keys that the run has.
    """

    def __init__(self, address: str, own: bytes, folder: Path) -> None:
        self._address, self._own, self._folder = address, own, folder
        self._strangers: set[bytes] = set()
        self._untold: deque[bytes] = deque()

    def callback(self, domain: str, key: bytes) -> bool:
        """Says whether the holder of a public key gets in; `zmq.auth` asks, in a thread of its own."""
        if key == self._own or key in self._listed():
            return True
        if key not in self._strangers and len(self._strangers) < MOST_STRANGERS:
            self._strangers.add(key)
            self._untold.append(key)
        return False

    def tell(self) -> None:
        """Warns of who was not let in, in the thread of the socket: a stage passes on no other's words."""
        while self._untold:
            log.warning(
                "%s: a client is not let in, its public key %s is not in %s",
                *(self._address, self._untold.popleft().decode("ascii", "replace"), self._folder),
            )

    def _listed(self) -> Iterator[bytes]:
        for file in self._folder.glob("*.key"):
            with suppress(OSError, ValueError):  # one that is just being written
                yield zmq.auth.load_certificate(file)[0]


class _Strangers:
    """Counts who comes to a `door`, which is not bound yet, and is not let in."""

    _numbers = itertools.count()

    def __init__(self, door: zmq.Socket[Any]) -> None:
        self.counts = dict.fromkeys(STRANGERS, 0)
        self._door, self._tell_at = door, 1
        address = f"inproc://strangers-{next(self._numbers)}"
        door.monitor(address, sum(_REASONS))
        self._events = door.context.socket(zmq.PAIR)
        self._events.rcvhwm = 0  # where it is full ZeroMQ waits, and with it all that come to the door
        self._events.connect(address)

    def look(self, address: str) -> None:
        """Counts those that came since the last look, and tells of the first, the tenth, the hundredth ..."""
        with suppress(zmq.Again):
            while True:
                event, _ = self._events.recv_multipart(zmq.NOBLOCK)
                self.counts[_REASONS[zmq.Event(int.from_bytes(event[:2], sys.byteorder))]] += 1
        if (n := self.counts[NO_HANDSHAKE]) >= self._tell_at:
            log.warning("%s: connections without a handshake, %d so far: %s", address, n, _WHY)
            self._tell_at = 10 ** len(str(n))

    def close(self) -> None:
        """Looks no more; before the door is closed."""
        self._door.monitor(None, 0)  # first: ZeroMQ would wait for who takes its events
        self._events.close(0)


class Socket:
    """A socket with bounded queues; a context manager.

    Parameters
    ----------
    kind : str
        ZeroMQ pattern.
    endpoints : Endpoint or sequence of Endpoint
        All are used by this one socket.
    queue : int
        Messages held on each side before the socket waits or, for PUB, drops.
    identity : bytes
        Of a DEALER, by which a ROUTER knows it again.
    most_bytes : int
        Of a part of a message that is received; without it what the kind of socket gets. ZeroMQ hangs up on
        who sends more, and says so to nobody.
    needs_peer : bool
        Whether there is room only once somebody is connected, on the side that connects as well; what was
        queued for a peer that goes away is then lost.

    Raises
    ------
    EndpointError
        If an address is malformed, taken, or open to strangers.
    """

    def __init__(
        self,
        kind: Kind,
        endpoints: Endpoint | Sequence[Endpoint],
        *,
        queue: int = 1000,
        identity: bytes = b"",
        most_bytes: int = 0,
        needs_peer: bool = False,
    ) -> None:
        endpoints = [endpoints] if isinstance(endpoints, Endpoint) else endpoints
        for endpoint in endpoints:
            endpoint.check()
        if len({endpoint.key is None for endpoint in endpoints}) > 1:
            raise EndpointError("wanted `key` and `peers` at all addresses of one socket or at none")
        self.kind = kind
        self._guard: ThreadAuthenticator | None = None
        self._allowed: list[_Allowed] = []
        self._strangers: _Strangers | None = None
        context = _context()
        if any(endpoint.key and endpoint.bind for endpoint in endpoints):
            context = zmq.Context(io_threads=1)  # has one guard at most
            self._guard = _started_guard(context)
        self._socket = context.socket(getattr(zmq, kind))
        self._socket.linger = 0
        self._socket.rcvhwm = self._socket.sndhwm = queue
        by_kind = MAX_REQUEST_BYTES if kind == "ROUTER" else MAX_MESSAGE_BYTES
        self._socket.maxmsgsize = min(most_bytes or by_kind, MAX_MESSAGE_BYTES)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 20)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        self._socket.immediate = int(needs_peer)
        if identity:
            self._socket.identity = identity
        if kind == "ROUTER":
            self._socket.router_handover = 1
        if kind == "SUB":
            self._socket.subscribe(b"")
        self.address = ""
        try:
            if kind in _RECEIVE and any(it.bind and it.address.startswith("tcp:") for it in endpoints):
                self._strangers = _Strangers(self._socket)
            for endpoint in endpoints:
                self._attach(endpoint)
        except BaseException:
            self.close()
            raise

    def _attach(self, endpoint: Endpoint) -> None:
        self._encrypt(endpoint)
        try:
            if endpoint.bind:
                self._socket.bind(endpoint.address)
                self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
            else:
                self._socket.connect(endpoint.address)
        except zmq.ZMQError as error:
            verb = "bind" if endpoint.bind else "connect to"
            raise EndpointError(
                f"cannot {verb} {endpoint.address}: {zmq.strerror(error.errno or 0)}"
            ) from error

    def _encrypt(self, endpoint: Endpoint) -> None:
        keys = read_keys(endpoint)
        if keys is None or endpoint.peers is None:
            return
        socket = self._socket
        socket.curve_publickey, socket.curve_secretkey, server = keys
        if self._guard and endpoint.bind:
            socket.zap_domain = endpoint.address.encode()
            allowed = _Allowed(endpoint.address, keys[0], endpoint.peers)
            self._allowed.append(allowed)
            self._guard.configure_curve_callback(domain=endpoint.address, credentials_provider=allowed)
            socket.curve_server = True
        else:
            socket.curve_serverkey = server

    @property
    def strangers(self) -> dict[str, int]:
        """How many connections were not let in, by the reason (`STRANGERS`), as far as `receive` has looked.

        Of a door that receives over TCP; of any other socket nothing.
        """
        return dict(self._strangers.counts) if self._strangers else {}

    def send(self, parts: Sequence[Part], timeout_s: float | None = 0.0) -> bool:
        """Sends a message; says whether it went within `timeout_s` (None waits)."""
        if timeout_s != 0.0 and not self._poll(zmq.POLLOUT, timeout_s):
            return False
        try:
            # Copied, but for what is `shared`: the caller may go on writing into its arrays, and so may the
            # end of the process.
            self._socket.send_multipart(parts, zmq.NOBLOCK, copy=True)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno in (zmq.EHOSTUNREACH, zmq.ENOTSUP):
                return False
            raise
        return True

    def has_room(self, timeout_s: float | None = 0.0) -> bool:
        """Says whether a message could be sent, after waiting for it at most `timeout_s`."""
        return bool(self._poll(zmq.POLLOUT, timeout_s))

    def receive(self, timeout_s: float | None = 0.0) -> list[Buffer] | None:
        """Returns the parts of the next message, None if none came within `timeout_s` (None waits)."""
        if timeout_s != 0.0:
            self._poll(zmq.POLLIN, timeout_s)
        try:
            part = self._socket.recv(zmq.NOBLOCK, copy=False)
        except zmq.Again:  # a look at strangers takes longer than to receive a message
            for allowed in self._allowed:
                allowed.tell()
            if self._strangers:
                self._strangers.look(self.address)
            return None
        parts = [part.buffer]
        while part.more:  # `recv_multipart` asks the socket, which takes as long as to receive
            part = self._socket.recv(zmq.NOBLOCK, copy=False)
            parts.append(part.buffer)
        return parts

    def _poll(self, event: int, timeout_s: float | None) -> int:
        return self._socket.poll(None if timeout_s is None else max(timeout_s, 0.0) * 1e3, event)

    def close(self) -> None:
        """Closes at once; messages still queued for sending are dropped."""
        self.flush_and_close(0.0)

    def flush_and_close(self, timeout_s: float) -> None:
        """Closes and gives queued messages `timeout_s` to leave; the process waits for them at its end."""
        if self._strangers:
            self._strangers.close()
            self._strangers = None
        self._socket.close(int(timeout_s * 1e3))
        if self._guard:
            self._guard.stop()
            self._guard.context.term()
            self._guard = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def shared(parts: Sequence[Buffer]) -> list[Part]:
    """Returns the parts of a message that several get: they are copied here, and by no `send` of them.

    Nobody else writes into the copy, which is freed when the last has been sent it.
    """
    return [zmq.Frame(part, copy=True) for part in parts]


def wait_for_message(sockets: Iterable[Socket], timeout_s: float) -> list[Socket]:
    """Returns the sockets with something to receive, after at most `timeout_s`."""
    poller = zmq.Poller()
    by_raw = {socket._socket: socket for socket in sockets}  # noqa: SLF001
    if not by_raw:
        time.sleep(max(timeout_s, 0.0))
        return []
    for raw in by_raw:
        poller.register(raw, zmq.POLLIN)
    return [by_raw[raw] for raw, _ in poller.poll(int(max(timeout_s, 0.0) * 1e3))]


def new_keys() -> tuple[str, str]:
    """Returns a new pair of CURVE keys, public and secret, as they are written in files."""
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()
