"""A network cable on one computer: it carries TCP connections, and can be cut and mended."""

import selectors
import socket
import threading
from contextlib import suppress
from typing import Self

POLL_S = 0.02


class CutLine:
    """Forwards what connects to `port` to a server; a context manager.

    While the line is cut nothing passes and nobody is told. What was connected then, or has tried to connect,
    stays dead when it is mended, as packets that are lost are not there when the cable is.
    """

    def __init__(self, server_port: int) -> None:
        self._server = "127.0.0.1", server_port
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listening.setblocking(False)
        self.port = self._listening.getsockname()[1]
        self._is_cut, self._is_stopping = threading.Event(), threading.Event()
        self._other: dict[socket.socket, socket.socket] = {}
        self._dead: list[socket.socket] = []
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._run)

    def cut(self) -> None:
        self._is_cut.set()

    def mend(self) -> None:
        self._is_cut.clear()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_stopping.set()
        self._thread.join()

    def _run(self) -> None:
        was_cut = False
        try:
            while not self._is_stopping.is_set():
                is_cut = self._is_cut.is_set()
                if is_cut and not was_cut:
                    for end in self._other:
                        self._selector.unregister(end)
                    self._dead += self._other
                    self._other.clear()
                was_cut = is_cut
                self._accept(is_dead=is_cut)
                for key, _ in self._selector.select(POLL_S):
                    self._pass(key.fileobj)
        finally:
            for end in (*self._other, *self._dead, self._listening):
                end.close()
            self._selector.close()

    def _accept(self, *, is_dead: bool) -> None:
        with suppress(BlockingIOError):
            while True:
                near, _ = self._listening.accept()
                if is_dead:
                    self._dead.append(near)
                    continue
                far = socket.create_connection(self._server)
                self._other |= {near: far, far: near}
                for end in (near, far):
                    self._selector.register(end, selectors.EVENT_READ)

    def _pass(self, end: socket.socket) -> None:
        if end not in self._other:
            return
        other = self._other[end]
        try:
            if data := end.recv(1 << 18):
                other.sendall(data)
                return
        except OSError:
            pass
        for gone in (end, other):
            self._selector.unregister(gone)
            del self._other[gone]
            gone.close()
