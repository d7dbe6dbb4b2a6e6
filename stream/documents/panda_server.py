"""A PandA's data port, simulated: captures leave as its server sends them, to whoever connects.

As PandABlocks-server does for clients that ask for XML, FRAMED and SCALED: what a late client missed because
it is no longer held stands in its header.
"""

import select
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from stream.documents.senders import pieces_of

OPTIONS = {"XML", "FRAMED", "SCALED"}
FRAME_BYTES = 65_536


@dataclass(slots=True)
class _Client:
    connection: socket.socket
    asked: bytes = b""  # its line of options, as far as it has come
    is_ready: bool = False
    unsent: bytearray = field(default_factory=bytearray)


class PandaServer:
    """Takes the documents of bluesky runs, and sends their positions as captures of acquisitions.

    Parameters
    ----------
    names : sequence of str
        What is captured, `NAME.CAPTURE`: `INENC1.VAL.Value`.
    fields : sequence of str
        The same in the documents.
    unit : str
        Of both.
    host, port
        Where it listens; port 0 takes a free one.
    held : int
        Captures that are kept for clients which come late.
    """

    def __init__(
        self,
        names: Sequence[str],
        fields: Sequence[str],
        unit: str,
        host: str = "127.0.0.1",
        port: int = 0,
        held: int = 1 << 20,
    ) -> None:
        self._names, self._fields, self._unit, self._held_most = names, fields, unit, held
        self._listener = socket.create_server((host, port))
        self._listener.setblocking(False)
        self.address = "tcp://{}:{}".format(*self._listener.getsockname()[:2])
        self._clients: list[_Client] = []
        self._armed_at = ""
        self._held = np.zeros((0, len(names)))
        self._n_captures = 0  # of the acquisition

    def is_heard(self, timeout_s: float = 0.0) -> bool:
        """Says whether a client has asked for data, after waiting for it at most `timeout_s`."""
        ends_at = time.monotonic() + timeout_s
        while not self._serve() and time.monotonic() < ends_at:
            sockets = [self._listener, *(client.connection for client in self._clients)]
            select.select(sockets, [], [], max(ends_at - time.monotonic(), 0.0))
        return self._serve()

    def __call__(self, name: str, document: Mapping[str, Any]) -> None:
        """Arms with a start, captures with an event page, disarms with a stop."""
        if name == "start":
            self.arm()
        elif name == "event_page":
            for first, values in pieces_of(document, self._fields):
                # A PandA counts triggers: what has no position was captured as well.
                self.capture(np.full((first - self._n_captures, values.shape[1]), np.nan))
                self.capture(values)
        elif name == "stop":
            self.disarm()

    def arm(self) -> None:
        """Begins an acquisition."""
        self._armed_at = f"{time.time_ns()}"
        self._held, self._n_captures = self._held[:0], 0
        self._send_to_ready(self._header(0))

    def capture(self, values: NDArray[np.float64]) -> None:
        """Captures (capture, field) float64."""
        self._serve()
        self._n_captures += len(values)
        self._held = np.concatenate([self._held, values])[-self._held_most :]
        for frame in _frames(values):
            self._send_to_ready(frame)

    def disarm(self, reason: str = "Disarmed") -> None:
        """Ends the acquisition."""
        self._send_to_ready(f"END {self._n_captures} {reason}\n".encode())
        self._armed_at = ""

    def drop_clients(self) -> None:
        """Loses all connections."""
        for client in self._clients:
            client.connection.close()
        self._clients.clear()

    def close(self) -> None:
        """Sends what is left, for some seconds at most, and closes."""
        ends_at = time.monotonic() + 5.0
        while self._serve() and any(c.unsent for c in self._clients) and time.monotonic() < ends_at:
            select.select([], [client.connection for client in self._clients], [], 0.1)
        self.drop_clients()
        self._listener.close()

    def _serve(self) -> bool:
        """Let clients in, hear what they ask for, send what is left; say whether any gets data."""
        while select.select([self._listener], [], [], 0.0)[0]:
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            self._clients.append(_Client(connection))
        for client in list(self._clients):
            try:
                self._hear(client)
                if client.unsent:
                    del client.unsent[: client.connection.send(client.unsent)]
            except BlockingIOError:
                continue
            except OSError:
                client.connection.close()
                self._clients.remove(client)
        return any(client.is_ready for client in self._clients)

    def _hear(self, client: _Client) -> None:
        if not select.select([client.connection], [], [], 0.0)[0]:
            return
        piece = client.connection.recv(4096)
        if not piece:
            raise ConnectionResetError
        client.asked += piece
        if client.is_ready or b"\n" not in client.asked:
            return  # what follows the first line is ignored
        if set(client.asked.split(b"\n")[0].decode().split()) != OPTIONS:
            client.unsent += b"ERR Invalid data capture option\n"
            return
        client.is_ready = True
        client.unsent += b"OK\n"
        if self._armed_at:
            client.unsent += self._header(self._n_captures - len(self._held))
            for frame in _frames(self._held):
                client.unsent += frame

    def _send_to_ready(self, content: bytes) -> None:
        self._serve()
        for client in self._clients:
            if client.is_ready:
                client.unsent += content
        self._serve()

    def _header(self, n_missed: int) -> bytes:
        names = [name.rpartition(".") for name in self._names]
        fields = "".join(
            f'<field name={quoteattr(name)} type="double" capture={quoteattr(capture)} scale="1" offset="0" '
            f"units={quoteattr(self._unit)} />\n"
            for name, _, capture in names
        )
        data = (
            f'<data arm_time="{self._armed_at}" missed="{n_missed}" process="Scaled" format="Framed" '
            f'sample_bytes="{8 * len(names)}" />'
        )
        return f"<header>\n{data}\n<fields>\n{fields}</fields>\n</header>\n\n".encode()


def _frames(values: NDArray[np.float64]) -> Iterator[bytes]:
    at_once = FRAME_BYTES // (8 * values.shape[1])
    for first in range(0, len(values), at_once):
        content = values[first : first + at_once].astype("<f8").tobytes()
        yield b"BIN " + struct.pack("<I", len(content) + 8) + content
