"""The pulse of a process: when its loop last went round, for who has to notice at once that it does not.

A small file in the run's short-lived folder, mapped by whoever looks: a beat costs a store to memory, and is
seen while the process that left it is stopped or blocked. The process holds a lock on the file, which the
system takes back with it.
"""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Self

import numpy as np

from stream.record.columns import mapped

_N_TIMES = 2  # of the last beat, and until when all that came is dealt with
_BYTES = 8 * _N_TIMES


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.pulse"


class Pulse:
    """Written by the loop of the process `name` itself; a context manager.

    Parameters
    ----------
    folder : Path
        The run's short-lived folder.
    name : str
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._file = os.open(_path(folder, name), os.O_CREAT | os.O_RDWR, 0o600)
        os.posix_fallocate(self._file, 0, _BYTES)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Of a file that is opened anew: the lock is that of a descriptor, and a map holds a copy of its own.
        self._times = mapped(_path(folder, name), "<f8", writable=True)
        self._times[:] = 0.0  # those of the process before; others have the file mapped

    def beat(self, now: float, emptied_at: float | None) -> None:
        """Notes that the loop goes round, and the moment until which all that came is dealt with.

        Parameters
        ----------
        now : float
            Monotonic seconds.
        emptied_at : float or None
            When nothing was left to receive, None where there was.
        """
        self._times[0] = now
        if emptied_at is not None:
            self._times[1] = emptied_at

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._file)


class PulseReader:
    """Looks at the pulse of the process `name` of the run in `folder`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path = _path(folder, name)
        self._times = np.zeros(0)

    @property
    def beat_at(self) -> float:
        """When its loop last went round, monotonic seconds; 0 before it has."""
        return self._read(0)

    @property
    def emptied_at(self) -> float:
        """Until when it has dealt with all that came, monotonic seconds; 0 before it has."""
        return self._read(1)

    def is_alive(self) -> bool:
        """Says whether there is such a process, moving or not."""
        try:
            file = os.open(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
        return False

    def _read(self, index: int) -> float:
        if not self._times.size:
            try:
                self._times = mapped(self._path, "<f8", writable=False)
            except (FileNotFoundError, ValueError):  # none yet, or one that is being made
                return 0.0
        return float(self._times[index])
