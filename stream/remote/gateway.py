"""The run's side of workers on other machines: what they ask, and what they may have. No sockets.

Here everything that comes from outside is checked; what goes on to the dispatcher of inference is as from a
worker beside it.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from stream.record.handover import NETWORK
from stream.record.probe import found_probe_file
from stream.record.scan import Numbers, Scan, names_of_scans
from stream.record.tuned_weights import newest_version
from stream.remote.asking import Arrays
from stream.remote.column_values import answer_to_fetch
from stream.remote.files import SharedFiles
from stream.remote.messages import (
    DECODER,
    DIALECT,
    MOST_LEASES,
    AskLeases,
    AskPart,
    AskSetup,
    Fetch,
    Lease,
    Leases,
    Leave,
    Part,
    Question,
    Refused,
    Result,
    Setup,
    SharedFile,
    Taken,
)
from stream.wire.codec import Buffer, ProtocolError, decode_with, encode
from stream.wire.foreign import in_short, printable
from stream.wire.handshake import answer_to, rejection
from stream.wire.messages import MAX_REASON, Hello, Reject, Welcome

log = logging.getLogger(__name__)

NO_NEWS_S = 0.15  # after which a worker hears that there are no frames: the line is good
GONE_S = 3.0  # a worker that is not heard for so long has gone
COLUMNS = ("frames",)  # that may be fetched
MOST_OPEN = 4  # scans


class Share(Protocol):
    """One worker's part in inference, at the dispatcher's door."""

    def ask(self, patch_px: int) -> None:
        """Asks for leases, for a worker that makes patches of this size; again and again while it lives."""

    def leases(self) -> list[tuple[str, Numbers]]:
        """Returns what has come since: names of scans, and frames of them."""

    def answer(self, scan: str, numbers: Numbers, made: Arrays) -> None:
        """Hands on what the worker has made of a lease: patches, sigma, models, good."""

    def close(self) -> None:
        """Leaves."""


@dataclass(slots=True)
class _Worker:
    """A worker that is welcome."""

    number: int
    share: Share
    heard_at: float
    patch_px: int = 0  # 0 until it asks for the first time
    given: dict[int, tuple[Lease, Numbers]] = field(default_factory=dict)  # by number, not answered yet
    asked: AskLeases | None = None  # not answered yet
    asked_at: float = 0.0


class Gateway:
    """Answers workers.

    Parameters
    ----------
    run_id : str
    setup : Setup
    files : SharedFiles
        Those of `setup`; what is found or tuned during a scan is added.
    scans : Path
        Folder of scans.
    join : callable
        Makes the share of one more worker, by its number, which is free.
    numbers : range
        Of workers.
    clock : callable
        Monotonic seconds.
    first_lease : int
        Number of the first lease, above all that a process before this one has given.

    Attributes
    ----------
    n_refused, n_done : int
        Questions that could not be answered, and frames that came back.
    """

    def __init__(
        self,
        run_id: str,
        setup: Setup,
        files: SharedFiles,
        scans: Path,
        *,
        join: Callable[[int], Share],
        numbers: range,
        clock: Callable[[], float],
        first_lease: int,
    ) -> None:
        self._run_id, self._setup, self._files, self._folder = run_id, setup, files, scans
        self._join, self._numbers, self._clock = join, numbers, clock
        self._needs_probe = all(file.role != "probe" for file in setup.files)
        self._next_lease = first_lease
        self._workers: dict[bytes, _Worker] = {}
        self._scans: dict[str, Scan] = {}
        self.n_refused, self.n_done = 0, 0

    @property
    def n_workers(self) -> int:
        """How many workers are there."""
        return len(self._workers)

    def exchange(self, requests: Sequence[Sequence[Buffer]]) -> list[list[Buffer]]:
        """Takes [client, message, ...] parts and returns those to send."""
        replies = []
        for request in requests:
            client = bytes(request[0])
            if answer := self._answer(client, request[1:]):
                replies.append([client, *answer])
        now = self._clock()
        for client, worker in list(self._workers.items()):
            if now - worker.heard_at > GONE_S:
                log.warning("worker %d on another machine is not heard any more", worker.number)
                self._forget(client)
            elif answer := self._leases_for(worker, now):
                replies.append([client, *answer])
        return replies

    def close(self) -> None:
        """Leaves for all workers."""
        for worker in self._workers.values():
            worker.share.close()
        self._workers.clear()

    def may_begin(self, name: str) -> bool:
        """Says whether there is all that a worker needs for this scan: a probe may still be looked for."""
        return not self._needs_probe or found_probe_file(self._scan(name)) is not None

    def _answer(self, client: bytes, parts: Sequence[Buffer]) -> list[Buffer] | None:
        """Return what is answered at once, None where the answer has time."""
        try:
            message, arrays = decode_with(DECODER, parts)
        except ProtocolError as error:
            self.n_refused += 1
            return encode(rejection(error))
        worker = self._workers.get(client)
        if isinstance(message, Hello):
            return encode(self._greet(client, message))
        if worker is None or not isinstance(message, Question):
            return encode(rejection(f"{type(message).__name__}: greet first, then ask"))
        worker.heard_at = self._clock()
        if isinstance(message, Leave):
            self._forget(client)
            return None
        if isinstance(message, AskLeases):
            worker.patch_px, worker.asked, worker.asked_at = message.patch_px, message, worker.heard_at
            return None
        try:
            answer, values = self._find(worker, message, arrays)
        except (ValueError, OSError) as error:
            self.n_refused += 1
            answer, values = Refused(reason=printable(str(error), MAX_REASON)), []
        return encode(_to(message, answer), values)

    def _greet(self, client: bytes, hello: Hello) -> Welcome | Reject:
        taken = {worker.number for worker in self._workers.values()}
        free = [number for number in self._numbers if number not in taken]
        is_new = client not in self._workers
        objection = ""
        if hello.role != NETWORK:
            objection = f"workers of {NETWORK} are let in here, not of {printable(hello.role, 50)}"
        elif is_new and not free:
            objection = f"{len(taken)} workers are here, and no more are taken"
        answer = answer_to(hello, self._run_id, objection, DIALECT)
        if isinstance(answer, Welcome) and is_new:
            self._workers[client] = _Worker(free[0], self._join(free[0]), self._clock())
        return answer

    def _forget(self, client: bytes) -> None:
        self._workers.pop(client).share.close()

    def _find(self, worker: _Worker, message: Question, arrays: Arrays) -> tuple[Question, Arrays]:
        match message:
            case AskSetup():
                return self._setup, []
            case AskPart(sha256=sha256, offset=offset):
                return Part(), [self._files.part(sha256, offset)]
            case Fetch(scan=name):
                return answer_to_fetch(message, arrays, self._scan(name), COLUMNS)
            case Result():
                self._take(worker, message, arrays)
                return Taken(), []
        raise ValueError(f"a worker asks, and sends no {type(message).__name__}")

    def _scan(self, name: str) -> Scan:
        """Return a scan of the run; a name that comes from outside is looked for, and never made a path."""
        if name not in self._scans:
            if name not in names_of_scans(self._folder):
                raise ValueError(f"there is no scan {in_short(name)}")
            while len(self._scans) >= MOST_OPEN:
                self._scans.pop(next(iter(self._scans))).close()
            self._scans[name] = Scan(self._folder / name)
        return self._scans[name]

    def _take(self, worker: _Worker, result: Result, arrays: Arrays) -> None:
        if result.lease not in worker.given:  # it is taken already, or a process before this one gave it
            return
        lease, numbers = worker.given[result.lease]
        n, side = len(numbers), worker.patch_px
        wanted = [("<c8", (n, side, side)), ("<f2", (n, side, side)), ("<u8", (n,)), ("|u1", (n,))]
        came = [(array.dtype.str, array.shape) for array in arrays]
        if came != wanted:
            raise ValueError(f"a result of {n} frames has {wanted}, got {in_short(came)}")
        patches, sigma, models, good = arrays
        # One value that is not finite would spread over the whole mosaic; a worker may be wrong about that.
        is_finite = np.isfinite(patches.sum(axis=(1, 2))) & np.isfinite(sigma.sum(axis=(1, 2), dtype="<f4"))
        worker.share.answer(lease.scan, numbers, [patches, sigma, models, good * is_finite])
        del worker.given[result.lease]
        self.n_done += n

    def _leases_for(self, worker: _Worker, now: float) -> list[Buffer] | None:
        """Return what a worker that has asked for frames is told, None where it has not, or may wait."""
        if not worker.patch_px:
            return None
        worker.share.ask(worker.patch_px)
        asked = worker.asked
        if asked is None:
            return None
        # Given and not held: the answer was lost.
        leases = [given for number, given in worker.given.items() if number not in asked.held]
        if asked.room > len(leases):
            new = [self._lease(*lease) for lease in worker.share.leases()]
            worker.given |= {lease.lease: (lease, numbers) for lease, numbers in new}
            leases += new
        if not leases and now - worker.asked_at < NO_NEWS_S:
            return None
        worker.asked, leases = None, leases[:MOST_LEASES]
        answer = Leases(leases=tuple(lease for lease, _ in leases))
        return encode(_to(asked, answer), [numbers for _, numbers in leases])

    def _lease(self, name: str, numbers: Numbers) -> tuple[Lease, Numbers]:
        scan, number = self._scan(name), self._next_lease
        self._next_lease += 1
        frames = scan.column("frames")
        lease = Lease(
            lease=number,
            scan=name,
            frame_shape=(frames.item_shape[0], frames.item_shape[1]),
            frame_dtype=frames.dtype.str,
            files=tuple(self._found_in(scan)),
        )
        return lease, numbers

    def _found_in(self, scan: Scan) -> Iterator[SharedFile]:
        _, tuned = newest_version(scan)
        if tuned is not None:
            yield self._files.share(tuned, "tuned_weights")
        if self._needs_probe and (found := found_probe_file(scan)) is not None:
            yield self._files.share(found, "found_probe")


def _to(question: Question, answer: Question) -> Question:
    return msgspec.structs.replace(answer, question=question.question)
