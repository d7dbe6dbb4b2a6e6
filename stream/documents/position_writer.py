"""Positions into the columns of one scan: the first value stays, and every frame ends with a byte."""

import contextlib
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from operators.arrays import Positions
from stream.atomic import DiskFullError
from stream.documents.position_reader import Placed
from stream.record.scan import Numbers, Scan, State

STAGE = "positions"
# A position may come long before its frame; a wild number must not fill the disk with empty segments.
MAX_FRAMES_AHEAD = 1_000_000


class PositionWriter:
    """The one writer of a scan's positions, when they came, its ledger and its counters.

    Parameters
    ----------
    scan : Scan
    field_m : float, metres
        A position further than this from the first ones of the scan is impossible: one wild reading would
        make the canvas of the object as large as the way to it.
    settling_frames, line_frames : int
        So many frames at the start of the scan, or of every line of so many frames, are left out: the probe
        was not at rest yet.
    clock : callable
        Monotonic seconds, as of the times at which frames are received.

    Attributes
    ----------
    refused : list of (int, str)
        How many positions were too far away or had no room, and what to say of one, since the caller last
        emptied it.
    """

    def __init__(
        self,
        scan: Scan,
        field_m: float = float("inf"),
        *,
        settling_frames: int = 0,
        line_frames: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.scan, self._field_m, self._clock = scan, field_m, clock
        self._settling_frames, self._line_frames = settling_frames, line_frames
        self._centre_m: Positions | None = None
        self.refused: list[tuple[int, str]] = []
        self.counters = scan.counters(STAGE, writable=True)
        self._column = scan.column("positions_m", writable=True)
        self._placed_s = scan.column("placed_s", writable=True)
        self._ledger = scan.ledger(STAGE, writable=True)
        with contextlib.suppress(DiskFullError):  # what fits: others may fill the disk while frames come
            for column in (self._ledger, self._column, self._placed_s):
                column.reserve(scan.count("subscriber", "announced"))
        states = self._ledger.head(self.counters["head"])
        self._n_done = int(np.count_nonzero(states == State.DONE))
        self._n_without = int(np.count_nonzero(states == State.NO_POSITION))
        self._n_settling = int(np.count_nonzero(states == State.SETTLING))

    @property
    def is_closed(self) -> bool:
        """Whether every frame of the scan has its byte."""
        return bool(self.counters["closed"])

    @property
    def is_complete(self) -> bool:
        """Whether every frame that is known by now has a position, or will get none."""
        return not (self.scan.states(STAGE) == State.PENDING).any()

    def write(self, placed: Placed) -> None:
        """Stores what is new; counts what is late, impossible, or there already.

        Frame numbers may come in any order and with repetitions.
        """
        numbers, positions_m = placed.numbers, placed.positions_m
        self.leave_out(placed.settling)
        self._count("rejected", placed.n_no_numbers)  # their frames stay pending
        if self.is_closed:
            self._count("late", len(numbers))
            return
        is_usable = self._is_usable(numbers, positions_m)
        self._count("rejected", len(numbers) - int(is_usable.sum()))
        is_usable &= ~self._leave_out_by_count(numbers, is_usable)
        is_first = self._is_first(numbers[is_usable])
        self._store(placed, np.flatnonzero(is_usable)[is_first])
        self._compare(numbers[is_usable][~is_first], positions_m[is_usable][~is_first])

    def restore(self, placed: Placed) -> None:
        """Stores what is not there yet and counts nothing: after a restart, from the recorded documents."""
        self.leave_out(placed.settling)
        if self.is_closed:
            return
        numbers = placed.numbers
        is_new = self._is_first(numbers) & self._is_usable(numbers, placed.positions_m)
        is_new &= ~self._leave_out_by_count(numbers, is_new)
        self._store(placed, np.flatnonzero(is_new))

    def leave_out(self, numbers: Numbers) -> None:
        """Marks frames (frame,) int64 that were taken while the probe was not at rest; a position stays."""
        if self.is_closed:
            return
        is_usable = (numbers >= 0) & (numbers < self.scan.n_frames + MAX_FRAMES_AHEAD)
        new = numbers[is_usable & self._is_first(numbers)]
        if new.size:
            self.scan.mark(STAGE, new, State.SETTLING)
            self._n_settling += len(new)
            self.counters["head"] = max(self.counters["head"], int(new.max()) + 1)

    def close(self) -> None:
        """Marks frames that have no position and will get none, and ends the scan for this stage."""
        if self.is_closed:
            return
        without = np.flatnonzero(self.scan.states(STAGE) == State.PENDING)
        self.leave_out(without[self._settles(without)])
        without = without[~self._settles(without)]
        self.scan.mark(STAGE, without, State.NO_POSITION)
        self._n_without += len(without)
        self.counters["head"] = max(self.counters["head"], self.scan.n_frames)
        self.counters["ended"] = 1
        self.counters["closed"] = 1

    def counts(self) -> dict[str, int]:
        """Returns figures for the progress report."""
        counted = {name: self.counters[name] for name in ("duplicates", "conflicts", "rejected", "late")}
        counts = {"done": self._n_done, "no_position": self._n_without, "settling": self._n_settling}
        return counts | counted

    def _settles(self, numbers: Numbers) -> NDArray[np.bool_]:
        within = numbers % self._line_frames if self._line_frames else numbers
        return within < self._settling_frames

    def _leave_out_by_count(self, numbers: Numbers, is_usable: NDArray[np.bool_]) -> NDArray[np.bool_]:
        is_settling = is_usable & self._settles(numbers)
        self.leave_out(numbers[is_settling])
        return is_settling

    def _store(self, placed: Placed, which: NDArray[np.int64]) -> None:
        new = placed.numbers[which]
        if not new.size:
            return
        try:
            self._ledger.reserve(int(new.max()) + 1)
            self._column.write(new, placed.positions_m[which])
        except DiskFullError as error:
            sentence = f"frame {new[0]} of scan {self.scan.name} and what follows: {error.strerror}"
            self.refused.append((len(new), sentence))
            return
        with contextlib.suppress(DiskFullError):  # costs what is told beside the position, not that
            self._placed_s.write(new, self._clock())
            for name in ("spread_m", "travel_m", "flux"):
                values = getattr(placed, name)
                if values is not None:
                    self.scan.column(name, writable=True).write(new, values[which])
        self.scan.mark(STAGE, new, State.DONE)
        self._n_done += len(new)
        self.counters["head"] = max(self.counters["head"], int(new.max()) + 1)

    def _compare(self, again: Numbers, positions_m: Positions) -> None:
        if again.size:
            self._count("duplicates", len(again))
            self._count("conflicts", int((self._column.read(again) != positions_m).any(axis=1).sum()))

    def _is_usable(self, numbers: Numbers, positions_m: Positions) -> NDArray[np.bool_]:
        is_usable: NDArray[np.bool_] = np.isfinite(positions_m).all(axis=1)
        is_usable &= (numbers >= 0) & (numbers < self.scan.n_frames + MAX_FRAMES_AHEAD)
        if self._centre_m is None and is_usable.any():
            self._centre_m = np.median(positions_m[is_usable], axis=0)
        if self._centre_m is None:
            return is_usable
        with np.errstate(invalid="ignore"):
            away_m = np.abs(positions_m - self._centre_m).max(axis=1)
            is_wild = is_usable & ~(away_m <= self._field_m)
        if is_wild.any():
            first = int(np.argmax(is_wild))
            y_m, x_m = positions_m[first]
            sentence = (
                f"frame {numbers[first]} of scan {self.scan.name}: position y {y_m:g} m, x {x_m:g} m is "
                f"{away_m[first]:g} m from the first ones of its scan, positions.field_m allows "
                f"{self._field_m:g} m: is positions.unit right? raise positions.field_m for a larger field"
            )
            self.refused.append((int(is_wild.sum()), sentence))
        return is_usable & ~is_wild

    def _is_first(self, numbers: Numbers) -> NDArray[np.bool_]:
        is_first = np.zeros(len(numbers), bool)
        is_first[np.unique(numbers, return_index=True)[1]] = True
        return is_first & (self._ledger.read(numbers) == State.PENDING)

    def _count(self, name: str, n: int) -> None:
        if n:
            self.counters[name] += n
