"""Folders that somebody reads: whoever would remove one asks before, on the same computer."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Keeps `folder` from being removed by who asks `left_alone`; where that cannot be said it goes on."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            held.callback(os.close, descriptor := os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield


@contextlib.contextmanager
def left_alone(folder: Path) -> Iterator[bool]:
    """Yields whether nobody uses `folder`, and keeps others from beginning to; a link is no folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # in use, or a file system without locks
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
