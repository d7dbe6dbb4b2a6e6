"""A worker of inference: a process that leases frames from the dispatcher and sends back patch and sigma.

It may be anywhere: what it needs is a door to the dispatcher and the scan's frames. It marks nothing and
writes no column.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing

import numpy as np

from stream.record.account import counted
from stream.record.scan import Numbers, Scan
from stream.stages.inference.worker import Inference, Passed, ScanPasses, judged
from stream.stages.link import Link
from stream.wire.codec import ProtocolError
from stream.wire.handshake import Connection
from stream.wire.lease_messages import DECODER, AskLease, Inferred, Lease
from stream.wire.messages import Reject, StageState
from stream.wire.sockets import Endpoint

log = logging.getLogger(__name__)

ASK_S = 0.2  # between two questions while there is nothing to do
FLUSH_S = 1.0  # for which an answer may have to wait until it can be sent
QUEUE = 16


class LeasedInference:
    """Service: one worker of inference.

    Parameters
    ----------
    inference : Inference
        With the network, warm.
    door : Endpoint
        Of the dispatcher.
    open_scan : callable
        Returns a scan by its name.
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self,
        inference: Inference,
        door: Endpoint,
        open_scan: Callable[[str], Scan],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inference, self._door, self._open_scan, self._clock = inference, door, open_scan, clock

    def run(self, link: Link) -> None:
        """Works on what it is given until the run ends."""
        connection = Connection(self._door, link.name, queue=QUEUE, decoder=DECODER, clock=self._clock)
        with closing(connection):
            worker = _Worker(self._inference, connection, self._open_scan, self._clock)
            link.ready()
            while not link.is_stopped:
                link.wait(worker.turn(), [connection.open()])
                link.report(*worker.progress(), self._clock(), state=worker.state(link.name))
            worker.leave()


class _Worker:
    """What a worker has in hand."""

    def __init__(
        self,
        inference: Inference,
        connection: Connection,
        open_scan: Callable[[str], Scan],
        clock: Callable[[], float],
    ) -> None:
        self._inference, self._connection = inference, connection
        self._open_scan, self._clock = open_scan, clock
        self._scan: Scan | None = None
        self._passes: ScanPasses | None = None
        self._leases: deque[Numbers] = deque()
        self._ask_at = float("-inf")
        self._n_inferred, self._took_s = 0, 0.0

    def turn(self) -> float:
        """Does at most one lease; returns for how long there is nothing to do, seconds."""
        self._hear()
        if self._leases and self._passes is not None:
            began, ready = self._clock(), self._passes.weights.look()
            if ready is not None:
                self._answer(self._passes.infer(ready, self._leases.popleft()))
                self._took_s += self._clock() - began
                return 0.0
        if self._passes is not None:
            self._answer(self._passes.flush())
        now = self._clock()
        if now >= self._ask_at:
            self._ask_at = now + ASK_S
            self._connection.say(self._question())
        return self._ask_at - now

    def progress(self) -> tuple[str, dict[str, int]]:
        """Returns the scan and how many frames of it this process has done."""
        return (self._scan.name, {"inferred": self._n_inferred}) if self._scan else ("", {})

    def state(self, name: str) -> StageState:
        """Returns what it does, for people."""
        if not self._n_inferred:
            return StageState(name=name, text="waiting for frames", level="ok")
        each_ms = 1e3 * self._took_s / self._n_inferred
        return StageState(name=name, text=f"{counted(self._n_inferred)}, {each_ms:.2g} ms each", level="ok")

    def leave(self) -> None:
        """Lets go of the scan."""
        if self._passes is not None:
            self._answer(self._passes.flush())
            self._passes.weights.close()
        if self._scan is not None:
            self._scan.close()
        self._scan = self._passes = None
        self._leases.clear()
        self._n_inferred, self._took_s = 0, 0.0

    def _hear(self) -> None:
        while (heard := self._connection.hear()) is not None:
            match heard:
                case Lease(scan=scan), arrays:
                    self._prepare(scan)
                    self._leases.extend(numbers for numbers in arrays if numbers.size)
                case Reject(reason=reason), _ if not self._connection.is_welcome:
                    raise ProtocolError(f"this worker is refused: {reason}")
                case Reject(reason=reason), _:  # the dispatcher was started anew
                    log.info("greets again: %s", reason)
                    self._connection.close()
                    self._leases.clear()
                    self._ask_at = self._clock() + ASK_S

    def _question(self) -> AskLease:
        is_ready = self._passes is not None and self._passes.weights.look() is not None
        return AskLease(
            scan=self._scan.name if self._scan and is_ready else "",
            n_leases=3 if self._inference.stores_later else 2,  # a GPU has one in hand and one behind it
            n_held=len(self._leases),
            patch_px=self._inference.before.predictor.crop,
        )

    def _prepare(self, name: str) -> None:
        """Open the scan that the dispatcher is at, if it is another."""
        if name == (self._scan.name if self._scan else ""):
            return
        self.leave()
        if not name:
            return
        self._scan = self._open_scan(name)
        self._passes = ScanPasses(self._inference, self._scan)
        self._ask_at = float("-inf")

    def _answer(self, passed: Passed | None) -> None:
        if passed is None or self._scan is None:
            return
        is_good, sigma = judged(passed.patches, passed.sigma)
        arrays = [passed.numbers, passed.patches, sigma, passed.models, is_good.astype(np.uint8)]
        self._connection.say(Inferred(scan=self._scan.name), arrays, timeout_s=FLUSH_S)
        self._n_inferred += len(passed.numbers)
