import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launch import fork_server
from launch.fork_server import Forked, ForkServer, Process

TASK = "tests.helpers.launch.forked_task"
PATIENCE_S = 20.0
COUNTS_ITS_IMPORTS = "with open({file!r}, 'a') as file:\n    file.write('loaded\\n')\n"
BEGINS_A_THREAD = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"


def until(condition: Callable[[], object], server: ForkServer) -> list[str]:
    """What the server tells until then."""
    told, deadline = [], time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        told += filter(None, [server.look_after()])
        time.sleep(0.002)
    return told


class Tasks:
    """A server that has loaded a module which counts how often that happens, and tasks for it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log, self.loads = folder, folder / "log", folder / "loads"
        (folder / "loaded_once.py").write_text(COUNTS_ITS_IMPORTS.format(file=str(self.loads)))
        (folder / "begins_a_thread.py").write_text(BEGINS_A_THREAD)
        paths = [str(folder), str(Path(__file__).parents[2])]
        self.environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        self.processes: list[Process] = []

    def server(self, *batches: tuple[str, ...]) -> ForkServer:
        return ForkServer(batches, self.environment, self.folder / "server")

    def start(self, server: ForkServer, name: str, status: str = "0", **more: str) -> Process:
        with self.log.open("ab") as output:
            arguments = str(self.folder / name), status
            self.processes.append(server.start(TASK, arguments, self.environment | more, output))
        return self.processes[-1]

    def found(self, server: ForkServer, name: str) -> dict:
        until((self.folder / name).exists, server)
        return json.loads((self.folder / name).read_text())

    def n_loads(self) -> int:
        return self.loads.read_text().count("loaded") if self.loads.exists() else 0


@pytest.fixture
def tasks(tmp_path: Path) -> Iterator[Tasks]:
    tasks = Tasks(tmp_path)
    yield tasks
    for process in tasks.processes:
        process.kill()
        process.wait()


@pytest.fixture
def server(tasks: Tasks) -> Iterator[ForkServer]:
    with tasks.server(("loaded_once", "no_such_module"), (TASK,)) as server:
        until(lambda: server.has(["loaded_once", TASK]), server)
        yield server


def test_a_forked_process_has_the_libraries_and_nothing_else_of_its_server_or_of_another(tasks, server):
    processes = [tasks.start(server, name) for name in ("first", "second")]
    first, second = (tasks.found(server, name) for name in ("first", "second"))
    assert [process.wait() for process in processes] == [0, 0]
    assert all(isinstance(process, Forked) for process in processes)
    assert first["loaded"] == second["loaded"] == ["loaded_once"]
    assert tasks.n_loads() == 1
    own = {
        "parent": os.getpid(),
        "group": 0,  # its own: out of reach of the terminal's Ctrl-C
        "threads": 1,
        "arguments": [str(tasks.folder / "second"), "0"],
        "command": [sys.executable, "-P", "-m", TASK, str(tasks.folder / "second"), "0"],
        "seen": [str(tasks.folder / "second")],
        "input": "",
    }
    assert second | own == second
    assert sorted(second["descriptors"])[:-1] == [0, 1, 2], "the last is of the look at them"
    assert first["random"] != second["random"]
    assert tasks.log.read_text().count("to standard output") == 2
    assert tasks.log.read_text().count("to standard error") == 2
    assert (tasks.folder / "server").read_text() == ""


def test_the_owner_sees_how_a_forked_process_ends(tasks, server):
    left, killed = tasks.start(server, "left", "3"), tasks.start(server, "killed", "stay")
    tasks.found(server, "killed")
    assert killed.poll() is None
    killed.kill()
    assert (left.wait(), killed.wait(), killed.poll()) == (3, -signal.SIGKILL, -signal.SIGKILL)
    killed.kill()  # of whoever has its number now it is not


def test_a_server_that_is_killed_harms_nobody_and_comes_back(tasks, server):
    staying = tasks.start(server, "staying", "stay")
    tasks.found(server, "staying")
    was = server.pid
    os.kill(was, signal.SIGKILL)
    meanwhile = tasks.start(server, "meanwhile")
    assert meanwhile.wait() == 0
    assert tasks.found(server, "meanwhile")["loaded"] == []
    told = until(lambda: server.pid != was and server.has(["loaded_once", TASK]), server)
    assert told == ["the fork server was killed by signal 9; starts again"]
    assert staying.poll() is None
    assert tasks.n_loads() == 2
    again = tasks.start(server, "again")
    assert isinstance(again, Forked)
    assert tasks.found(server, "again")["loaded"] == ["loaded_once"]


def test_a_server_that_does_not_move_is_not_waited_for_and_forks_nothing_later(tasks, server, monkeypatch):
    monkeypatch.setattr(fork_server, "PATIENCE_S", 0.1)
    was = server.pid
    os.kill(was, signal.SIGSTOP)
    process = tasks.start(server, "once")
    assert isinstance(process, subprocess.Popen)
    assert process.wait() == 0
    told = until(lambda: server.pid != was and server.has(["loaded_once", TASK]), server)
    assert told == ["the fork server was killed by signal 9; starts again"]
    assert tasks.log.read_text().count("to standard output") == 1


def test_a_server_in_which_a_library_has_begun_a_thread_does_not_fork(tasks):
    with tasks.server(("begins_a_thread",)) as server:
        until(lambda: server.has(["begins_a_thread"]), server)
        process = tasks.start(server, "alone")
        assert isinstance(process, subprocess.Popen)
        assert process.wait() == 0
        assert tasks.found(server, "alone")["loaded"] == []
        assert server.look_after() == (
            "processes load their libraries themselves: a library has begun 1 threads"
        )
        assert server.has(["anything"]), "nothing is gained by waiting"


def test_what_needs_another_environment_is_started_from_nothing(tasks, server):
    process = tasks.start(server, "threads", OMP_NUM_THREADS="2")
    assert isinstance(process, subprocess.Popen)
    assert process.wait() == 0
    assert tasks.found(server, "threads")["loaded"] == []


def test_a_server_that_cannot_load_is_given_up(tasks):
    (tasks.folder / "ends_it.py").write_text("import os\nos._exit(4)\n")
    with tasks.server(("ends_it",), ("loaded_once",)) as server:
        told = until(lambda: server.has(["loaded_once"]), server)
        death = "the fork server left with exit status 4"
        assert told == [
            *2 * [f"{death}; starts again"],
            f"{death}: processes load their libraries themselves",
        ]
        assert tasks.start(server, "alone").wait() == 0
