"""The processes of a run: started together, watched, started again when they die, stopped in order.

One thread: whoever owns the supervisor calls `poll`, and everything but the keeping of frames happens there.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial
from typing import Any, Self

from launch.child_process import allow_many_files
from launch.config.run_file import ResolvedRun
from launch.logs import RUN, OnEvent, RunLog
from launch.results.halves import CHEAP_S, awaits_measuring
from launch.run.claims import claim, mend_left, short_lived_folder
from launch.run.processes import RunFailedError, StageProcess, can_do_without, fork_server_of
from launch.run.run_watch import OnNotice, RunWatch, log_notice
from launch.run.stage_states import NAMES
from stream.atomic import DiskFullError
from stream.durability.keeper import Keeper
from stream.record.events import event_level
from stream.record.handover import awaits_finishing, have_closed, is_left_behind, note_finished, take_up
from stream.record.run_state import ask_to_end, write_state
from stream.record.scan import NewScans, Scan
from stream.wire.codec import ProtocolError, decode, encode
from stream.wire.handshake import answer_to
from stream.wire.messages import AnyMessage, Hello, Notice, Progress, Ready, RunState, Stop, Welcome
from stream.wire.sockets import Socket, wait_for_message

log = logging.getLogger(__name__)

START_TIMEOUT_S = 300.0  # compiling the loops the first time takes a busy computer minutes
STOP_GRACE_S, DRAIN_TIMEOUT_S = 10.0, 300.0
TURN_S = 0.05  # longest wait between two looks at the processes
LOOK_S, MOST_LOOK_S = 0.25, 1.0  # between two looks at what the stages do
MOST_OPEN = 4  # scans of which files are held open from one look to the next
LOOK_SHARE = 0.05  # of the time, at most, that looking takes while the scan is not very long

OnTurn = Callable[[list[Scan]], None]


class Supervisor:
    """Owns the processes and the control socket of one run; a context manager that leaves nothing behind.

    Parameters
    ----------
    run : ResolvedRun
    on_notice : callable, gets (stage, logging level, text) of what a stage has to tell; by default the log
    on_event : callable, gets each event of the run
    clock : callable, monotonic seconds

    Attributes
    ----------
    state : RunState, what the run was last seen to do
    log : RunLog, what happens in the run
    """

    def __init__(
        self,
        run: ResolvedRun,
        *,
        on_notice: OnNotice = log_notice,
        on_event: OnEvent = lambda event: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.run, self.clock, self._tell, self._on_event = run, clock, on_notice, on_event
        self.state, self._look_at = RunState(level="waiting", text="starting"), float("-inf")
        self._stages, self._closed, self._is_stopping = dict[str, StageProcess](), set[str](), False
        self._new, self._scans = NewScans(run.scans), list[Scan]()

    def __enter__(self) -> Self:
        """Claims the folder of results and opens the control socket.

        Raises
        ------
        RunFailedError
            If another run is writing to the same folder.
        """
        allow_many_files()
        with ExitStack() as held:
            held.callback(os.close, claim(self.run.config.save))
            self._rendezvous = held.enter_context(short_lived_folder())
            self._open(held)
            self._held = held.pop_all()
        return self

    def _open(self, held: ExitStack) -> None:
        self.run = self.run.model_copy(update={"rendezvous": self._rendezvous})
        self.run.scans.mkdir(parents=True, exist_ok=True)
        self.run.write()
        self.log = held.enter_context(RunLog(self.run.folder, self.run.log_file, self._on_event))
        self.log.begin(self.run.context().config_hash, self.run.config.save)
        announce = partial(self._tell, "finisher", logging.INFO)
        self._watch = held.enter_context(closing(RunWatch(self.run, self.log.add, self.clock, announce)))
        self._control = held.enter_context(Socket("ROUTER", self.run.context().local("control", bind=True)))
        self._server = held.enter_context(fork_server_of(self.run))
        made = partial(StageProcess, run=self.run, clock=self.clock, start=self._server.start)
        self._stages = {spec.name: made(spec) for spec in self.run.stages}
        for sentence in mend_left(self.run):
            self.notice("scan", logging.WARNING, sentence)
        self._take_up()

    def __exit__(self, *exception: Any) -> None:
        try:
            if not self._is_stopping:  # otherwise it is stopped, or somebody could not wait for that
                self.stop(drain=False)
        finally:
            for stage in self._stages.values():
                stage.kill()
            self._held.__exit__(*exception)

    def start(
        self,
        timeout_s: float = START_TIMEOUT_S,
        on_turn: Callable[[list[str]], None] = lambda waits_for: None,
    ) -> None:
        """Starts all stages and returns when each is ready for the first frame.

        Parameters
        ----------
        timeout_s : float, how long that may take
        on_turn : callable, gets the names of stages that are not ready, many times a second

        Raises
        ------
        RunFailedError
            If a stage cannot run or is not ready in time; the message ends with what it last logged.
        """
        self._held.enter_context(Keeper(self.run.scans))
        deadline = self.clock() + timeout_s
        while missing := self._missing():
            self._start_next(missing)
            if self.clock() >= deadline:
                words = [f"{stage.name}: {stage.last_words()}" for stage in missing if stage.is_started]
                names = ", ".join(stage.name for stage in missing)
                raise RunFailedError("\n".join([f"not ready after {timeout_s:g} s: {names}", *words]))
            self.poll(TURN_S)
            on_turn([stage.name for stage in self._missing()])
        self.log.add(RUN, "info", "ready for the first frame")

    def _missing(self) -> list[StageProcess]:
        return [stage for stage in self._stages.values() if not (stage.is_ready or stage.is_given_up)]

    def _start_next(self, missing: Sequence[StageProcess]) -> None:
        """Start what waits for no other, and for nothing that is being loaded."""
        for stage in (it for it in missing if not it.is_started and self._server.has(it.modules)):
            if all(self._stages[name].is_ready for name in stage.spec.after):
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
            try:
                message, _ = decode(parts[1:])
            except ProtocolError as error:
                log.warning("control socket: %s", error)
                continue
            self._take(bytes(parts[0]), message)
        if event := self._server.look_after():
            self.log.add(RUN, "warning", event)
        for stage in self._stages.values():
            try:
                if event := stage.look_after():
                    self.notice(stage.name, logging.WARNING, event)
            except RunFailedError as error:
                if not can_do_without(stage, self._stages.values()):
                    self.log.add(NAMES.get(stage.name, stage.name), "error", str(error), stage.scan)
                    raise
                self.notice(stage.name, logging.ERROR, f"{error}; the run goes on without it")
            if change := stage.feel_pulse():
                self.notice(stage.name, *change)
                self._look_at = float("-inf")  # who watches is to see it at once
        self._look()

    def _look(self) -> None:
        """Sees what the stages do, now and then, and leaves it where the processes of the run can read it."""
        began = self.clock()
        if began < self._look_at:
            return
        scans = self.scans()
        self.state = self._watch.look(scans, self._stages)
        for scan in scans[:-MOST_OPEN]:  # a run may take thousands
            scan.close()
        write_state(self._rendezvous, self.state, [stage.seen() for stage in self._stages.values()])
        self._look_at = began + min(max(LOOK_S, (self.clock() - began) / LOOK_SHARE), MOST_LOOK_S)

    def notice(self, stage: str, level: int, text: str) -> None:
        """Tells what a stage has to tell, and notes it as an event of the run."""
        scan = self._stages[stage].scan if stage in self._stages else ""
        self.log.add(NAMES.get(stage, stage), event_level(level), text, scan)
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
        """Returns the scans that this run has begun or taken up, in order."""
        self._scans += [scan for scan in self._new.look() if not self._is_taken_up(scan)]
        return self._scans.copy()

    def _take_up(self) -> None:
        """Count the scan that an earlier run has left open as one of this run, whose stages go on with it.

        Others without results are the finisher's, and count where they are what the run is for.
        """
        finished = list[str]()
        for scan in self._new.look():
            if self.is_closed(scan):
                finished += [] if awaits_finishing(scan) or awaits_measuring(scan) else [scan.name]
                scan.close()  # of thousands
                continue
            take_up(scan, self.run.run_id)
            own = self.run.run_id, self.run.context().config_hash
            if self.run.resumes or not (awaits_finishing(scan) or is_left_behind(scan, *own)):
                self._scans.append(scan)
        note_finished(self.run.scans, finished)

    def _is_taken_up(self, scan: Scan) -> bool:
        return scan.header.run_id != self.run.run_id

    def is_closed(self, scan: Scan) -> bool:
        """Says whether every stage is done with `scan`, of an earlier run's the one that closes last."""
        if scan.name not in self._closed:
            closing = [spec.name for spec in self.run.stages if spec.closes]
            awaited = closing[-1:] if self._is_taken_up(scan) else closing
            if have_closed(scan, awaited):
                self._closed.add(scan.name)
        return scan.name in self._closed

    def is_over(self, scan: Scan) -> bool:
        """Says whether nothing more comes of `scan` in this run: closed, or nobody is left to finish it."""
        is_left = "finisher" in self._stages and not self._finishes and awaits_finishing(scan)
        return is_left or self.is_closed(scan)

    def wait_for_series(
        self,
        n_series: int,
        timeout_s: float = float("inf"),
        on_turn: OnTurn | None = None,
    ) -> None:
        """Returns when `n_series` series, and all that were taken up, are closed or given up.

        A series is closed by every stage, given up with its finisher, or refused for want of room. Those
        taken up count; a run that only resumes has all to wait for.

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
            detector = self.progress.get("subscriber")
            n_closed = sum(map(self.is_over, scans)) + (detector.counts.get("refused", 0) if detector else 0)
            if on_turn:
                on_turn(scans)
            owed = scans if self.run.resumes else filter(self._is_taken_up, scans)
            if n_closed >= n_series and all(map(self.is_over, owed)):
                break
            if self.clock() >= deadline:
                raise TimeoutError(f"{n_closed} of {n_series} series complete after {timeout_s:g} s")
            self.poll()
        self._wait_for_resolutions(on_turn)

    def _wait_for_resolutions(self, on_turn: OnTurn | None) -> None:
        """Waits for those that the next scan has kept the recorder from measuring; a while for a reason."""
        is_asked_for, left = self.run.config.results.resolution == "always", self.scans()
        deadline = float("inf") if is_asked_for else self.clock() + CHEAP_S
        while self._watch.may_say_why or (self._finishes and (left := [*filter(awaits_measuring, left)])):
            if self.clock() >= deadline:
                break
            if on_turn:
                on_turn(self.scans())
            self.poll()

    @property
    def _finishes(self) -> bool:
        return "finisher" in self._stages and not self._stages["finisher"].is_given_up

    def stop(
        self, *, drain: bool = True, timeout_s: float = DRAIN_TIMEOUT_S, on_turn: OnTurn | None = None
    ) -> None:
        """Stops the sources one after the other, lets the workers finish what is recorded, and stops them.

        Parameters
        ----------
        drain : bool, whether to wait for the workers to close every scan
        timeout_s : float, how long to wait for that, anew after each scan that is closed
        on_turn : callable, optional, as in `wait_for_series`
        """
        self._is_stopping = True
        ask_to_end(self._rendezvous)
        deadline = self.clock() + (timeout_s if drain else 0.0)
        sources = [stage for stage in self._stages.values() if stage.spec.is_source]
        ends_last = [stage for stage in sources if stage.spec.closes][1:]
        for stage in sources:
            if stage in ends_last:  # positions of the last frames may still be on their way
                self._wait_until_closed(partial(have_closed, stages=(stage.name,)), deadline)
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
                with suppress(DiskFullError):  # costs the address, not the run
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
