"""What child processes inherit, where they log, and how they end: with their parent, by it, and in words."""

import ctypes
import logging
import os
import resource
import signal
import sys
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path

REFUSED = 2  # exit status: the same start would fail in the same way
REFUSAL = "cannot run: "  # what follows in the log is the reason
LOWEST = 19  # priority of the system
_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
KEPT_BYTES = 64 << 20  # of freed memory that a process keeps, some batches of frames
MOST_HEAP_BYTES = 32 << 20  # of one array: the most that glibc allows


class BoundedFile(RotatingFileHandler):
    """A log file that makes room by giving up its oldest lines; a full disk costs lines, not the process.

    Parameters
    ----------
    file : Path
        Older lines move to FILE.1 and on.
    most_bytes : int, of each file
    n_older : int, how many older ones are kept
    """

    def __init__(self, file: Path, most_bytes: int, n_older: int) -> None:
        super().__init__(file, maxBytes=most_bytes, backupCount=n_older, encoding="utf-8", delay=True)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 -- of the standard library
        """Leaves out what could not be written."""

    def close(self) -> None:
        """Lets go of the file, also where what a full disk has kept back cannot be written now either."""
        with suppress(OSError):
            super().close()


def allow_many_files() -> None:
    """Lets this process and its children have as many files open as the system allows.

    A scan of a million frames lies in hundreds of files for each quantity; those that are mapped are open.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def keep_freed_memory() -> None:
    """Makes this process use its freed memory again, instead of giving it back and asking for it anew.

    Arrays of a batch come and go many times a second, and the system clears each page that it hands out.
    Libraries other than glibc decide for themselves.
    """
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, MOST_HEAP_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)


def die_with(parent: int) -> None:
    """Makes this process end with the process that started it, however that ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        sys.exit(f"process {parent}, which started this one, is gone")


def work_in_background(parent: int | None) -> None:
    """Gives way to everything else that runs, and ends with `parent` where one is named."""
    if parent:
        die_with(parent)
    os.nice(LOWEST)


def ends_by_parent_alone() -> None:
    """Ignores what asks a whole terminal, session or service to end: the parent ends this process in order.

    Ctrl-C and a lost terminal reach all its processes, and so does a service manager's SIGTERM.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def describe_status(status: int) -> str:
    """Returns an exit status in words."""
    return f"was killed by signal {-status}" if status < 0 else f"left with exit status {status}"


def process_state(pid: int) -> str:
    """Returns what the system says of a process: R runs, S sleeps, D waits for a disk, T is stopped ...

    "" where it does not say, or there is no such process.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
