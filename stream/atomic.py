"""Files that appear whole: what lay there before stays until its successor is complete."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_LONGEST_NAME = 200  # bytes; a file system takes 255, and the name of a temporary file is longer


class DiskFullError(OSError):
    """The file system has no room for what is to be written."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary neighbour of `path` that takes its place, in one step, if all goes well.

    Otherwise the neighbour is gone and `path` is as it was. Missing folders are made. A symlink stays, and
    what it names is replaced. What is there and no regular file, a pipe or `/dev/null`, is yielded itself.

    Raises
    ------
    DiskFullError
        If there is no room.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _neighbour(path)
    with removed_on_failure(temporary, path.name):
        yield temporary
        sync(temporary)  # or a power cut might leave an empty file in place of the old one
        temporary.replace(path)


def write_atomically(path: Path, content: bytes) -> None:
    """Leaves `path` with `content` or as it was; a reader never sees a part.

    For files that are written while frames arrive: it does not wait for the disk, as `replacing` does.

    Raises
    ------
    DiskFullError
        If there is no room.
    """
    temporary = _neighbour(path)
    with removed_on_failure(temporary, f"{path.name} ({len(content)} bytes)"):
        temporary.write_bytes(content)
        temporary.replace(path)


@contextlib.contextmanager
def written_atomically(path: Path) -> Iterator[BinaryIO]:
    """Yields a file that becomes `path` when all of it is written: `write_atomically` for what is large.

    Raises
    ------
    DiskFullError
        If there is no room.
    """
    temporary = _neighbour(path)
    with removed_on_failure(temporary, path.name):
        with temporary.open("wb") as file:
            yield file
        temporary.replace(path)


@contextlib.contextmanager
def removed_on_failure(temporary: Path, what: str) -> Iterator[None]:
    """Leaves no part of a file that could not be written, and calls a full disk by its name."""
    with full_disk_named(what, temporary.parent):
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


@contextlib.contextmanager
def full_disk_named(what: str, folder: Path) -> Iterator[None]:
    """Raises DiskFullError in place of what the system says when there is no room for `what`."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or isinstance(error, DiskFullError):
            raise
        raise DiskFullError(
            error.errno, f"no room for {what}: free space or choose another folder", str(folder)
        ) from error


def sync(path: Path) -> None:
    """Returns when what a file holds, or which files a folder has, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _neighbour(path: Path) -> Path:
    name = os.fsdecode(os.fsencode(path.name)[:_LONGEST_NAME])
    return path.with_name(f".{name}.{os.getpid()}")  # without the suffix: nobody takes it for a result
