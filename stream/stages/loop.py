"""What a stage is and the loop that runs one: poll, batch by size or deadline, ledger, report, stop.

A stage is a class with plain methods and no socket; tests call them. A *worker* is a cursor over the ledger:
it gets the numbers of frames whose inputs are done. A *source* gets messages from outside. `run_stage` owns
everything else and is the same blocking function in a local process and in a Ray actor.
"""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from stream.record.scan import Numbers, Scan, State, scans_in
from stream.stages.link import Link, StageContext
from stream.wire.codec import Buffer
from stream.wire.sockets import Endpoint, Kind, Socket

log = logging.getLogger(__name__)

Clock = Callable[[], float]

POLL_S = 0.02  # a lost doorbell costs this much
SLICE_S = 0.03  # longest piece of work between two looks at the ledger
MESSAGES_PER_TURN = 256
FAREWELL_S = 0.3  # how long a door is served after the last scan


@runtime_checkable
class Worker(Protocol):
    """A stage that turns finished inputs of frames into its own column.

    `handle` stores its values and then marks its byte (`Scan.mark`), now or later; a frame is given once per
    process, and again after a restart if its byte is still pending.
    """

    name: str
    inputs: tuple[str, ...]  # stages whose byte must be DONE
    waits_for: tuple[str, ...]  # further stages that close a scan before this one does
    batch_size: int
    deadline_s: float  # a frame waits no longer than this for its batch to fill
    newest_first: bool  # whether half of a batch are the newest frames when more than two batches are behind
    door: Endpoint | None  # where clients may ask

    def prepare(self) -> None:
        """Loads and warms up what the first frame would otherwise wait for."""

    def open(self, scan: Scan) -> None:
        """Begins with `scan`, or goes on with it after a restart.

        Raises
        ------
        ValueError
            If the scan's frames cannot be used; they are all marked BAD, and `close` is not called.
        """

    def handle(self, numbers: Numbers) -> None:
        """Does the work for these frames."""

    def idle(self, deadline: float) -> bool:
        """Works between arrivals until `deadline`; says whether there is more to do."""

    def close(self) -> None:
        """Leaves the scan with everything published."""

    def exchange(self, requests: Sequence[Sequence[Buffer]]) -> list[list[Buffer]]:
        """Takes what came through the door and returns what goes out."""

    def counts(self) -> dict[str, int]:
        """Returns figures for the progress report."""


class Source(Protocol):
    """A stage that listens to the world outside."""

    name: str
    inlet: tuple[Kind, tuple[Endpoint, ...], int] | None  # pattern, addresses, queue length

    def prepare(self, scans: Path) -> None:
        """Resumes what an earlier process left in the folder of scans."""

    def handle(self, messages: Sequence[Sequence[Buffer]]) -> None:
        """Takes messages in the order of arrival."""

    def idle(self, now: float) -> None:
        """Looks at the clock and deals with what is overdue."""

    def close(self) -> None:
        """Ends what is open; frames that never came are marked so."""

    def progress(self) -> tuple[str, dict[str, int]]:
        """Returns the name of the current scan and figures for the progress report."""


class BatchRule:
    """Decides when a batch is large enough or has waited long enough."""

    def __init__(self, size: int, deadline_s: float, *, newest_first: bool = False) -> None:
        self.size, self.deadline_s, self.newest_first = size, deadline_s, newest_first
        self._waiting_since: float | None = None

    def pick(self, ready: Numbers, now: float, *, is_tail: bool) -> Numbers:
        """Returns the frames to work on now, none while a batch still fills."""
        if not ready.size:
            self._waiting_since = None
            return ready
        if self._waiting_since is None:
            self._waiting_since = now
        if ready.size < self.size and not is_tail and now - self._waiting_since < self.deadline_s:
            return ready[:0]
        self._waiting_since = None
        if self.newest_first and ready.size > 2 * self.size:
            # What is new is worth most, but nothing waits until the scan ends because the load never falls.
            n_oldest = self.size // 2
            return np.concatenate([ready[:n_oldest], ready[n_oldest - self.size :]])
        return ready[: self.size]

    def remaining_s(self, now: float) -> float:
        """Returns how long the next batch may still wait."""
        if self._waiting_since is None:
            return POLL_S
        return min(max(self._waiting_since + self.deadline_s - now, 0.0), POLL_S)


class WorkerLoop:
    """Drives one worker through the scans of a folder; `turn` does one piece of work."""

    def __init__(self, stage: Worker, scans: Path, clock: Clock = time.monotonic) -> None:
        self.stage, self.scans, self.clock = stage, scans, clock
        self.scan: Scan | None = None
        self._rule = BatchRule(stage.batch_size, stage.deadline_s, newest_first=stage.newest_first)
        self._taken = np.zeros(0, bool)
        self._closed: set[str] = set()
        self._refusal = ""  # why the stage cannot use the current scan

    def turn(self) -> float:
        """Does at most one batch or one slice of idle work; returns how long it is safe to sleep."""
        scan = self.scan or self._next_scan()
        if scan is None:
            self.stage.idle(self.clock() + SLICE_S)
            return POLL_S
        # Read before looking for frames: what is ready after this was written is seen in this turn.
        is_tail = all(scan.count(stage, "closed") for stage in self.stage.inputs)
        ready = self._ready(scan)
        batch = self._rule.pick(ready, self.clock(), is_tail=is_tail)
        if batch.size:
            self._handle(scan, batch)
            return 0.0
        is_busy = not self._refusal and self.stage.idle(self.clock() + SLICE_S)
        if is_tail and not ready.size and not is_busy and self._others_are_closed(scan):
            self.finish()
            return 0.0
        return 0.0 if is_busy else self._rule.remaining_s(self.clock())

    def _handle(self, scan: Scan, batch: Numbers) -> None:
        if self._refusal:
            if not self._taken.any():
                log.error("%s cannot use the frames of %s: %s", self.stage.name, scan.name, self._refusal)
            scan.mark(self.stage.name, batch, State.BAD)
        else:
            self.stage.handle(batch)
        self._taken[batch] = True

    def _others_are_closed(self, scan: Scan) -> bool:
        return all(scan.count(stage, "closed") for stage in self.stage.waits_for)

    def finish(self) -> None:
        """Closes the current scan: what is published is marked, what never was is marked UNFINISHED."""
        if self.scan is None:
            return
        if not self._refusal:
            self.stage.close()
        recorded = self.scan.states("subscriber")
        own = self.scan.states(self.stage.name)[: len(recorded)]  # frames may have come in between
        left = np.flatnonzero((recorded == State.DONE) & (own == State.PENDING))
        self.scan.mark(self.stage.name, left, State.UNFINISHED)
        self.scan.counters(self.stage.name, writable=True)["closed"] = 1
        self._closed.add(self.scan.name)
        self.scan = None

    def _next_scan(self) -> Scan | None:
        for scan in scans_in(self.scans, besides=self._closed):
            if scan.count(self.stage.name, "closed"):
                self._closed.add(scan.name)
                continue
            scan.counters(self.stage.name, writable=True)
            scan.ledger(self.stage.name, writable=True)
            self._taken = np.zeros(0, bool)
            self._refusal = self._open(scan)
            self.scan = scan
            return scan
        return None

    def _open(self, scan: Scan) -> str:
        """Opens the stage; returns why it cannot use the scan: another series of the run may be usable."""
        try:
            self.stage.open(scan)
        except ValueError as error:
            return str(error)
        return ""

    def _ready(self, scan: Scan) -> Numbers:
        own = scan.states(self.stage.name)
        if len(own) > len(self._taken):
            self._taken = np.pad(self._taken, (0, len(own) - len(self._taken)))
        ready = (own == State.PENDING) & ~self._taken[: len(own)]
        for stage in self.stage.inputs:
            states = scan.states(stage)[: len(own)]
            ready[len(states) :] = False
            blocked = ready[: len(states)] & (states > State.DONE)
            self._pass_on(scan, states, np.flatnonzero(blocked))
            ready[: len(states)] &= states == State.DONE
        return np.flatnonzero(ready)

    def _pass_on(self, scan: Scan, states: np.ndarray, blocked: Numbers) -> None:
        """Gives frames that an earlier stage could not do the same reason here."""
        for state in np.unique(states[blocked]):
            scan.mark(self.stage.name, blocked[states[blocked] == state], State(int(state)))
        self._taken[blocked] = True


def run_stage(
    stage: Worker | Source,
    context: StageContext,
    clock: Clock = time.monotonic,
    *,
    on_link: Callable[[Link], None] | None = None,
) -> None:
    """Runs `stage` until it is told to stop; blocks.

    Parameters
    ----------
    stage : Worker or Source
    context : StageContext
    clock : callable
        Monotonic seconds.
    on_link : callable, optional
        Gets the link to the supervisor once it is there; a process attaches its log to it.

    Raises
    ------
    Exception
        Whatever the stage raised, after it was reported: the supervisor starts the stage anew.
    """
    with Link(context, stage.name) as link:
        try:
            link.greet()
            if on_link:
                on_link(link)
            if isinstance(stage, Worker):
                _run_worker(stage, link, context, clock)
            else:
                _run_source(stage, link, context, clock)
        except Exception as error:
            log.exception("stage %s failed", stage.name)
            link.notice(logging.ERROR, f"{type(error).__name__}: {error}")
            raise


def _run_worker(stage: Worker, link: Link, context: StageContext, clock: Clock) -> None:
    stage.prepare()
    loop = WorkerLoop(stage, context.scans, clock)
    link.listen_to((*stage.inputs, *stage.waits_for))
    door = Socket("ROUTER", stage.door) if stage.door else None
    link.ready(door.address if door else "")
    try:
        while not link.is_stopped:
            pause_s = loop.turn()
            link.wait(pause_s, [door] if door else [])
            if door:
                _serve(stage, door)
            link.report(loop.scan.name if loop.scan else "", stage.counts(), clock())
        loop.finish()
        link.report("", stage.counts(), clock(), force=True)
        # A client between two questions still has to hear of the last picture.
        leaves_at = clock() + FAREWELL_S
        while door and clock() < leaves_at:
            _serve(stage, door)
            link.wait(POLL_S, [door])
    finally:
        if door:
            door.flush_and_close(1.0)


def _serve(stage: Worker, door: Socket) -> None:
    requests = []
    while (parts := door.receive()) is not None:
        requests.append(parts)
    for reply in stage.exchange(requests):
        door.send(reply)


def _run_source(stage: Source, link: Link, context: StageContext, clock: Clock) -> None:
    stage.prepare(context.scans)
    inlet = Socket(stage.inlet[0], stage.inlet[1], queue=stage.inlet[2]) if stage.inlet else None
    link.ready(inlet.address if inlet else "")
    try:
        while not link.is_stopped:
            messages: list[list[Buffer]] = []
            if inlet:
                while len(messages) < MESSAGES_PER_TURN and (parts := inlet.receive()) is not None:
                    messages.append(parts)
            if messages:
                stage.handle(messages)
            # Also under load: a source that never rests must hear that it is to stop.
            link.wait(0.0 if messages else POLL_S, [inlet] if inlet else [])
            stage.idle(clock())
            link.report(*stage.progress(), clock(), ring=bool(messages))
        stage.close()
        link.report(*stage.progress(), clock(), force=True)
    finally:
        if inlet:
            inlet.close()
