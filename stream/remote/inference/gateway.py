"""The run's side of workers on other machines: what they ask, and what they may have. No sockets.

Here everything that comes from outside is checked; what goes on to the dispatcher of inference is as from a
worker beside it.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from stream.record.handover import NETWORK
from stream.record.probe import found_probe_file
from stream.record.scan import Numbers, Scan, names_of_scans
from stream.record.tuned_weights import newest_version
from stream.remote.answering import NO_NEWS_S, Answer, Answering, Known
from stream.remote.asking import Arrays
from stream.remote.column_values import answer_to_fetch
from stream.remote.files import SharedFiles
from stream.remote.messages import (
    MOST_LEASES,
    AskLeases,
    Fetch,
    Lease,
    Leases,
    Question,
    Result,
    Setup,
    SharedFile,
    Taken,
)
from stream.wire.foreign import in_short

log = logging.getLogger(__name__)

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


@dataclass(slots=True, kw_only=True)
class _Worker(Known):
    number: int
    share: Share
    patch_px: int = 0  # 0 until it asks for the first time
    given: dict[int, tuple[Lease, Numbers]] = field(default_factory=dict)  # by number, not answered yet


class Gateway(Answering[_Worker]):
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
    n_done : int
        Frames that came back.
    """

    gone_s = 3.0

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
        super().__init__(run_id, NETWORK, setup, files, clock)
        self._folder, self._join, self._numbers = scans, join, numbers
        self._needs_probe = all(file.role != "probe" for file in setup.files)
        self._next_lease = first_lease
        self._scans: dict[str, Scan] = {}
        self.n_done = 0

    def close(self) -> None:
        """Leaves for all workers."""
        for worker in self._workers.values():
            worker.share.close()
        self._workers.clear()

    def may_begin(self, name: str) -> bool:
        """Says whether there is all that a worker needs for this scan: a probe may still be looked for."""
        return not self._needs_probe or found_probe_file(self._scan(name)) is not None

    def _has_room(self) -> bool:
        return bool(self._free())

    def _free(self) -> list[int]:
        taken = {worker.number for worker in self._workers.values()}
        return [number for number in self._numbers if number not in taken]

    def _new_worker(self, now: float) -> _Worker:
        number = self._free()[0]
        return _Worker(number=number, share=self._join(number), heard_at=now)

    def _forget(self, client: bytes) -> None:
        self._workers.pop(client).share.close()

    def _lose(self, client: bytes) -> None:
        log.warning("worker %d on another machine is not heard any more", self._workers[client].number)
        self._forget(client)

    def _has_time(self, worker: _Worker, message: Question) -> bool:
        if not isinstance(message, AskLeases):
            return False
        worker.patch_px = message.patch_px
        return True

    def _find(self, client: bytes, message: Question, arrays: Arrays) -> Answer:
        match message:
            case Fetch(scan=name):
                return answer_to_fetch(message, arrays, self._scan(name), COLUMNS)
            case Result():
                self._take(self._workers[client], message, arrays)
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

    def _late_answer(self, client: bytes, worker: _Worker, now: float) -> Answer | None:
        if not worker.patch_px:
            return None
        worker.share.ask(worker.patch_px)
        asked = worker.asked
        if not isinstance(asked, AskLeases):
            return None
        # Given and not held: the answer was lost.
        leases = [given for number, given in worker.given.items() if number not in asked.held]
        if asked.room > len(leases):
            new = [self._lease(*lease) for lease in worker.share.leases()]
            worker.given |= {lease.lease: (lease, numbers) for lease, numbers in new}
            leases += new
        if not leases and now - worker.asked_at < NO_NEWS_S:
            return None
        leases = leases[:MOST_LEASES]
        return Leases(leases=tuple(lease for lease, _ in leases)), [numbers for _, numbers in leases]

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
