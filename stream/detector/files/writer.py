"""Who writes to an HDF5 file, as its first bytes, locks of others and its times tell."""

import os
from pathlib import Path
from typing import NamedTuple, Self

IS_WRITTEN, IS_SHARED = 1, 4  # flags in the superblock
_LATEST, _HEAD = 3, 12  # version of the superblock from which on it has flags; bytes up to them
_LOCKS = Path("/proc/locks")


class State(NamedTuple):
    """What a file system tells of a file: it is another one after each time it has been written to."""

    inode: int
    n_bytes: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """Returns the state of a file, None where there is none."""
        try:
            found = path.stat()
        except OSError:
            return None
        return cls(found.st_ino, found.st_size, found.st_mtime_ns)


def writer_of(path: Path) -> int:
    """Returns the flags of who has a file open to write, 0 where nobody has, or nobody can tell."""
    head = _head(path)
    if _has_flags(head):
        return head[_HEAD - 1] & (IS_WRITTEN | IS_SHARED)
    return IS_WRITTEN if _is_locked(path) else 0


def tells_its_writer(path: Path) -> bool:
    """Says whether a file tells who has it open to write: those of old formats do not."""
    return _has_flags(_head(path))


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD)
    except OSError:
        return b""


def _has_flags(head: bytes) -> bool:
    return len(head) == _HEAD and head[8] >= _LATEST


def _is_locked(path: Path) -> bool:
    """Whether a program of this computer has a lock for writing, as HDF5 takes one by default."""
    try:
        found, locks = path.stat(), _LOCKS.read_text()
    except OSError:
        return False
    name = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    return any("WRITE" in line and name in line.split() for line in locks.splitlines())
