"""The process of a run that lets workers on other machines in, and speaks for them to the dispatcher."""

import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from stream.record.account import counted
from stream.record.scan import Numbers
from stream.remote.answering import first_lease
from stream.remote.asking import Arrays
from stream.remote.files import SharedFiles
from stream.remote.inference.gateway import Gateway
from stream.remote.messages import Setup
from stream.stages.inference.leases import worker_name
from stream.stages.link import Link
from stream.wire.codec import ProtocolError
from stream.wire.handshake import Connection
from stream.wire.lease_messages import DECODER, AskLease, Inferred, Lease
from stream.wire.messages import Reject, StageState
from stream.wire.sockets import Endpoint, Socket

POLL_S = 0.02
ASK_S = 0.2  # between two words that a worker lives
LEASES = 3  # that a worker holds, as `stream.remote.inference.worker` does
MESSAGES_PER_TURN = 64
UNREAD = 64  # answers that wait for a worker, which asks for a few at a time
FLUSH_S = 1.0  # for which an answer may have to wait until it can be sent
MOST_RESULT_BYTES = 512 << 20


class DispatcherShare:
    """A worker on another machine as the dispatcher sees it: one of those beside it.

    Parameters
    ----------
    door : Endpoint
        Of the dispatcher.
    name : str
        Of the worker.
    may_begin : callable
        Says whether a worker could work on a scan, by its name.
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self, door: Endpoint, name: str, may_begin: Callable[[str], bool], clock: Callable[[], float]
    ) -> None:
        self._connection = Connection(door, name, queue=16, decoder=DECODER, clock=clock)
        self._may_begin, self._clock = may_begin, clock
        self._scan, self._ask_at, self.is_open = "", float("-inf"), True
        self._leases: deque[tuple[str, Numbers]] = deque()
        self._n_held = 0  # not answered

    @property
    def socket(self) -> Socket:
        """What wakes up who waits for leases."""
        return self._connection.open()

    def ask(self, patch_px: int) -> None:
        """Tells the dispatcher that the worker lives and for which scan; takes what it says."""
        self._hear()
        now = self._clock()
        if now >= self._ask_at:
            self._ask_at = now + ASK_S
            scan = self._scan if self._scan and self._may_begin(self._scan) else ""
            self._connection.say(AskLease(scan=scan, n_leases=LEASES, n_held=self._n_held, patch_px=patch_px))

    def leases(self) -> list[tuple[str, Numbers]]:
        """Returns the leases that came since."""
        self._hear()
        leases, self._leases = self._leases, deque()
        return list(leases)

    def answer(self, scan: str, numbers: Numbers, made: Arrays) -> None:
        """Hands on what the worker has made of a lease."""
        self._connection.say(Inferred(scan=scan), [numbers, *made], timeout_s=FLUSH_S)
        self._n_held = max(self._n_held - (scan == self._scan), 0)

    def close(self) -> None:
        """Hangs up: leases that are not answered run out."""
        self.is_open = False
        self._connection.close()

    def _hear(self) -> None:
        while (heard := self._connection.hear()) is not None:
            match heard:
                case Lease(scan=scan), arrays:
                    if scan != self._scan:
                        self._scan, self._ask_at, self._n_held = scan, float("-inf"), 0
                    new = [(scan, numbers) for numbers in arrays if numbers.size]
                    self._leases += new
                    self._n_held += len(new)
                case Reject(reason=reason), _ if not self._connection.is_welcome:
                    raise ProtocolError(f"the dispatcher refuses a worker: {reason}")
                case Reject(), _:  # it was started anew
                    self._connection.close()
                    self._leases.clear()
                    self._n_held = 0


class GatewayService:
    """Service: the door for workers on other machines.

    Parameters
    ----------
    door : Endpoint
        Where they connect.
    dispatcher : Endpoint
    setup, files
        As of `Gateway`.
    scans : Path
    run_id : str
    numbers : range
        Of workers, as the dispatcher counts them.
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self,
        door: Endpoint,
        dispatcher: Endpoint,
        setup: Setup,
        files: SharedFiles,
        scans: Path,
        *,
        run_id: str,
        numbers: range,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._door, self._dispatcher, self._clock = door, dispatcher, clock
        self._shares: list[DispatcherShare] = []
        self._gateway = Gateway(
            run_id,
            setup,
            files,
            scans,
            join=self._join,
            numbers=numbers,
            clock=clock,
            first_lease=first_lease(),
        )

    def run(self, link: Link) -> None:
        """Answers workers until the run ends."""
        gateway = self._gateway
        with Socket("ROUTER", self._door, queue=UNREAD, most_bytes=MOST_RESULT_BYTES) as door:
            link.ready(door.address)
            try:
                while not link.is_stopped:
                    shares = [share.socket for share in self._shares if share.is_open]
                    link.wait(POLL_S, [door, *shares])
                    received = iter(door.receive, None)
                    for reply in gateway.exchange(list(islice(received, MESSAGES_PER_TURN))):
                        door.send(reply)
                    counts = {"workers": gateway.n_workers, "inferred": gateway.n_done}
                    counts["refused"] = gateway.n_refused
                    link.report("", counts | door.strangers, self._clock(), state=self._state(link.name))
            finally:
                gateway.close()

    def _join(self, number: int) -> DispatcherShare:
        share = DispatcherShare(self._dispatcher, worker_name(number), self._gateway.may_begin, self._clock)
        self._shares = [*(share for share in self._shares if share.is_open), share]
        return share

    def _state(self, name: str) -> StageState:
        n = self._gateway.n_workers
        text = f"{n} worker{'s' * (n != 1)} on other machines, {counted(self._gateway.n_done)} came back"
        return StageState(name=name, text=text if n else "no workers on other machines", level="ok")
