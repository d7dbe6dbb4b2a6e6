"""Stage: inference by several workers, each a process of its own that leases frames from this one.

The dispatcher has no network. It alone writes the columns, the ledger and the counters of inference, decides
which frames go next, and gives them out as leases (`stream.stages.inference.leases`); what comes back it
stores. A worker may die, freeze or be slow, and so may the dispatcher: a frame that is not marked is leased
again, one that is marked is not marked again.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.arrays import Array, abs2
from stream.record.batches import BatchRule
from stream.record.ground_order import GroundOrder
from stream.record.handover import NETWORK
from stream.record.passage import NONE, merged
from stream.record.probe import STAGE as PROBE_STAGE
from stream.record.scan import Numbers, Scan, State
from stream.stages.config import NetworkConfig
from stream.stages.inference.leases import Leases, worker_number
from stream.stages.inference.patch_columns import PatchColumns
from stream.stages.inputs import Optics, read_corners
from stream.stages.refusals import Complaints
from stream.stages.stage import ScanWork, UnusableScanError
from stream.wire.codec import Buffer, ProtocolError, decode_with, encode
from stream.wire.handshake import answer_to, rejection
from stream.wire.lease_messages import DECODER, AskLease, Inferred, Lease
from stream.wire.messages import Hello, Welcome
from stream.wire.sockets import Endpoint

log = logging.getLogger(__name__)

DTYPES = ("<i8", "<c8", "<f2", "<u8", "|u1")  # of what comes back


class Dispatcher:
    """Worker and door keeper: frames of its scan go to whoever infers.

    Parameters
    ----------
    config : NetworkConfig
    optics : Optics
        Where no probe is known frames wait until it is found in the scan.
    door : Endpoint
        Where workers ask.
    run_id : str
        Told to every worker that is welcome.
    clock : callable
        Monotonic seconds.
    """

    name = NETWORK
    inputs: tuple[str, ...] = ("subscriber",)
    batch_size, deadline_s = 4096, 0.0  # all that there is: which frames go when is decided here
    most_unread = 64  # a lease that is dropped would have to run out

    def __init__(
        self,
        config: NetworkConfig,
        optics: Optics,
        door: Endpoint,
        run_id: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config, self.optics, self.door, self.clock = config, optics, door, clock
        self.waits_for: tuple[str, ...] = () if optics.probe else (PROBE_STAGE,)
        if optics.probe:
            optics.load_probe()  # a wrong one is reported before the scan
        self._run_id, self._refused = run_id, Complaints(log, "messages of workers refused")
        self._clients: dict[str, bytes] = {}  # by worker
        self._workers: dict[bytes, str] = {}  # by client
        self._work: DispatchedScan | None = None

    def open(self, scan: Scan) -> "DispatchedScan":
        """Begins to give out frames of this scan."""
        self._work = DispatchedScan(self, scan)
        return self._work

    def leave(self) -> None:
        """Gives out nothing more of the scan that is open."""
        self._work = None

    def exchange(self, requests: Sequence[Sequence[Buffer]]) -> list[list[Buffer]]:
        """Takes what workers say, and returns what they get."""
        replies = [reply for request in requests if (reply := self._answer_to(request))]
        if self._work is not None:
            lease = Lease(scan=self._work.scan.name)
            for worker, numbers in self._work.lease():
                replies.append([self._clients[worker], *encode(lease, [numbers])])
        return replies

    def _answer_to(self, request: Sequence[Buffer]) -> list[Buffer] | None:
        client = bytes(request[0])
        try:
            message, arrays = decode_with(DECODER, request[1:])
            worker = self._workers.get(client)
            match message:
                case Hello():
                    return [client, *encode(self._greet(client, message))]
                case AskLease() if worker is not None:
                    return [client, *encode(self._tell(worker, message))]
                case Inferred() if worker is not None:
                    self._take(worker, message, arrays)
                    return None
        except ProtocolError as error:
            self._refused.add(str(error))
            self._refused.say(self.clock())
            return [client, *encode(rejection(error))]
        return [client, *encode(rejection(f"{type(message).__name__}: greet first, then AskLease"))]

    def _greet(self, client: bytes, hello: Hello) -> Any:
        objection = "" if worker_number(hello.role) else f"{hello.role!r} is no worker of {NETWORK}"
        answer = answer_to(hello, self._run_id, objection)
        if isinstance(answer, Welcome):
            before = self._clients.get(hello.role)
            if before is not None:  # died: what it had need not run out first
                del self._workers[before]
                if self._work is not None:
                    self._work.forget(hello.role)
            self._clients[hello.role], self._workers[client] = client, hello.role
        return answer

    def _tell(self, worker: str, ask: AskLease) -> Lease:
        work = self._work
        if work is None:
            return Lease()
        if ask.scan == work.scan.name:
            work.welcome(worker, ask)
        return Lease(scan=work.scan.name)

    def _take(self, worker: str, message: Inferred, arrays: list[NDArray[Any]]) -> None:
        shapes = [array.shape for array in arrays]
        n = len(arrays[0]) if arrays and arrays[0].ndim == 1 else 0
        patch_shape = shapes[1] if len(arrays) > 1 else ()
        wanted = [(n,), patch_shape, patch_shape, (n,), (n,)]
        is_square = len(patch_shape) == 3 and patch_shape[0] == n and patch_shape[1] == patch_shape[2]
        if not is_square or shapes != wanted or tuple(array.dtype.str for array in arrays) != DTYPES:
            raise ProtocolError(f"{worker}: arrays {[(array.dtype.str, array.shape) for array in arrays]}")
        if self._work is not None and self._work.scan.name == message.scan:
            self._work.take(worker, arrays)


class DispatchedScan(ScanWork):
    """The frames of one scan: which wait, which are leased, and what came back."""

    def __init__(self, stage: Dispatcher, scan: Scan) -> None:
        self.scan, self._stage = scan, stage
        stage.optics.preprocess(scan)  # frames that no worker can use are known at once
        corners_of = partial(read_corners, scan, stage.optics.geometry)
        self._order = GroundOrder(scan, NETWORK, corners_of, self._illumination)
        self._rule = BatchRule(stage.config.batch_size, stage.config.deadline_s)
        self._leases = Leases()
        self._waiting, self._again = NONE, NONE  # never leased, and leased to no avail; ascending
        self._came: list[tuple[str, list[NDArray[Any]]]] = []  # not stored yet
        self._n_pixels = 0  # of a patch
        self._columns: PatchColumns | None = None
        self._by = scan.column("worker", writable=True)
        self._lit: Array | None = None
        self._n_owed = self._n_inferred = 0

    def welcome(self, worker: str, ask: AskLease) -> None:
        """Takes note of a worker that is ready for this scan.

        Raises
        ------
        ProtocolError
            If its patches are not as large as those of the others.
        """
        self._n_pixels = self._n_pixels or ask.patch_px
        if ask.patch_px != self._n_pixels:
            raise ProtocolError(
                f"{worker} makes patches of {ask.patch_px} pixels, those of {self.scan.name} have "
                f"{self._n_pixels}: have the weights been changed? start the run again"
            )
        self._leases.welcome(worker, ask.n_leases, ask.n_held)

    def forget(self, worker: str) -> None:
        """Takes back what a worker that was started anew had."""
        self._again = np.union1d(self._again, self._leases.gone(worker))

    def lease(self) -> Iterator[tuple[str, Numbers]]:
        """Yields who gets which frames now: those whose lease ran out, then those of the most new ground."""
        now = self._stage.clock()
        for silent, numbers in self._leases.run_out(now):
            self._again = np.union1d(self._again, numbers)
            log.warning("%s does not answer: its %d frames go to others", silent, len(numbers))
        if self._illumination() is None:
            return
        while (worker := self._leases.next()) is not None and (numbers := self._next_batch(now)).size:
            self._leases.give(worker, numbers, now)
            yield worker, numbers

    def take(self, worker: str, arrays: list[NDArray[Any]]) -> None:
        """Takes what a worker has made of a lease, to be stored in the next turn; of any other nothing.

        Raises
        ------
        ProtocolError
            If the patches have another size than it said: the lease stands, and runs out.
        """
        if (n_pixels := arrays[1].shape[-1]) != self._n_pixels:
            raise ProtocolError(f"{worker}: patches of {n_pixels} pixels, wanted {self._n_pixels}")
        if self._leases.settle(worker, arrays[0], self._stage.clock()):
            self._came.append((worker, arrays))

    def handle(self, numbers: Numbers) -> None:
        """Has these frames wait for a worker."""
        self._store()
        self._waiting = merged(self._waiting, numbers)
        self._n_owed += len(numbers)

    def idle(self, deadline: float) -> bool:
        """Stores what came back; says whether anything did."""
        return self._store()

    def rest_s(self, now: float) -> float:
        """Returns when a batch that does not fill has waited long enough."""
        return self._rule.remaining_s(now)

    def awaits_others(self) -> bool:
        """Says whether workers still owe frames; without a probe they never will do any."""
        return self._n_owed > 0 and self._illumination() is not None

    def close(self) -> None:
        """Stores what came back; the others stay PENDING."""
        self._store()
        self._stage.leave()

    def hand_over(self) -> None:
        """Stores what came back; the others are the finisher's."""
        self.close()

    def counts(self) -> dict[str, int]:
        """Returns how many frames of the scan came back to this process."""
        return {"inferred": self._n_inferred}

    def _illumination(self) -> Array | None:
        if self._lit is None and (probe := self._stage.optics.probe_of(self.scan)) is not None:
            self._lit = abs2(probe).sum(axis=0)
        return self._lit

    def _next_batch(self, now: float) -> Numbers:
        size = self._rule.size
        if (again := self._pending(self._again)).size:
            self._again = again[size:]
            return again[:size]
        self._again = NONE
        numbers = self._rule.pick(self._waiting, now, is_tail=False, first_of=self._order.first_of)
        if numbers.size:
            self._waiting = np.delete(self._waiting, np.searchsorted(self._waiting, numbers))
            self._order.take(numbers)
        return numbers

    def _pending(self, numbers: Numbers) -> Numbers:
        return numbers[self.scan.states(NETWORK, numbers) == State.PENDING] if numbers.size else numbers

    def _store(self) -> bool:
        """Store what came back, of each frame what came first; say whether anything did."""
        came, self._came = self._came, []
        for worker, (numbers, patches, sigma, models, good) in came:
            is_new = self.scan.states(NETWORK, numbers) == State.PENDING
            if not is_new.any():
                continue
            if not is_new.all():
                numbers, patches, sigma, models, good = (
                    values[is_new] for values in (numbers, patches, sigma, models, good)
                )
            columns, is_good = self._opened_columns(), good > 0
            columns.write(numbers, patches, sigma)
            self._by.write(numbers, worker_number(worker))
            columns.settle(numbers, models, is_good, self._stage.clock())
            self._n_owed -= len(numbers)
            self._n_inferred += int(np.count_nonzero(is_good))
        return bool(came)

    def _opened_columns(self) -> PatchColumns:
        if self._columns is None:
            try:
                self._columns = PatchColumns(self.scan, self._n_pixels)
            except ValueError as error:  # an earlier run has left others
                raise UnusableScanError(str(error)) from error
        return self._columns
