"""The process of a `launch.fork_server.ForkServer`: loads what it is told to load, forks when it is told to.

`python -m launch.fork_process CHANNEL PARENT ROOM`. What it forks begins with every library loaded and
nothing else: no thread, socket or file. Where a library has begun a thread it says so and does not fork.
"""

import argparse
import ctypes
import gc
import importlib
import json
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from launch.child_process import die_with, ends_by_parent_alone

MOST_BYTES = 1 << 16  # of a message
_TASKS = Path("/proc/self/task")


class Task(NamedTuple):
    """What a forked process is there for: `main` of a module, called with arguments."""

    module: str
    arguments: list[str]


def main(arguments: list[str] | None = None) -> int:
    """Serves until its owner is gone; in a forked process does its task. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m launch.fork_process", description=__doc__)
    parser.add_argument("channel", type=int, help="descriptor of the socket to its owner")
    parser.add_argument("parent", type=int, help="process id of its owner: it dies with it")
    parser.add_argument("room", help="blanks, which forked processes write their command over")
    options = parser.parse_args(arguments)
    die_with(options.parent)
    ends_by_parent_alone()
    gc.disable()  # nothing of what is loaded is garbage, and to look at it would copy it in each process
    task = serve(socket.socket(fileno=options.channel))
    if task is None:
        return 0
    gc.enable()
    status: int = importlib.import_module(task.module).main(task.arguments)
    return status


def serve(channel: socket.socket) -> Task | None:
    """Does what its owner asks; returns None when that is gone, and its task in each forked process."""
    while True:
        message, descriptors, *_ = socket.recv_fds(channel, MOST_BYTES, 2, socket.MSG_CMSG_CLOEXEC)
        if not message:
            return None
        request = json.loads(message)
        if "load" in request:
            _load(request["load"])
            channel.send(b"{}")
            continue
        task = Task(request["module"], request["arguments"])
        output, go = descriptors
        answer = _forked()
        if answer is None:
            channel.close()
            _begin(task, output, go)
            return task
        for descriptor in descriptors:
            os.close(descriptor)
        channel.send(json.dumps(answer).encode())


def _load(modules: list[str]) -> None:
    for module in modules:
        with suppress(Exception):  # whoever needs it says what is wrong with it
            importlib.import_module(module)
    gc.freeze()


def _forked() -> dict[str, Any] | None:
    """Fork a process whose parent is this one's owner; return what to answer, None in the new process."""
    if (n_threads := sum(1 for _ in _TASKS.iterdir())) > 1:
        return {"refused": f"a library has begun {n_threads - 1} threads"}
    hear, tell = os.pipe()
    try:
        between = os.fork()
        if not between:
            _fork_and_end(hear, tell)
            return None
    except OSError as error:
        os.close(hear)
        os.close(tell)
        return {"refused": str(error)}
    os.close(tell)
    told = os.read(hear, 32)
    os.close(hear)
    os.waitpid(between, 0)  # from now on what it forked is the owner's
    return {"pid": int(told)} if told else {"refused": "no process could be forked"}


def _fork_and_end(hear: int, tell: int) -> None:
    """Fork in a process that is there for nothing else; returns in the new one alone."""
    try:
        pid = os.fork()
    except OSError:
        os._exit(1)
    if pid:
        os.write(tell, str(pid).encode())
        os._exit(0)
    os.close(hear)
    os.close(tell)


def _begin(task: Task, output: int, go: int) -> None:
    """Make this process like one started with its task, once its parent has said that it knows of it."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, standard in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, standard)
    is_wanted = os.read(go, 1)
    for descriptor in (nothing, output, go):
        os.close(descriptor)
    if not is_wanted:
        os._exit(0)
    os.setpgid(0, 0)  # out of reach of the terminal's Ctrl-C
    _be_listed_as([*sys.orig_argv[: sys.orig_argv.index("-m") + 1], task.module, *task.arguments])
    sys.argv = [task.module, *task.arguments]
    if "numpy" in sys.modules:  # Python's own `random` begins anew by itself
        sys.modules["numpy"].random.seed()


def _be_listed_as(command: list[str]) -> None:
    """Put a command line in place of this process's own, where there is room for it."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begin, end = int(fields[45]), int(fields[46])  # of the arguments, in memory; 0 where it is not told
    words = b"".join(os.fsencode(word) + b"\0" for word in command)
    if len(words) <= end - begin:
        ctypes.memmove(begin, words.ljust(end - begin, b"\0"), end - begin)


if __name__ == "__main__":
    sys.exit(main())
