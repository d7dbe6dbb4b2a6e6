"""The short-lived folder of a run: nobody else gets in, and what a killed one left does not stay."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from launch.run.claims import PREFIX, short_lived_folder

HOLDS = """
from launch.run.claims import short_lived_folder
with short_lived_folder() as folder:
    (folder / "socket").touch()
    print(folder, flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made, also by processes that a test starts."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@contextmanager
def another_run() -> Iterator[tuple[subprocess.Popen[str], Path]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())
    finally:
        process.kill()
        process.communicate()


def test_it_is_gone_afterwards_and_closed_to_others_meanwhile(temporary):
    with short_lived_folder() as folder:
        assert folder.parent == temporary
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "socket").touch()
    assert list(temporary.iterdir()) == []


def test_what_a_killed_run_left_is_cleared_away_by_the_next_and_nothing_else_is(temporary):
    (temporary / f"{PREFIX}notes").write_text("no folder")
    (temporary / "another-program").mkdir()
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    (temporary / f"{PREFIX}link").symlink_to(elsewhere)
    with another_run() as (killed, left), another_run() as (_, held):
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        assert left.exists()
        with short_lived_folder() as folder:
            names = {path.name for path in temporary.iterdir()}
        kept = {f"{PREFIX}notes", "another-program", "elsewhere", f"{PREFIX}link"}
        assert names == {*kept, folder.name, held.name}


def test_a_folder_that_is_cleared_away_before_it_has_its_lock_is_made_again(temporary, monkeypatch):
    made, make = [], tempfile.mkdtemp

    def cleared_away(**options):
        made.append(make(**options))
        if len(made) == 1:
            Path(made[0]).rmdir()
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", cleared_away)
    with short_lived_folder() as folder:
        assert str(folder) == made[1]
        assert folder.is_dir()
