"""Signals are raised in a process of their own: workers of the tests, full of other threads, died of them."""

import subprocess
import sys
from pathlib import Path

RAISED = Path(__file__).with_name("signals_raised.py")


def test_a_command_that_is_asked_to_end_does_so_with_what_it_has() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(RAISED)]
    done = subprocess.run(command, cwd=RAISED.parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
