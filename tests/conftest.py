"""What holds for every test: it leaves nothing behind, changes no setting, logs no error unannounced."""

import gc
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest

# Before NumPy is imported, for this process and all that tests start: nothing depends on how many cores there
# are, and the workers' threads do not wait for each other.
for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{_library}_NUM_THREADS"] = "1"

# A shell that runs the tests in the background ignores Ctrl-C, and so would every process they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


# What tests of a folder share costs seconds to start: a browser, a pipeline where a test asks for it.
SHARING = {"tests/end_to_end": r"def test_\w+\([^)]*\b(pipeline|well_behaved): ", "tests/launch/page": ""}
PATIENCE_S = 2.0
HELPERS_OF_PYTHON = ("resource_tracker", "forkserver")  # live as long as the interpreter


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n`, one worker gets all tests of a file, and of those files that share something."""
    from xdist.scheduler import LoadFileScheduling

    class ByWhatIsShared(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:  # xdist's own schedulers differ in nothing else
            return shared_by(super()._split_scope(nodeid))

    return ByWhatIsShared(config, log)


@cache
def shared_by(file: str) -> str:
    """The folder that `file` shares something with, itself where it shares nothing."""
    for folder, uses in SHARING.items():
        if file.startswith(f"{folder}/") and re.search(
            uses, Path(__file__).parents[1].joinpath(file).read_text()
        ):
            return folder
    return file


@pytest.fixture
def run_folder() -> Iterator[Path]:
    """A folder with a short path: addresses of local sockets end at 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="ps-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> Iterator[None]:
    before = _alive()
    yield
    deadline = time.monotonic() + PATIENCE_S
    while (left := _alive() - before) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    assert not left, f"the test left behind: {', '.join(sorted(left))}"


@pytest.fixture(autouse=True)
def _leaves_settings_as_they_were() -> Iterator[None]:
    before = _settings()
    torch, numpy = (sys.modules.get(name) for name in ("torch", "numpy"))
    random_states = torch and torch.get_rng_state(), numpy and numpy.random.get_state()
    yield
    after = _settings()
    if torch:  # the next test is not to fail for this one
        torch.set_num_threads(before["torch threads"])
    changed = {name: (value, after.get(name)) for name, value in before.items() if after.get(name) != value}
    assert not changed, f"the test changed, and did not restore (use monkeypatch or a context): {changed}"
    # To draw a random number is no fault, but nothing is to depend on which tests ran before.
    if torch:
        torch.set_rng_state(random_states[0])
    if numpy:
        numpy.random.set_state(random_states[1])


@pytest.fixture(autouse=True)
def _logs_no_error(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    if request.node.get_closest_marker("allow_error_log"):
        return
    errors = [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert not errors, f"the test logged errors (mark it allow_error_log if it should): {errors}"


def _settings() -> dict[str, Any]:
    """What is set for the whole process, of the libraries that are imported."""
    settings = {f"${name}": value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    settings["folder"] = str(Path.cwd())
    if numpy := sys.modules.get("numpy"):
        settings["numpy errors"] = numpy.geterr()
    if torch := sys.modules.get("torch"):
        settings["torch threads"] = torch.get_num_threads()
        settings["torch precision"] = torch.get_default_dtype()
        settings["torch gradients"] = torch.is_grad_enabled()
    return settings


def _alive() -> set[str]:
    return _children() | _threads() | _sockets()


def _children() -> set[str]:
    # By thread, as the kernel has them: to look through all processes took a tenth of the time of all tests.
    children = set()
    for file in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # a thread or child is gone in the meantime
            for pid in file.read_text().split():
                parts = Path("/proc", pid, "cmdline").read_bytes().split(b"\0")
                command = b" ".join(parts).decode(errors="replace")
                if not any(name in command for name in HELPERS_OF_PYTHON):
                    children.add(f"process {pid} {command}")
    return children


def _threads() -> set[str]:
    return {f"thread {thread.name} {thread.ident}" for thread in threading.enumerate() if not thread.daemon}


def _sockets() -> set[str]:
    if "stream.wire.sockets" not in sys.modules:
        return set()
    context = sys.modules["stream.wire.sockets"]._context()  # neither has a public list of what is open
    return {f"socket {socket!r}" for socket in list(context._sockets) if not socket.closed}
