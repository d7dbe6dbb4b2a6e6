"""What one run has for itself: the folder of results while it writes there, mended, and a short-lived one.

Both are told from what a dead run left by a lock that the system takes back with the process.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import msgspec

from launch.config.run_file import ResolvedRun
from launch.run.processes import RunFailedError
from stream.durability.mend import mend_scans
from stream.record.handover import runs_of
from stream.record.scan import Scan

LOCK = ".lock"  # in the folder of results
PREFIX = "ptychostream-run-"


def claim(save: Path) -> int:
    """Returns the open lock of a folder of results, which nobody else gets until it is closed.

    Raises
    ------
    RunFailedError
        If another run has it.
    """
    save.mkdir(parents=True, exist_ok=True)
    lock = os.open(save / LOCK, os.O_CREAT | os.O_RDWR, 0o644)
    if not _is_locked(lock):
        os.close(lock)
        raise RunFailedError(f"another run is writing to {save}: stop it, or set `save`")
    return lock


def mend_left(run: ResolvedRun) -> list[str]:
    """Sets aside what cannot be used of the scans that earlier runs have left to `run`; says what and why."""
    return mend_scans(run.scans, partial(_was_cut_off, run))


@contextmanager
def short_lived_folder() -> Iterator[Path]:
    """Yields a folder with a short path, for this user alone, that is gone afterwards.

    Addresses of local sockets end at 107 bytes. What runs that were killed have left of theirs is cleared
    away first.
    """
    _clear_away_left()
    folder, lock = _locked_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked_folder() -> tuple[Path, int]:
    while True:  # who clears away may have taken it for one that was left, before it had its lock
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY)
            if _is_locked(lock) and folder.exists():
                return folder, lock
            os.close(lock)


def _clear_away_left() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # of another user, or gone already
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid == os.getuid() and _is_locked(lock):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _is_locked(descriptor: int) -> bool:
    """Lock an open file or folder; say whether nobody else has."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _was_cut_off(run: ResolvedRun, scan: Scan) -> bool:
    """Return whether a computer was switched off since the last run before `run` worked on `scan`.

    Not of a scan whose runs do not tell, as those of earlier versions.
    """
    try:
        before = (run.folder.parent / runs_of(scan)[-1] / "run.json").read_bytes()
        boot = msgspec.json.decode(before, type=_Boot).boot
    except (OSError, msgspec.DecodeError):
        return False
    return boot not in ("", run.boot)


class _Boot(msgspec.Struct):
    boot: str = ""
