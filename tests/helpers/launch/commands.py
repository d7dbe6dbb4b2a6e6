"""The command line as a user calls it, in a process of its own."""

import fcntl
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from stream.record.account import account
from stream.record.scan import scans_in

TURN_S = 0.05


def ptychostream(*arguments: object, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command_line(*arguments), capture_output=True, text=True, timeout=timeout_s, check=False
    )


def command_line(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "launch", *map(str, arguments)]


class Command:
    """A command that runs beside the test and prints into a file."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process, self._output = process, output

    def output(self) -> str:
        """What it has printed so far, errors included."""
        return self._output.read_text()

    def until(self, condition: Callable[[], Any], timeout_s: float = 60.0) -> None:
        """Waits until `condition` holds; the command must stay alive."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.output()}"
            assert time.monotonic() < deadline, f"it did not happen in {timeout_s:g} s:\n{self.output()}"
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(TURN_S)

    def ends(self, timeout_s: float = 60.0) -> int:
        """Waits for its end; returns the exit status."""
        return self.process.wait(timeout_s)


@contextmanager
def running(output: Path, *arguments: object) -> Iterator[Command]:
    """Start a command in a session of its own; it is killed if it outlives the test."""
    with output.open("wb") as file:
        process = subprocess.Popen(command_line(*arguments), stdout=file, stderr=file, start_new_session=True)
    try:
        yield Command(process, output)
    finally:
        process.kill()
        process.wait()


@contextmanager
def on_terminal(*arguments: object) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], None]]]:
    """Start a command on a terminal of its own; gives its process and what takes the terminal away."""
    reader, writer = pty.openpty()

    def attach() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # `nohup`, under which tests may run, ignores it

    process = subprocess.Popen(
        command_line(*arguments),
        stdin=writer,
        stdout=writer,
        stderr=writer,
        start_new_session=True,
        preexec_fn=attach,
    )
    os.close(writer)
    is_gone = threading.Event()

    def show() -> None:
        while not is_gone.wait(TURN_S):
            with suppress(OSError):  # the command has ended
                while select.select([reader], [], [], 0)[0]:
                    os.read(reader, 1 << 16)
        os.close(reader)

    shown = threading.Thread(target=show)  # or the command would wait for somebody to read
    shown.start()

    def take_away() -> None:
        is_gone.set()
        shown.join()

    try:
        yield process, take_away
    finally:
        process.kill()
        process.wait()
        take_away()


def processes_of(folder: Path) -> list[str]:
    """The command lines, of any process, that name `folder`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # gone in the meantime
            continue
        if str(folder) in command:
            found.append(command)
    return found


def free_address() -> str:
    """An address on which nobody listens, for a configuration that names one beforehand."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"tcp://127.0.0.1:{server.getsockname()[1]}"


def n_recorded(folder: Path) -> int:
    """How many frames a run that saves in `folder` has recorded by now."""
    return sum(account(scan, "subscriber").recorded for scan in scans_in(folder / "scans"))
