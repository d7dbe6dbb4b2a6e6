"""A real bluesky-queueserver with its Redis, and a policy in a process of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import zmq

from launch.commands.demo import free_port

ROOT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent
STARTED_S, DONE_S = 60.0, 60.0
PERMISSIONS = """\
user_groups:
  root: {allowed_plans: [null], allowed_devices: [null]}
  primary: {allowed_plans: [":^adaptive_"], allowed_devices: [":.*"]}
"""
POLICY = """\
import sys
from tests.helpers.launch.plans import answering
from tests.helpers.stream.policies import image, policy
steers = policy(limits=((0, 10), (0, 10)))
steers.look(image())
with answering(steers=steers) as address:
    print(address, flush=True)
    sys.stdin.read()
"""


class QueueServer:
    """A running queue server, spoken to as its users do: by `qserver`.

    Attributes
    ----------
    documents : list of (name, document)
        Of all runs so far, as the startup file wrote them.
    """

    def __init__(self, address: str, documents: Path, environment: dict[str, str]) -> None:
        self.address, self._documents, self._environment = address, documents, environment

    def __call__(self, *words: str) -> str:
        """Returns what `qserver` prints; fails as it does."""
        command = [str(BIN / "qserver"), "--zmq-control-addr", self.address, *words]
        done = subprocess.run(
            command, env=self._environment, capture_output=True, text=True, timeout=DONE_S, check=False
        )
        assert not done.returncode, f"{' '.join(words)}\n{done.stdout}{done.stderr}"
        return done.stdout

    @property
    def status(self) -> dict[str, Any]:
        """How the manager stands."""
        with zmq.Context() as context, context.socket(zmq.REQ) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(self.address)
            socket.send_json({"method": "status", "params": {}})
            if not socket.poll(10_000):
                return {}  # it does not listen yet
            status: dict[str, Any] = json.loads(socket.recv())
        return status

    def until(self, what: str, **wanted: Any) -> None:
        """Returns when the status is as wanted."""
        deadline = time.monotonic() + STARTED_S
        while not all((status := self.status).get(name) == value for name, value in wanted.items()):
            assert time.monotonic() < deadline, f"{what}: {wanted} did not come true, but {status}"
            time.sleep(0.1)

    @property
    def documents(self) -> list[tuple[str, dict[str, Any]]]:
        lines = self._documents.read_text().splitlines() if self._documents.exists() else []
        return [tuple(json.loads(line)) for line in lines]


@contextmanager
def queue_server(folder: Path, startup: str) -> Iterator[QueueServer]:
    """A manager whose environment, made by the startup file, is open; all of it is gone afterwards."""
    redis = shutil.which("redis-server")
    assert redis is not None
    files, documents = folder / "startup", folder / "documents.jsonl"
    files.mkdir()
    (files / "20-ptycho.py").write_text(startup)
    (folder / "permissions.yaml").write_text(PERMISSIONS)
    control, info, store = (f"tcp://127.0.0.1:{free_port()}" for _ in range(3))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DOCUMENTS": str(documents)}
    port = store.rpartition(":")[2]
    with ExitStack() as stack:
        stack.enter_context(
            _running([redis, "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)])
        )
        manager = [
            str(BIN / "start-re-manager"),
            *("--zmq-control-addr", control, "--zmq-info-addr", info),
            *("--redis-addr", f"127.0.0.1:{port}", "--startup-dir", str(files)),
            *("--existing-plans-devices", str(folder / "existing.yaml")),
            *("--user-group-permissions", str(folder / "permissions.yaml")),
        ]
        with (folder / "manager.log").open("w") as log:
            stack.enter_context(_running(manager, env=environment, stdout=log, stderr=log, cwd=folder))
        server = QueueServer(control, documents, environment)
        try:
            server.until("started", manager_state="idle")
            server("environment", "open")
            server.until("environment", worker_environment_exists=True, manager_state="idle")
        except BaseException:
            print((folder / "manager.log").read_text()[-4000:])
            raise
        yield server


@contextmanager
def policy_process() -> Iterator[str]:
    """The address of a policy that runs in a process of its own."""
    command = [sys.executable, "-c", POLICY]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with _running(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()


@contextmanager
def _running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    values = {"stdout": subprocess.DEVNULL, "stderr": None, **options}
    # A group of its own: a manager that is killed leaves its workers behind.
    process = subprocess.Popen(command, start_new_session=True, **values)
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
