"""Starts Python processes by forking one that has their libraries loaded, or from nothing where it cannot.

What is forked is a child of the process that owns the server: the server forks twice, the process in between
ends at once, and the owner adopts what that leaves behind (`PR_SET_CHILD_SUBREAPER`). So a server that dies
takes nobody with it; it only costs the time that it would have saved.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Self, TypeAlias

from launch.child_process import describe_status
from launch.fork_process import MOST_BYTES

PATIENCE_S = 2.0  # with a server that should answer in a hundredth of that
MOST_LOADING_S = 60.0  # one batch
MOST_FAILED = 2  # servers in a row that have not loaded everything
ROOM = 512  # characters of a command line; `ps` shows the server's own for a process with a longer one
_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37


class Forked:
    """A process that a server has forked for this one; what is used here of `subprocess.Popen`.

    Attributes
    ----------
    pid : int
    returncode : int or None
        Exit status, negative the number of the signal that killed it; None while it was not seen to end.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Returns the exit status, None while it runs."""
        return self._look(os.WNOHANG)

    def wait(self) -> int | None:
        """Returns the exit status when there is one."""
        return self._look(0)

    def kill(self) -> None:
        """Kills it, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _look(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


Process: TypeAlias = subprocess.Popen[bytes] | Forked
Start: TypeAlias = Callable[[str, Sequence[str], Mapping[str, str], IO[bytes]], Process]


def spawn(
    module: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    output: IO[bytes],
    *,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Starts `python -m MODULE ARGUMENTS` as a process with nothing loaded; it prints to `output`."""
    return subprocess.Popen(
        # -P: a `stream.py` in the user's folder must not stand in for ours
        [sys.executable, "-P", "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=environment,
        process_group=0,  # out of reach of the terminal's Ctrl-C
        pass_fds=pass_fds,
    )


class ForkServer:
    """Owns the process that forks; a context manager.

    Parameters
    ----------
    batches : iterable of tuple of str
        Modules to load, in this order. Between two batches it can fork.
    environment : mapping
        Of the process: what needs another one is started from nothing.
    log_file : Path
        Gets what the process prints.
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self,
        batches: Iterable[tuple[str, ...]],
        environment: Mapping[str, str],
        log_file: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._batches = [*dict.fromkeys(batches)]
        self._environment, self._log_file = dict(environment), log_file
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._to_load: deque[tuple[str, ...]] = deque()
        self._loading: tuple[str, ...] | None = None
        self._loaded: set[str] = set()
        self._loading_since, self._n_failed, self._why_not = 0.0, 0, ""

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()

    @property
    def pid(self) -> int:
        """Process id, 0 when there is none."""
        return self._process.pid if self._process and self._channel else 0

    def has(self, modules: Iterable[str]) -> bool:
        """Says whether these are loaded, or nothing is gained by waiting for it."""
        return self._channel is None or self._loaded.issuperset(modules)

    def start(
        self, module: str, arguments: Sequence[str], environment: Mapping[str, str], output: IO[bytes]
    ) -> Process:
        """Starts `python -m MODULE ARGUMENTS`, which prints to `output`, the quickest way there is.

        Parameters
        ----------
        module : str
            Its `main` gets the arguments and returns the exit status.
        arguments : sequence of str
        environment : mapping
        output : file, opened for appending bytes
        """
        forked = self._fork(module, arguments, environment, output)
        return forked or spawn(module, arguments, environment, output)

    def look_after(self) -> str:
        """Has the next modules loaded, or a new server started; returns what there is to tell, or ""."""
        if self._process is None or self._channel is None:
            told, self._why_not = self._why_not, ""
            return told
        if (status := self._process.poll()) is not None:
            return self._bury(describe_status(status))
        if self._loading is None:
            self._load_next()
        elif self._answer(0.0) is not None:
            self._loaded.update(self._loading)
            self._loading = None
        elif self._clock() - self._loading_since > MOST_LOADING_S:
            self._process.kill()
        return ""

    def _load_next(self) -> None:
        if self._to_load:
            self._loading, self._loading_since = self._to_load.popleft(), self._clock()
            self._ask({"load": self._loading})
        else:
            self._n_failed = 0

    def _bury(self, death: str) -> str:
        self._n_failed += 1
        self._close()
        if self._n_failed > MOST_FAILED:
            return f"the fork server {death}: processes load their libraries themselves"
        self._open()
        return f"the fork server {death}; starts again"

    def _open(self) -> None:
        own, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        arguments = (str(its.fileno()), str(os.getpid()), " " * ROOM)
        with its, self._log_file.open("ab") as output:
            self._process = spawn(
                "launch.fork_process", arguments, self._environment, output, pass_fds=[its.fileno()]
            )
        self._channel, self._to_load = own, deque(self._batches)
        self._loading, self._loaded = None, set()

    def _close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _fork(
        self, module: str, arguments: Sequence[str], environment: Mapping[str, str], output: IO[bytes]
    ) -> Forked | None:
        if self._process is None or self._channel is None:
            return None
        if self._loading is not None or environment != self._environment:
            return None
        hear, go = os.pipe()  # closed without a word, it tells the new process that nobody knows of it
        try:
            with _adopting():
                self._ask({"module": module, "arguments": arguments}, [output.fileno(), hear])
                answer = self._answer(PATIENCE_S)
            if answer is None:  # it has died, or it hangs: `look_after` sees to it
                self._process.kill()
                return None
            if "pid" in answer:
                os.write(go, b"\0")
                return Forked(answer["pid"])
            self._why_not = f"processes load their libraries themselves: {answer['refused']}"
            self._close()
            return None
        finally:
            os.close(hear)
            os.close(go)

    def _ask(self, request: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        assert self._channel is not None  # noqa: S101 -- for mypy: asked while there is a server
        with suppress(ConnectionError):  # it has just died, which the next look at it shows
            socket.send_fds(self._channel, [json.dumps(request).encode()], descriptors)

    def _answer(self, timeout_s: float) -> dict[str, Any] | None:
        """Return what it answers, None where it does not within `timeout_s`."""
        assert self._channel is not None  # noqa: S101 -- as above
        self._channel.settimeout(timeout_s)
        try:
            answer = self._channel.recv(MOST_BYTES)
        except (BlockingIOError, TimeoutError, ConnectionError):
            return None
        return json.loads(answer) if answer else None


@contextmanager
def _adopting() -> Iterator[None]:
    """Make this process, for a moment, the parent of those that its children leave behind."""
    process, was = ctypes.CDLL(None), ctypes.c_int()
    process.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(was))
    process.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        process.prctl(_PR_SET_CHILD_SUBREAPER, was)
