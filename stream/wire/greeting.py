"""Who answers at an address: the beginning of ZeroMQ's handshake, and not its end.

A PUSH socket gives every peer its share of the frames, so a reader who only wants to know whether the
detector is there would cost frames. A peer counts once the handshake is over (libzmq 4.3.3 and later,
https://github.com/zeromq/libzmq/pull/3913), but says what it is before. The protocol:
https://rfc.zeromq.org/spec/23.
"""

import re
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from stream.wire.sockets import Endpoint, EndpointError

_SIGNATURE = b"\xff\0\0\0\0\0\0\0\0\x7f"
_VERSION = b"\x03\x00"
_MECHANISM_BYTES = 20
_GREETING_BYTES = 64
_COMMAND = 0x04  # flag of a frame
TCP = re.compile(r"tcp://\[?(?P<host>.+?)\]?:(?P<port>\d+|\*)")


class Peer(NamedTuple):
    """Who answered.

    Attributes
    ----------
    mechanism : str
        "NULL", or "CURVE" where it talks to holders of keys only.
    kind : str
        "PUSH", "PUB", ...; "" where it does not say, which CURVE does not before it knows us.
    """

    mechanism: str
    kind: str


def ask_who(address: str, timeout_s: float) -> Peer:
    """Returns who answers at `address`; takes no message.

    Parameters
    ----------
    address : str
        "tcp://host:port" or "ipc://path".
    timeout_s : float

    Raises
    ------
    TimeoutError
        If nobody answers in time.
    EndpointError
        If the host is unknown, nobody listens there, or who does speaks no ZeroMQ.
    """
    with _connected(address, timeout_s) as stream:
        try:
            stream.sendall(_SIGNATURE + _VERSION[:1])
            theirs = _read(stream, len(_SIGNATURE))
            if theirs[0] != _SIGNATURE[0] or theirs[9] != _SIGNATURE[9]:
                raise EndpointError(f"something answers at {address}, but speaks no ZeroMQ: {theirs!r}")
            theirs += _read(stream, _GREETING_BYTES - len(theirs))
            mechanism = theirs[12 : 12 + _MECHANISM_BYTES].rstrip(b"\0").decode("ascii", "replace")
            if mechanism != "NULL":
                return Peer(mechanism, "")
            stream.sendall((_VERSION[1:] + mechanism.encode()).ljust(_GREETING_BYTES - 11, b"\0"))
            return Peer(mechanism, _socket_type(_read_frame(stream)))
        except TimeoutError:
            raise EndpointError(
                f"something listens at {address} and says nothing in {timeout_s:g} s: it hangs, or speaks "
                "no ZeroMQ"
            ) from None
        except ConnectionError as error:
            raise EndpointError(
                f"something answers at {address} and hangs up on ZeroMQ: {error or 'no word'}"
            ) from None


def unlike_keys(peer: Peer, endpoint: Endpoint) -> str:
    """Returns why `peer` does not talk to this side: one of the two has keys; "" if both have, or neither."""
    has_keys = endpoint.key is not None
    if has_keys == (peer.mechanism == "CURVE"):
        return ""
    theirs = "with holders of CURVE keys" if peer.mechanism == "CURVE" else "without encryption"
    ours = "`key` and `peers` are given" if has_keys else "no `key` and `peers` are given"
    return f"who answers at {endpoint.address} talks {theirs} only, and {ours}"


def trouble_with_keys(endpoint: Endpoint, timeout_s: float = 1.0) -> str:
    """Returns in which way keys keep who answers at an address from talking to this side, "" if they do not.

    Whose keys are the wrong ones is never told: a server is silent to strangers.
    """
    try:
        peer = ask_who(endpoint.address, timeout_s)
    except (TimeoutError, EndpointError):
        return ""
    if (unlike := unlike_keys(peer, endpoint)) or endpoint.key is None:
        return unlike
    return (
        f"who answers at {endpoint.address} is silent to keys that it does not know: {endpoint.peers} has to "
        f"be its public key, and the public key of {endpoint.key} one of those in the folder of its `peers`"
    )


def host_of(address: str) -> str:
    """Returns the host in a tcp address, "" in one that has none."""
    found = TCP.fullmatch(address)
    return found["host"] if found else ""


def resolve_host(address: str) -> None:
    """Raises EndpointError if the host of `address` has a name that nobody knows."""
    if host := host_of(address):
        try:
            socket.getaddrinfo(host, None)
        except OSError as error:
            raise EndpointError(f"{address}: the host {host!r} is not known: {error.strerror}") from None


@contextmanager
def _connected(address: str, timeout_s: float) -> Iterator[socket.socket]:
    resolve_host(address)
    found = TCP.fullmatch(address)
    try:
        if found:
            stream = socket.create_connection((found["host"], int(found["port"])), timeout_s)
        else:
            path = Path(address.removeprefix("ipc://"))
            if not path.is_socket():
                raise EndpointError(f"nobody has bound {address}")
            stream = socket.socket(socket.AF_UNIX)
            stream.settimeout(timeout_s)
            stream.connect(str(path))
    except TimeoutError:
        raise TimeoutError(
            f"no answer from {address} in {timeout_s:g} s: is it switched on and reachable?"
        ) from None
    except OSError as error:
        raise EndpointError(f"nobody listens at {address}: {error.strerror or error}") from None
    with stream:
        yield stream


def _read(stream: socket.socket, n_bytes: int) -> bytes:
    received = b""
    while len(received) < n_bytes:
        part = stream.recv(n_bytes - len(received))
        if not part:
            raise ConnectionError(f"after {len(received)} of {n_bytes} bytes")
        received += part
    return received


def _read_frame(stream: socket.socket) -> bytes:
    flags, length = _read(stream, 2)
    return _read(stream, length) if flags == _COMMAND else b""


def _socket_type(ready: bytes) -> str:
    """Return the property of that name in a READY command, "" if it has none."""
    rest = ready.removeprefix(b"\x05READY")
    while len(rest) > 1:
        name, rest = rest[1 : 1 + rest[0]], rest[1 + rest[0] :]
        (length,) = struct.unpack_from(">I", rest)
        value, rest = rest[4 : 4 + length], rest[4 + length :]
        if name.lower() == b"socket-type":
            return value.decode("ascii", "replace")
    return ""
