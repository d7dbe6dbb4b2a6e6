"""An address held for a while as its server would, to learn whether it can be had.

Not by ZeroMQ: it takes a local socket away from whoever has it, lets go of an address some time after it is
closed, and a publisher that once met a socket of another kind never comes back.
"""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stream.wire.greeting import TCP
from stream.wire.sockets import Endpoint, EndpointError, read_keys


@contextmanager
def reserved(endpoint: Endpoint) -> Iterator[None]:
    """Holds the address of an endpoint that binds; who connects meanwhile is hung up on and tries again.

    Raises
    ------
    EndpointError
        If the address is malformed, taken or open to strangers, or its keys cannot be used.
    """
    endpoint.check()
    read_keys(endpoint)
    address, path = endpoint.address, None
    try:
        if found := TCP.fullmatch(address):
            server = _tcp_server(found["host"], found["port"])
        else:
            path = Path(address.removeprefix("ipc://"))
            server = _local_server(path)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error  # Python adds the address once more
        raise EndpointError(f"cannot bind {address}: {reason}") from error
    with server:
        yield
    if path:
        path.unlink(missing_ok=True)


def _tcp_server(host: str, port: str) -> socket.socket:
    wanted = None if host == "*" else host, 0 if port == "*" else int(port)
    kind = socket.SOCK_STREAM
    family, *_, place = socket.getaddrinfo(*wanted, type=kind, flags=socket.AI_PASSIVE)[0]
    return socket.create_server(place[:2], family=family)


def _local_server(path: Path) -> socket.socket:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.setblocking(False)
        is_left_over = path.is_socket() and asking.connect_ex(str(path)) == errno.ECONNREFUSED
    if is_left_over:
        path.unlink()
    elif path.exists():
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    server = socket.socket(socket.AF_UNIX)
    try:
        server.bind(str(path))
        server.listen()
    except OSError:
        server.close()
        raise
    return server
