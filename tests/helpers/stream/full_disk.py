"""A disk without room, as far as a process can see."""

import errno
import os
import shutil
from collections import namedtuple

import pytest

Usage = namedtuple("Usage", "total used free")


def limit_disk(monkeypatch: pytest.MonkeyPatch, n_bytes: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(n_bytes, 0, n_bytes))


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    allocate = os.posix_fallocate

    def fail(file: int, offset: int, n_bytes: int) -> None:
        if n_bytes > 100_000:  # a page or two are always to be had
            raise OSError(errno.ENOSPC, "No space left on device")
        allocate(file, offset, n_bytes)

    limit_disk(monkeypatch, 0)
    monkeypatch.setattr(os, "posix_fallocate", fail)
