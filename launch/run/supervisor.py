"""The processes of a run: started together, watched, started again when they die, stopped in order.

One thread: whoever owns the supervisor calls `poll`, and everything happens there.
"""

import fcntl
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Self

from launch.config.run_file import ResolvedRun
from launch.run.processes import RunFailedError, StageProcess
from launch.run.run_watch import RunWatch
from launch.run.stage_states import NAMES
from stream.record.events import EventLog, event_level
from stream.record.handover import awaits_finishing
from stream.record.run_state import ask_to_end, write_state
from stream.record.scan import Scan
from stream.wire.codec import ProtocolError, decode, encode
from stream.wire.handshake import answer_to
from stream.wire.messages import AnyMessage, Hello, Notice, Progress, Ready, RunState, Stop, Welcome
from stream.wire.sockets import Socket, wait_for_message

log = logging.getLogger(__name__)

START_TIMEOUT_S = 300.0  # compiling the loops the first time takes a busy computer minutes
STOP_GRACE_S = 10.0
DRAIN_TIMEOUT_S = 300.0
LOCK = ".lock"  # in the folder of results
PAGE, LEAD_S = "viewer", 3.0  # the page loads in less than one, on a core that it has to itself
TURN_S = 0.05  # longest wait between two looks at the processes
LOOK_S, MOST_LOOK_S = 0.25, 1.0  # between two looks at what the stages do
LOOK_SHARE = 0.05  # of the time, at most, that looking takes while the scan is not very long

FINISHED = "finisher", logging.INFO  # what a scan that was handed over is announced as

OnNotice = Callable[[str, int, str], None]  # stage, logging level, text
OnTurn = Callable[[list[Scan]], None]


def _log_notice(stage: str, level: int, text: str) -> None:
    log.log(level, "%s: %s", stage, text)


def _has_closed(stage: str, scan: Scan) -> bool:
    return bool(scan.count(stage, "closed"))


class Supervisor:
    """Owns the processes and the control socket of one run; a context manager that leaves nothing behind.

    Parameters
    ----------
    run : ResolvedRun
    on_notice : callable, optional
        Gets (stage, logging level, text) of what a stage has to tell; logs it by default.
    clock : callable
        Monotonic seconds.

    Attributes
    ----------
    state : RunState
        What the run was last seen to do.
    """

    def __init__(
        self,
        run: ResolvedRun,
        *,
        on_notice: OnNotice = _log_notice,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.run, self.clock = run, clock
        self._tell = on_notice
        self.state = RunState(level="waiting", text="starting")
        self._look_at = float("-inf")
        self._stages: dict[str, StageProcess] = {}
        self._scans: dict[Path, Scan] = {}
        self._closed: set[str] = set()
        self._is_stopping = False

    def __enter__(self) -> Self:
        """Claims the folder of results and opens the control socket.

        Raises
        ------
        RunFailedError
            If another run is writing to the same folder.
        """
        self._lock = claim(self.run.config.save)
        # Not under `save`: addresses of local sockets end at 107 bytes.
        self._rendezvous = Path(tempfile.mkdtemp(prefix="ptychostream-"))
        self.run = self.run.model_copy(update={"rendezvous": self._rendezvous})
        self.run.scans.mkdir(parents=True, exist_ok=True)
        self.run.write()
        self._events = EventLog(self.run.folder)
        self._watch = RunWatch(self.run, self._events.add, self.clock, partial(self._tell, *FINISHED))
        self._control = Socket("ROUTER", self.run.context().local("control", bind=True))
        self._stages = {spec.name: StageProcess(spec, self.run, self.clock) for spec in self.run.stages}
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            if not self._is_stopping:  # otherwise it is stopped, or somebody could not wait for that
                self.stop(drain=False)
        finally:
            for stage in self._stages.values():
                stage.kill()
            self._control.close()
            shutil.rmtree(self._rendezvous, ignore_errors=True)
            os.close(self._lock)

    def start(
        self,
        timeout_s: float = START_TIMEOUT_S,
        on_turn: Callable[[list[str]], None] = lambda waits_for: None,
    ) -> None:
        """Starts all stages and returns when each is ready for the first frame.

        Parameters
        ----------
        timeout_s : float
            How long that may take.
        on_turn : callable
            Gets the names of the stages that are not ready yet, many times a second.

        Raises
        ------
        RunFailedError
            If a stage cannot run or is not ready in time; the message ends with what it last logged.
        """
        began_at, deadline = self.clock(), self.clock() + timeout_s
        while missing := self._missing():
            self._start_next(missing, began_at)
            if self.clock() >= deadline:
                words = [f"{stage.name}: {stage.last_words()}" for stage in missing if stage.is_started]
                names = ", ".join(stage.name for stage in missing)
                raise RunFailedError("\n".join([f"not ready after {timeout_s:g} s: {names}", *words]))
            self.poll(TURN_S)
            on_turn([stage.name for stage in self._missing()])

    def _missing(self) -> list[StageProcess]:
        return [stage for stage in self._stages.values() if not (stage.is_ready or stage.is_given_up)]

    def _start_next(self, missing: Sequence[StageProcess], began_at: float) -> None:
        """Start what waits for no other; the page alone at first, because a person waits for it."""
        page = next((stage for stage in missing if stage.name == PAGE and not stage.spec.after), None)
        alone = page if self.clock() - began_at < LEAD_S else None
        for stage in missing if alone is None else [alone]:
            if not stage.is_started and all(self._stages[name].is_ready for name in stage.spec.after):
                stage.start()

    def poll(self, timeout_s: float = TURN_S) -> None:
        """Takes what the stages have to say, and starts again those that died.

        Raises
        ------
        RunFailedError
            If a stage refused to run or dies too often.
        """
        wait_for_message([self._control], min(timeout_s, TURN_S))
        while (parts := self._control.receive()) is not None:
            identity = bytes(parts[0])
            try:
                message, _ = decode(parts[1:])
            except ProtocolError as error:
                log.warning("control socket: %s", error)
                continue
            self._take(identity, message)
        for stage in self._stages.values():
            try:
                if event := stage.look_after():
                    self.notice(stage.name, logging.WARNING, event)
            except RunFailedError as error:
                if stage.spec.is_vital or not stage.was_ready:
                    self._events.add(NAMES.get(stage.name, stage.name), "error", str(error))
                    raise
                self.notice(stage.name, logging.ERROR, f"{error}; the run goes on without it")
        self._look()

    def _look(self) -> None:
        """Sees what the stages do, now and then, and leaves it where the processes of the run can read it."""
        began = self.clock()
        if began < self._look_at:
            return
        self.state = self._watch.look(self.scans(), self._stages)
        write_state(self._rendezvous, self.state)
        took_s = self.clock() - began
        self._look_at = began + min(max(LOOK_S, took_s / LOOK_SHARE), MOST_LOOK_S)

    def notice(self, stage: str, level: int, text: str) -> None:
        """Tells what a stage has to tell, and notes it as an event of the run."""
        self._events.add(NAMES.get(stage, stage), event_level(level), text)
        self._tell(stage, level, text)

    @property
    def progress(self) -> dict[str, Progress]:
        """The last report of every stage that has reported."""
        return {name: stage.progress for name, stage in self._stages.items() if stage.progress}

    @property
    def is_ready(self) -> bool:
        """Whether every stage has everything it needs."""
        return all(stage.is_ready for stage in self._stages.values())

    @property
    def has_started(self) -> bool:
        """Whether every stage has been ready once."""
        return all(stage.was_ready for stage in self._stages.values())

    @property
    def n_restarts(self) -> int:
        """How often stages died and were started again."""
        return sum(stage.n_restarts for stage in self._stages.values())

    def pid(self, stage: str) -> int:
        """Returns the process id of `stage`, 0 when it is not started."""
        return self._stages[stage].pid

    def address(self, stage: str) -> str:
        """Returns where `stage` can be reached, "" when it has no door."""
        return self.run.addresses.get(stage, "")

    def scans(self) -> list[Scan]:
        """Returns the scans this run has begun, in order."""
        for file in sorted(self.run.scans.glob("*/scan.json")):
            if file.parent not in self._scans:
                self._scans[file.parent] = Scan(file.parent)
        return [scan for scan in self._scans.values() if scan.header.run_id == self.run.run_id]

    def is_closed(self, scan: Scan) -> bool:
        """Says whether every stage is done with `scan`."""
        if scan.name not in self._closed and all(
            _has_closed(spec.name, scan) for spec in self.run.stages if spec.closes
        ):
            self._closed.add(scan.name)
        return scan.name in self._closed

    def is_over(self, scan: Scan) -> bool:
        """Says whether nothing more comes of `scan` in this run: closed, or nobody is left to finish it."""
        finisher = self._stages.get("finisher")
        is_left = finisher is not None and finisher.is_given_up and awaits_finishing(scan)
        return is_left or self.is_closed(scan)

    def wait_for_series(
        self,
        n_series: int,
        timeout_s: float = float("inf"),
        on_turn: OnTurn | None = None,
    ) -> None:
        """Returns when `n_series` series are closed by every stage, or given up with their finisher.

        Parameters
        ----------
        n_series : int
        timeout_s : float
        on_turn : callable, optional
            Gets the scans of the run a few times a second; draws the progress.

        Raises
        ------
        TimeoutError
            If they are not closed after `timeout_s`.
        """
        deadline = self.clock() + timeout_s
        while True:
            scans = self.scans()
            n_closed = sum(map(self.is_over, scans))
            if on_turn:
                on_turn(scans)
            if n_closed >= n_series:
                return
            if self.clock() >= deadline:
                raise TimeoutError(f"{n_closed} of {n_series} series complete after {timeout_s:g} s")
            self.poll()

    def stop(
        self, *, drain: bool = True, timeout_s: float = DRAIN_TIMEOUT_S, on_turn: OnTurn | None = None
    ) -> None:
        """Stops the sources one after the other, lets the workers finish what is recorded, and stops them.

        Parameters
        ----------
        drain : bool
            Whether to wait for the workers to close every scan.
        timeout_s : float
            How long to wait for that, anew after each scan that is closed.
        on_turn : callable, optional
            As in `wait_for_series`.
        """
        self._is_stopping = True
        ask_to_end(self._rendezvous)
        deadline = self.clock() + (timeout_s if drain else 0.0)
        sources = [stage for stage in self._stages.values() if stage.spec.is_source]
        for stage in sources:
            if stage is not sources[0]:  # positions of the last frames may still be on their way
                self._wait_until_closed(partial(_has_closed, stage.name), deadline)
            self._stop(stage)
        self._wait_until_closed(self.is_over, deadline, on_turn)
        for stage in self._stages.values():
            if not stage.spec.is_source:
                self._stop(stage)

    def _wait_until_closed(
        self, is_closed: Callable[[Scan], bool], deadline: float, on_turn: OnTurn | None = None
    ) -> None:
        patience_s, n_left = deadline - self.clock(), -1
        while self.clock() < deadline and (left := [scan for scan in self.scans() if not is_closed(scan)]):
            if 0 <= len(left) < n_left:  # many may be waiting to be finished
                deadline = self.clock() + patience_s
            n_left = len(left)
            if on_turn:
                on_turn(self.scans())
            self.poll()

    def _stop(self, stage: StageProcess) -> None:
        """Asks one stage to finish and leave; ends it if it does not."""
        stage.is_stopping = True
        deadline = self.clock() + STOP_GRACE_S
        if stage.is_ready and self._send(stage.identity, Stop()):
            while stage.is_running and self.clock() < deadline:
                with suppress(RunFailedError):  # one that fails now must not keep the others from their end
                    self.poll()
        stage.kill()

    def _take(self, identity: bytes, message: AnyMessage) -> None:
        if isinstance(message, Hello):
            self._greet(identity, message)
            return
        stage = next((stage for stage in self._stages.values() if stage.identity == identity), None)
        if stage is None:  # last words of a process that is already replaced
            return
        stage.heard_at = self.clock()
        if isinstance(message, Ready):
            stage.ready()
            if message.address:
                addresses = self.run.addresses | {stage.name: message.address}
                self.run = self.run.model_copy(update={"addresses": addresses})
                self.run.write()
        elif isinstance(message, Progress):
            stage.progress = message
        elif isinstance(message, Notice) and (message.level < logging.ERROR or stage.complains(message.text)):
            self.notice(stage.name, message.level, message.text)

    def _greet(self, identity: bytes, hello: Hello) -> None:
        stage, objection = self._stages.get(hello.role), ""
        if stage is None or stage.pid != hello.pid:
            objection = f"run {self.run.run_id} did not start process {hello.pid} as {hello.role!r}"
        answer = answer_to(hello, self.run.run_id, objection)
        if stage is not None and isinstance(answer, Welcome):
            stage.identity = identity
        self._send(identity, answer)

    def _send(self, identity: bytes, message: AnyMessage) -> bool:
        return self._control.send([identity, *encode(message)])


def claim(save: Path) -> int:
    """Returns the open lock of a folder of results, which nobody else gets until it is closed.

    Raises
    ------
    RunFailedError
        If another run has it.
    """
    save.mkdir(parents=True, exist_ok=True)
    lock = os.open(save / LOCK, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise RunFailedError(f"another run is writing to {save}: stop it, or set `save`") from None
    return lock
