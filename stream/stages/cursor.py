"""One worker in one scan: which frames it gets and when, when it is done, and who goes on with the scan."""

import contextlib
import logging
from collections.abc import Callable

import numpy as np

from stream.atomic import DiskFullError
from stream.record.account import Accounts
from stream.record.batches import BatchRule
from stream.record.handover import (
    FINISHED_LATER,
    NETWORK,
    hand_over,
    has_left,
    has_successor,
    have_closed,
    is_handed_over,
)
from stream.record.passage import ReadyFrames
from stream.record.scan import Numbers, Scan, State
from stream.stages.refusals import in_words
from stream.stages.stage import Latecomer, ScanWork, UnusableScanError, Worker

log = logging.getLogger(__name__)

Clock = Callable[[], float]

NO_USE = (MemoryError, UnusableScanError, DiskFullError)  # which end a stage's work on one scan, not the run
POLL_S = 0.02  # a lost doorbell costs this much
SLICE_S = 0.03  # longest piece of work between two looks at the ledger
BACKLOG_S = 1.0  # how long the next scan waits for frames of the one before that the network has not come to


class ScanCursor:
    """Takes one worker through one scan.

    Attributes
    ----------
    scan : Scan
    work : ScanWork
    is_to_hand_over : bool
        Whether the finisher is to go on with the scan: the image of the next one does not wait.
    """

    def __init__(self, stage: Worker, scan: Scan, clock: Clock) -> None:
        self.scan, self._stage, self._clock = scan, stage, clock
        scan.counters(stage.name, writable=True)
        scan.ledger(stage.name, writable=True)
        self._rule = BatchRule(stage.batch_size, stage.deadline_s)
        self._ready, self._accounts = ReadyFrames(scan, stage.name, stage.inputs), Accounts(scan)
        self.is_to_hand_over = False
        self._followed_at: float | None = None  # when the next scan was first seen, after the end of this one
        try:
            scan.ledger(stage.name).reserve(scan.count("subscriber", "announced"))
            self.work: ScanWork = stage.open(scan)
        except (ValueError, DiskFullError) as error:
            self.work = LeftOut(stage.name, scan, error)

    def turn(self) -> float | None:
        """Does at most one batch or one slice of idle work.

        Returns
        -------
        float or None
            Seconds for which it is safe to sleep, None when nothing is left to do here in this scan: `leave`.
        """
        # Read before looking for frames: what is ready after this was written is seen in this turn.
        is_tail = self._have_left(self._stage.inputs)
        self._ready.look()
        ready = self._ready.numbers
        if is_tail and self._may_hand_over():
            self.is_to_hand_over = True
            return None
        batch = self._rule.pick(ready, self._clock(), is_tail=is_tail, first_of=self.work.first_of)
        if batch.size:
            self._ready.take(batch)
            self._handle(batch)
            return 0.0
        is_busy = self._within_slice(self.work.idle)
        if is_tail and not ready.size and not is_busy and self._is_over() and not self.work.awaits_others():
            return 0.0 if self._within_slice(self.work.closing) else None
        if is_busy:
            return 0.0
        now = self._clock()
        return min(self._rule.remaining_s(now), max(self.work.rest_s(now), 0.0), POLL_S)

    def _handle(self, batch: Numbers) -> None:
        try:
            self.work.handle(batch)
        except NO_USE as error:
            self._give_up(error)

    def _within_slice(self, work: Callable[[float], bool]) -> bool:
        try:
            return work(self._clock() + SLICE_S)
        except NO_USE as error:
            self._give_up(error)
            return False

    def _give_up(self, error: Exception) -> None:
        """Leave out the frames in hand and those to come: started again, the stage would come as far."""
        with contextlib.suppress(MemoryError, DiskFullError):
            self.work.close()  # what it has
        self.work = LeftOut(self._stage.name, self.scan, error)
        self.work.handle(self._ready.in_hand())

    def leave(self) -> None:
        """Closes the scan, or hands it over, and lets go of it."""
        if self.is_to_hand_over:
            self.work.hand_over()
            hand_over(self.scan, self._stage.name)
        else:
            self.close()
        self.scan.close()

    def close(self) -> None:
        """Ends the scan: what is published is marked, what never was is marked UNFINISHED."""
        try:
            self.work.close()
        except DiskFullError as error:
            self._give_up(error)
        name = self._stage.name
        recorded = self.scan.states("subscriber")
        own = self.scan.states(name)[: len(recorded)]  # frames may have come in between
        left = np.flatnonzero((recorded == State.DONE) & (own == State.PENDING))
        self.scan.mark(name, left, State.UNFINISHED)
        self.scan.counters(name, writable=True)["closed"] = 1

    def _have_left(self, stages: tuple[str, ...]) -> bool:
        return all(has_left(self.scan, stage) for stage in stages)

    def _is_over(self) -> bool:
        stage = self._stage
        if isinstance(stage, Latecomer):  # or it would not have been opened
            return True
        if stage.name not in FINISHED_LATER:  # nobody else will do it
            return self._have_left(stage.waits_for)
        return have_closed(self.scan, (*stage.inputs, *stage.waits_for))

    def _may_hand_over(self) -> bool:
        scan, stage = self.scan, self._stage
        if stage.name not in FINISHED_LATER or is_handed_over(scan, stage.name) or not has_successor(scan):
            return False
        if stage.name == NETWORK:  # what it has not come to by then is not worth the next scan's image
            now = self._clock()
            self._followed_at = now if self._followed_at is None else self._followed_at
            return now - self._followed_at >= BACKLOG_S
        return not self._ready.numbers.size and (is_handed_over(scan, NETWORK) or self._accounts.is_shown)


class LeftOut(ScanWork):
    """A scan of which a stage can make nothing: another series of the run may be usable.

    Frames are NO_ROOM where the disk is full, otherwise BAD. What is recorded is not touched.
    """

    def __init__(self, stage: str, scan: Scan, error: Exception) -> None:
        self._stage, self._scan, self._error = stage, scan, error
        self._is_said = False
        self._state, self._reason = State.BAD, str(error)
        if isinstance(error, MemoryError):  # the object is as large as its positions make it
            reason = self._reason or "too large for the memory"
            self._reason = f"{reason}; check positions.unit and positions.field_m"
        if isinstance(error, DiskFullError):
            self._state = State.NO_ROOM
            self._reason = (
                f"{in_words(error)}; `ptychostream reconstruct {scan.folder}` takes all that is recorded"
            )

    def reason_for_others(self) -> str:
        """Returns why, for whoever else might try.

        Raises
        ------
        MemoryError, DiskFullError
            If it is for want of room here: elsewhere there may be some.
        """
        if isinstance(self._error, MemoryError | DiskFullError):
            raise self._error
        return self._reason

    def handle(self, numbers: Numbers) -> None:
        """Marks the frames, and says why once; where there is no room even for the mark they stay pending."""
        if not self._is_said:
            log.error("%s cannot use the frames of %s: %s", self._stage, self._scan.name, self._reason)
            self._is_said = True
        with contextlib.suppress(DiskFullError):
            self._scan.mark(self._stage, numbers, self._state)
