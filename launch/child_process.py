"""How processes end: a child with its parent, a command as cleanly by a signal as by Ctrl-C, and in words."""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

REFUSED = 2  # exit status: the same start would fail in the same way
_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Makes this process end with the process that started it, however that ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        sys.exit(f"process {parent}, which started this one, is gone")


def describe_status(status: int) -> str:
    """Returns an exit status in words."""
    return f"was killed by signal {-status}" if status < 0 else f"left with exit status {status}"


@contextmanager
def ends_on_sigterm() -> Iterator[None]:
    """Makes a polite kill clean up as an exception does, instead of leaving processes and folders."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
