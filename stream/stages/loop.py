"""The loop that runs a stage: poll, scan after scan (`stream.stages.cursor`), report, stop.

`run_stage` is the same blocking function in a local process and in a Ray actor; what it runs is described in
`stream.stages.stage`.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from stream.atomic import DiskFullError
from stream.record.handover import (
    FINISHED_LATER,
    NETWORK,
    PROBE,
    hand_over,
    has_left,
    have_closed,
    is_left_behind,
)
from stream.record.scan import NewScans, Scan, order_of
from stream.stages.cursor import POLL_S, Clock, ScanCursor
from stream.stages.link import Link, StageContext
from stream.stages.pulse import Pulse
from stream.stages.refusals import in_words
from stream.stages.stage import (
    DoorKeeper,
    Fetcher,
    Forwarder,
    Latecomer,
    ScanWork,
    Service,
    Source,
    Stage,
    Worker,
)
from stream.wire.codec import Buffer
from stream.wire.handshake import SILENCE_S
from stream.wire.sockets import EndpointError, Socket

log = logging.getLogger(__name__)

MESSAGES_PER_TURN, BYTES_PER_TURN = 256, 32 << 20
FEW_MESSAGES, GATHER_S = 16, 0.008  # when so few came, more are waited for: together they cost half
CLIENTS = "clients"  # among the counts of a stage with a door: how many follow it
FAREWELL_S = 0.3  # how long a door is served after the last scan


class StageRefusedError(Exception):
    """A stage that cannot run as it is configured: started again, it could not either."""


class WorkerLoop:
    """Drives one worker through the scans of a folder; `turn` does one piece of work.

    Parameters
    ----------
    stage : Worker
    scans : Path
        Folder of scans.
    clock : callable
        Monotonic seconds.
    run_id, config_hash : str
        Of the run: see `stream.record.handover.is_left_behind`.
    """

    def __init__(
        self,
        stage: Worker,
        scans: Path,
        clock: Clock = time.monotonic,
        *,
        run_id: str = "",
        config_hash: str = "",
    ) -> None:
        self.stage, self.scans, self.clock = stage, scans, clock
        self._run = run_id, config_hash
        self._begins_last = isinstance(stage, Latecomer)
        self._cursor: ScanCursor | None = None
        self._new = NewScans(scans)
        self._waiting: dict[str, Scan] = {}  # scans that it cannot begin with yet

    @property
    def scan(self) -> Scan | None:
        """The scan that is open."""
        return self._cursor.scan if self._cursor else None

    @property
    def work(self) -> ScanWork | None:
        """What is done with that scan."""
        return self._cursor.work if self._cursor else None

    def turn(self) -> float:
        """Does at most one batch or one slice of idle work; returns how long it is safe to sleep."""
        if self._cursor is None:
            self._cursor = self._next()
        if self._cursor is None:
            return POLL_S
        pause_s = self._cursor.turn()
        if pause_s is not None:
            return pause_s
        self._cursor.leave()
        self._cursor = None
        return 0.0

    def finish(self) -> None:
        """Closes the scan that is open, in a stage that begins last also those that others have closed."""
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None
        while self._begins_last and (cursor := self._next()) is not None:
            while cursor.turn() is not None:
                pass
            cursor.leave()

    def progress(self) -> tuple[str, dict[str, int]]:
        """Returns the name of the open scan and figures for the progress report."""
        return (self._cursor.scan.name, self._cursor.work.counts()) if self._cursor else ("", {})

    def _next(self) -> ScanCursor | None:
        self._waiting |= {scan.name: scan for scan in self._new.look()}
        for name in sorted(self._waiting, key=order_of):
            scan = self._waiting[name]
            if has_left(scan, self.stage.name) or self._leaves(scan):
                del self._waiting[name]
            elif not self._begins_last or self._is_over(scan):
                return ScanCursor(self.stage, self._waiting.pop(name), self.clock)
        return None

    def _leaves(self, scan: Scan) -> bool:
        """Leave the scan of an earlier run to the finisher, if it is to be; say whether it is."""
        if self._begins_last or not is_left_behind(scan, *self._run):
            return False
        name = self.stage.name
        if name in (PROBE, *FINISHED_LATER) and scan.has_stage(name):
            hand_over(scan, name)
        return True

    def _is_over(self, scan: Scan) -> bool:
        """Whether all that the scan's own run had for it have closed it."""
        awaited = filter(scan.has_stage, self.stage.waits_for)
        return have_closed(scan, (*self.stage.inputs, *awaited))


def run_stage(
    name: str,
    build: Callable[[], Stage],
    context: StageContext,
    clock: Clock = time.monotonic,
    *,
    on_link: Callable[[Link], None] | None = None,
) -> None:
    """Builds the stage `name` and runs it until it is told to stop; blocks.

    Parameters
    ----------
    name : str
        By which the supervisor knows it.
    build : callable
        Called once the supervisor has welcomed the stage: it waits while that loads.
    context : StageContext
    clock : callable
        Monotonic seconds.
    on_link : callable, optional
        Gets the link to the supervisor once it is there; a process attaches its log to it.

    Raises
    ------
    StageRefusedError
        If the stage cannot be built as it is configured.
    EndpointError, DiskFullError
        If an address cannot be used, or what comes does not fit.
    Exception
        Whatever the stage raised, after it was reported: the supervisor starts the stage anew.
    """
    with Link(context, name) as link:
        try:
            link.greet()
            if on_link:
                on_link(link)
            _run(_built(build), link, context, clock)
        except (StageRefusedError, EndpointError, DiskFullError):
            raise
        except Exception as error:
            log.exception("stage %s failed", name)
            link.notice(logging.ERROR, f"{type(error).__name__}: {error}")
            raise


def _built(build: Callable[[], Stage]) -> Stage:
    try:
        return build()
    except (ValueError, ImportError, OSError, RuntimeError, MemoryError) as error:
        raise StageRefusedError(in_words(error)) from error


def _run(stage: Stage, link: Link, context: StageContext, clock: Clock) -> None:
    if isinstance(stage, Service):
        stage.run(link)
    elif isinstance(stage, Source):
        _run_source(stage, link, clock)
    else:
        _run_worker(stage, link, context, clock)


class _Door:
    """The socket of a door keeper."""

    def __init__(self, keeper: DoorKeeper, clock: Clock = time.monotonic) -> None:
        self._keeper, self.socket = keeper, Socket("ROUTER", keeper.door, queue=keeper.most_unread)
        self._clock, self._heard = clock, dict[bytes, float]()

    def serve(self) -> None:
        received = list(islice(iter(self.socket.receive, None), MESSAGES_PER_TURN))
        now = self._clock()
        self._heard |= {bytes(parts[0]): now for parts in received}
        for reply in self._keeper.exchange(received):
            self.socket.send(reply)

    def counts(self) -> dict[str, int]:
        """Return who was not let in, and how many have asked lately: who follows asks again in a second."""
        now = self._clock()
        self._heard = {client: at for client, at in self._heard.items() if now - at <= SILENCE_S}
        return {CLIENTS: len(self._heard)} | self.socket.strangers

    def say_farewell(self, link: Link) -> None:
        """Serve a little longer: a client between two questions still has to hear of the last picture."""
        leaves_at = self._clock() + FAREWELL_S
        while self._clock() < leaves_at:
            self.serve()
            link.wait(POLL_S, [self.socket])


def _run_worker(stage: Worker, link: Link, context: StageContext, clock: Clock) -> None:
    loop = WorkerLoop(stage, context.scans, clock, run_id=context.run_id, config_hash=context.config_hash)
    link.listen_to(_bells_for(stage))
    door = _Door(stage, clock) if isinstance(stage, DoorKeeper) else None
    link.ready(door.socket.address if door else "")
    try:
        while not link.is_stopped:
            link.wait(loop.turn(), [door.socket] if door else [])
            if door:
                door.serve()
            scan, counts = loop.progress()
            link.report(scan, counts | (door.counts() if door else {}), clock())
        loop.finish()
        link.report(*loop.progress(), clock(), force=True)
        if door:
            door.say_farewell(link)
    finally:
        if door:
            door.socket.flush_and_close(1.0)


def _bells_for(stage: Worker) -> list[str]:
    """Return the stages that may have something new for this one; each ring costs a turn."""
    if isinstance(stage, Latecomer):  # it is in no hurry
        return []
    # What the network is done with the detector's stage was done with long before.
    is_first = {"subscriber"} if NETWORK in stage.inputs else set()
    return [name for name in (*stage.inputs, *stage.waits_for) if name not in is_first]


class _Ends:
    """The sockets of a source, and what is left to pass on."""

    def __init__(self, stage: Source, held: ExitStack) -> None:
        inlet, self.address = stage.inlet, ""
        self._inlets: list[Socket] = []
        self._outlet: Socket | None = None
        self._forwarder = stage if isinstance(stage, Forwarder) else None
        self._left: deque[Sequence[Buffer]] = deque()
        self.is_empty = False  # whether all that had come was received
        self._source = stage
        if inlet is not None and inlet.relay is not None:  # first: what comes there has waited once
            self._inlets.append(held.enter_context(Socket(inlet.pattern, inlet.relay, queue=inlet.queue)))
        if inlet is not None:
            own = Socket(inlet.pattern, inlet.endpoints, queue=inlet.queue, most_bytes=inlet.most_bytes)
            self._inlets.append(held.enter_context(own))
            self.address = own.address
        if inlet is not None and self._forwarder is not None:
            self._outlet = Socket("PUSH", self._forwarder.outlet, queue=inlet.queue)
            held.callback(self._outlet.flush_and_close, FAREWELL_S)

    def receive(self) -> list[list[Buffer]]:
        """Returns messages that have come, as many as a turn takes; none while some wait to be passed on."""
        messages: list[list[Buffer]] = []
        n_bytes, self.is_empty = 0, not self._left
        for inlet in self.awaited:
            while (parts := inlet.receive()) is not None:
                messages.append(parts)
                n_bytes += sum(map(len, parts))
                if len(messages) >= MESSAGES_PER_TURN or n_bytes >= BYTES_PER_TURN:
                    self.is_empty = False
                    return messages
        return messages

    @property
    def awaited(self) -> list[Socket]:
        """The sockets from which something may be received."""
        return [] if self._left else self._inlets

    def progress(self) -> tuple[str, dict[str, int]]:
        """Returns what the source says of its progress, with who was not let in at its sockets."""
        scan, counts = self._source.progress()
        return scan, counts | {name: n for inlet in self._inlets for name, n in inlet.strangers.items()}

    def pass_on(self) -> bool:
        """Sends what the source leaves to another; says whether all of it has gone."""
        if self._forwarder is not None and self._outlet is not None:
            self._left.extend(self._forwarder.passed_on())
            while self._left and self._outlet.send(self._left[0]):
                self._left.popleft()
        return not self._left


def _run_source(stage: Source, link: Link, clock: Clock) -> None:
    with ExitStack() as held:
        ends, pulse = _Ends(stage, held), held.enter_context(Pulse(link.context.rendezvous, link.name))
        link.ready(ends.address)
        fetcher, hears_at = stage if isinstance(stage, Fetcher) else None, clock()
        while not link.is_stopped:
            began = clock()
            messages = ends.receive()
            if messages:
                stage.handle(messages)
            n_taken = len(messages) + (fetcher.fetch() if fetcher else 0)
            has_passed_on = ends.pass_on()
            pulse.beat(clock(), began if has_passed_on and ends.is_empty else None)
            stage.idle(clock())
            link.report(*ends.progress(), clock(), ring=n_taken > 0)
            # Also under load: a source that never rests must hear that it is to stop.
            if not n_taken or began >= hears_at:
                link.wait(0.0 if n_taken else POLL_S, ends.awaited)
                hears_at = began + POLL_S
            elif n_taken < FEW_MESSAGES:
                time.sleep(GATHER_S)
        stage.close()
        link.report(*ends.progress(), clock(), force=True)
