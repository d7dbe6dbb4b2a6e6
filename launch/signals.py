"""How a command ends that is asked to: by Ctrl-C, a polite kill or a terminal that is gone, all alike."""

import errno
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TextIO

ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
UNHEARD = (errno.EIO, errno.EPIPE)  # the terminal is gone, or who read from the pipe


class Interrupted(KeyboardInterrupt):
    """Somebody asked the command to end.

    Attributes
    ----------
    status : int
        Exit status of a command that ends by this signal: 130, 143 or 129.
    """

    def __init__(self, number: int) -> None:
        self.number, self.status = number, 128 + number
        super().__init__(f"ended by {signal.Signals(number).name}")


class Asked:
    """Whether somebody has asked the command to end.

    Attributes
    ----------
    interruption : Interrupted or None
        The last that was asked.
    is_deferred : bool
        Whether the next signal is only noted: the work comes to a place where it can end by itself. Signals
        after that one raise `Interrupted`, as they do otherwise.
    """

    interruption: Interrupted | None = None
    is_deferred: bool = False


@contextmanager
def ends_on_signals(notice: str = "") -> Iterator[Asked]:
    """Makes SIGTERM and SIGHUP clean up as Ctrl-C does: each raises `Interrupted`, unless it is deferred.

    A signal that is ignored stays so: `nohup` keeps a command alive without its terminal.

    Parameters
    ----------
    notice : str
        Is said when a signal is only noted.
    """
    asked = Asked()

    def end(number: int, frame: FrameType | None) -> None:
        asked.interruption, is_deferred = Interrupted(number), asked.is_deferred
        asked.is_deferred = False
        if not is_deferred:
            raise asked.interruption
        with suppress(OSError):  # not by `print`, which may be at work when the signal comes
            os.write(2, f"{notice}\n".encode())

    before = {
        number: signal.signal(number, end)
        for number in ASKING
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interruption_behind(error: BaseException | None) -> Interrupted | None:
    """Returns what an exception was made of by those who caught it, None if nobody asked for an end."""
    while error is not None and not isinstance(error, Interrupted):
        error = error.__cause__ or error.__context__
    return error


@contextmanager
def heard_or_not() -> Iterator[None]:
    """Lets a command go on whose terminal is gone, or whose pipe nobody reads: what it prints is lost."""
    before = sys.stdout, sys.stderr
    if before != (sys.__stdout__, sys.__stderr__) or None in before:  # somebody else takes what is printed
        yield
        return
    sys.stdout, sys.stderr = _unheard(sys.stdout), _unheard(sys.stderr)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before


class _Unheard(io.FileIO):
    """A file of the system that takes what it cannot hand on."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in UNHEARD:
                raise
            return memoryview(data).nbytes


def _unheard(stream: TextIO) -> TextIO:
    stream.flush()
    raw = _Unheard(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=stream.encoding, errors=stream.errors, line_buffering=True
    )
