"""A PandA's own data stream: its TCP port 8889, read with the library `pandablocks`.

A header says which fields are captured, frames of bytes hold the captures, an end line says why there are no
more. Arming is the start of a run, disarming its end. https://pandablocks.github.io/PandABlocks-server
"""

import errno
import logging
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import ParseError

import numpy as np

from stream.documents.codec import Document, DocumentError
from stream.documents.config import PositionsConfig
from stream.documents.sources.protocol import PolledSource, Said
from stream.documents.sources.run import RunDocuments
from stream.documents.values import MAX_SEQ_NUM
from stream.wire.foreign import in_short

if TYPE_CHECKING:
    from pandablocks.responses import FrameData, StartData

log = logging.getLogger(__name__)

PORT = 8889
RETRY_S = 1.0  # between two tries to reach it
BYTES_AT_ONCE, RECEIVED_AT_ONCE = 1 << 20, 1 << 16
MOST_UNREAD_BYTES = 64 << 20  # of what is no whole header or frame yet
# What the library raises for bytes of something else than a PandA.
_STRANGE = (
    *(AssertionError, ValueError, TypeError, AttributeError, LookupError, OverflowError, MemoryError),
    *(ParseError, struct.error),
)


class PandaStream(PolledSource):
    """Keeps a connection to a PandA, and makes a run of each of its acquisitions.

    A connection that is lost and comes back within an acquisition goes on with it, if the PandA says that it
    is the same one (`arm_time`): the header says how many captures were missed.

    Parameters
    ----------
    config : PositionsConfig
        `y`, `x`, `settled` and `numbers` are fields, as `INENC1.VAL` or `INENC1.VAL.Mean`.
    clock : callable
        Monotonic seconds.

    Raises
    ------
    ValueError
        If the address has no such host.
    ImportError
        If `pandablocks` is not installed.
    """

    def __init__(self, config: PositionsConfig, clock: Callable[[], float] = time.monotonic) -> None:
        from pandablocks.connections import DataConnection  # of an extra

        self._new_decoder, self._clock = DataConnection, clock
        self._where, self._tries_at = config.address, float("-inf")
        self._family, self._address = _resolved(config.address)
        self._run = RunDocuments("panda", config)
        self._fields = [*self._run.names, *filter(None, [config.numbers])]
        self._has_numbers, self._first_number = bool(config.numbers), config.first_number
        self._columns: list[str] = []  # of the frames, as `_fields`
        self._next = 0  # capture of the acquisition
        self._n_read = 0  # captures that are in documents already
        self._socket: socket.socket | None = None
        self._decoder: Any = None
        self._is_connected, self._n_unread = False, 0
        self.waits_for = ""

    def receive(self) -> Sequence[Said]:
        """Returns what has come; connects first where there is no connection."""
        if self._socket is None and not self._begin_to_connect():
            return ()
        if not self._is_connected and not self._has_connected():
            return ()
        said: list[Said] = []
        n_left = BYTES_AT_ONCE
        while n_left > 0 and self._socket is not None:
            try:
                piece = self._socket.recv(RECEIVED_AT_ONCE)
            except BlockingIOError:
                break
            except OSError as error:
                self._hang_up(error.strerror or str(error))
                break
            if not piece:
                self._hang_up("it has closed the connection")
                break
            n_left -= len(piece)
            said += self._decoded(piece)
        return said

    def resume(self, name: str, document: Document) -> None:
        """Goes on with the acquisition that a process before this one has read, if it still runs."""
        self._run.resume(name, document)

    def close(self) -> None:
        """Closes the connection."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    def _decoded(self, piece: bytes) -> list[Said]:
        from pandablocks.responses import EndData, FrameData, StartData

        said: list[Said] = []
        self._n_unread += len(piece)
        try:
            for data in self._decoder.receive_bytes(piece):
                self._n_unread = 0
                if isinstance(data, StartData):
                    said += self._start(data)
                elif isinstance(data, FrameData):
                    said += self._captures(data)
                elif isinstance(data, EndData):
                    said += self._end(data.samples, data.reason.value)
            if self._n_unread > MOST_UNREAD_BYTES:
                raise ValueError(f"{MOST_UNREAD_BYTES} bytes and no end")
        except DocumentError as error:
            log.warning("PandA at %s: %s", self._where, error)
            self._columns = []  # nothing of this acquisition can be used
        except _STRANGE as error:
            self._hang_up(f"what it sends cannot be read, {type(error).__name__}: {in_short(str(error))}")
        return said

    def _start(self, data: "StartData") -> list[Said]:
        self._columns = []
        columns = {f"{field.name}.{field.capture}": field for field in data.fields}
        found = [_column_of(field, list(columns)) for field in self._fields]
        if not 0 <= data.missed <= MAX_SEQ_NUM:
            raise DocumentError(f"its header says that {data.missed} captures were missed")
        is_same = self._run.is_open and data.arm_time and self._run.told.get("arm_time") == data.arm_time
        self._next, self._columns = data.missed, found
        if data.missed and not is_same:
            log.warning("PandA at %s: %d captures before the connection are lost", self._where, data.missed)
        if is_same:
            self._n_read = max(self._n_read, self._run.n_captures)
            return []
        self._n_read = 0
        units = [columns[column].units for column in found[:2]]
        return self._run.start(units=units, sources=found, arm_time=data.arm_time or "")

    def _captures(self, data: "FrameData") -> list[Said]:
        if not self._columns:
            return []
        values = np.stack([data.data[column].astype(np.float64) for column in self._columns], axis=-1)
        first, self._next = self._next, self._next + len(values)
        if self._next > MAX_SEQ_NUM:
            raise DocumentError("more captures than any scan has")
        if self._has_numbers:
            self._run.add_numbered(values, self._first_number)
        else:
            values = values[max(self._n_read - first, 0) :]
            self._n_read = max(self._n_read, self._next)
            self._run.add_rows(np.arange(self._next - len(values), self._next), values)
        return self._run.pages()

    def _end(self, n_captures: int, reason: str) -> list[Said]:
        is_whole = reason in ("Ok", "Disarmed")
        if not is_whole:
            log.warning("PandA at %s stopped after %d captures: %s", self._where, n_captures, reason)
        self._columns = []
        return self._run.stop("success" if is_whole else "fail", reason)

    def _begin_to_connect(self) -> bool:
        now = self._clock()
        if now < self._tries_at:
            return False
        self._tries_at = now + RETRY_S
        connection = socket.socket(self._family, socket.SOCK_STREAM)
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._socket, self._is_connected = connection, False
        code = connection.connect_ex(self._address)
        if code not in (0, errno.EINPROGRESS):
            self._hang_up(os.strerror(code))
        return code in (0, errno.EINPROGRESS)

    def _has_connected(self) -> bool:
        assert self._socket is not None  # noqa: S101 -- asked only then
        if not select.select([], [self._socket], [], 0.0)[1]:
            self.waits_for = f"no PandA answers at {self._where}"
            return False
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._hang_up(os.strerror(code))
            return False
        self._decoder, self._n_unread, self._columns = self._new_decoder(), 0, []
        self._socket.send(self._decoder.connect(scaled=True))
        self._is_connected, self.waits_for = True, ""
        return True

    def _hang_up(self, reason: str) -> None:
        self.close()
        self.waits_for = f"PandA at {self._where}: {reason}"


def _resolved(address: str) -> tuple[socket.AddressFamily, Any]:
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        raise ValueError(f"{address}: wanted tcp://HOST:{PORT} of a PandA: {error}") from error
    family, _, _, _, sockaddr = found[0]
    return family, sockaddr


def _column_of(field: str, columns: Sequence[str]) -> str:
    """Return the captured column that a field names, with or without how it is captured."""
    found = [column for column in columns if field in (column, column.rpartition(".")[0])]
    if len(found) != 1:
        asked = "wanted it" if not found else f"wanted one of {', '.join(found)}"
        raise DocumentError(f"it captures {in_short(list(columns))} and was asked for {field}: {asked}")
    return found[0]
