"""What runs on a node: one command of ptychostream, kept alive, and told of.

The command is a process of its own below the actor, as a person would have started it there; it dies with the
actor, and the actor with the run that has placed it.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from launch.child_process import describe_status
from launch.on_ray.versions import own_version
from launch.run.claims import short_lived_folder
from stream.wire.keys import create_keys, write_public_key
from stream.wire.sockets import Endpoint, read_keys

PAUSE_S = 5.0  # before a command that has ended is started again
LEAVE_S = 3.0  # in which it may say farewell
PATIENCE_S = 60.0  # it ends when no run has answered for so long
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What an actor is told.

    Attributes
    ----------
    version : str
        Of ptychostream, which the node must have as well.
    stage : str
    address : str
        Of the run's door, as the node sees it.
    run_key : str
        The run's public CURVE key.
    threads : int
    """

    version: str
    stage: str
    address: str
    run_key: str
    threads: int


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What an actor says of itself.

    Attributes
    ----------
    host : str
    pid : int
        Of its command.
    public_key : str
        CURVE; another one after each start of the actor.
    trouble : str
        Why its command does not run, "" while it does.
    """

    host: str
    pid: int
    public_key: str
    trouble: str = ""


class PlacedStage:
    """An actor that does a stage of a run.

    Raises
    ------
    ValueError
        If the node has another version of ptychostream.
    """

    def __init__(self, job: Job) -> None:
        self._host = socket.gethostname()
        if (own := own_version()) != job.version:
            raise ValueError(f"{self._host} has ptychostream {own}, and the run {job.version}")
        self._job, self._held = job, ExitStack()
        folder = self._held.enter_context(short_lived_folder())
        self._key, self._run_key = create_keys(folder, "worker"), folder / "run.key"
        write_public_key(self._run_key, job.run_key)
        here = Endpoint(address=job.address, key=self._key, peers=self._run_key)
        self._public_key = (read_keys(here) or (b"",))[0].decode()
        self._start()

    def _start(self) -> None:
        options = ["--key", str(self._key), "--peers", str(self._run_key), "--patience", f"{PATIENCE_S:g}"]
        options += ["--threads", str(self._job.threads)]
        command = ["stage", self._job.stage, "--of", self._job.address, *options]
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
        self._last_line = "it said nothing"
        self._again_at: float | None = None
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "launch.on_ray.command", str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": str(self._job.threads)},
            text=True,
        )
        threading.Thread(target=self._pass_on, args=(self._process,), daemon=True).start()

    def _pass_on(self, process: "subprocess.Popen[str]") -> None:
        """Print what the command prints: Ray brings it to the run's log."""
        for line in process.stdout or ():
            print(line, end="", flush=True)
            self._last_line = line.strip() or self._last_line

    def look(self) -> Seen:
        """Returns how it is; starts the command again when it has ended a while ago."""
        status, now = self._process.poll(), time.monotonic()
        if status is not None and self._again_at is None:
            self._again_at = now + PAUSE_S
        if self._again_at is not None and now >= self._again_at:
            self._start()
            status = None
        trouble = "" if status is None else f"{describe_status(status)}: {self._last_line}"
        return Seen(host=self._host, pid=self._process.pid, public_key=self._public_key, trouble=trouble)

    def leave(self) -> bool:
        """Lets the command say farewell; returns True when what it kept on this node is gone."""
        self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(LEAVE_S)
        self._process.kill()
        self._process.wait()
        self._held.close()
        return True
