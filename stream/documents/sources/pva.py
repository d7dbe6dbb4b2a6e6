"""Positions in EPICS PVs: arrays that grow while the scan is measured, or tables whose rows are numbered.

An update of a PV may get lost, so nothing is counted: either an array holds the whole scan so far, and its
element n is capture n, or each row of a table says of which frame it is.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.documents.codec import Document, DocumentError
from stream.documents.config import PositionsConfig
from stream.documents.sources.protocol import PolledSource, Said
from stream.documents.sources.run import RunDocuments
from stream.wire.foreign import in_short
from stream.wire.pva import Monitor, PvaError, Updates

UPDATES_PER_CALL, CAPTURES_PER_CALL = 64, 4096
MAX_FRAMES = 10_000_000
QUEUE = 100  # updates that wait

Values = NDArray[np.float64]
Piece = tuple[int, list[Values]]  # number of the first capture, and values of each axis


class Arrays:
    """Axes whose arrays hold the whole scan so far.

    One that is shorter than it was, or begins differently, is of another scan; that has begun when all axes
    have begun anew, or grown from nothing.
    """

    def __init__(self, n_axes: int) -> None:
        self._known: list[Values] = [np.empty(0)] * n_axes
        self._has_begun = [False] * n_axes
        self._n_scans = self._n_given = 0
        self._is_joined = True  # no axis has begun anew yet: one that grows is of the scan that goes on

    @property
    def scan(self) -> int:
        """Number of the scan that all axes are of, -1 while they are of several or nobody knows."""
        return self._n_scans if all(self._has_begun) else -1

    def take(self, arrays: Mapping[int, Values], *, is_old: bool) -> None:
        """Takes arrays by axis as they are now; `is_old` if they were so before they were connected to."""
        is_anew = any(map(self._begins_anew, arrays, arrays.values()))
        if is_anew:
            if any(self._has_begun[axis] for axis in arrays):
                self._n_scans += 1
                self._has_begun = [False] * len(self._known)
            self._n_given, self._is_joined = 0, False
        for axis, values in arrays.items():
            n_known = len(self._known[axis])
            grows = len(values) > n_known and not is_old
            self._has_begun[axis] |= is_anew or (grows and (not n_known or self._is_joined))
            self._known[axis] = values

    def resume(self, numbers: NDArray[np.int64], captures: list[Values]) -> None:
        """Takes captures that a process before this one has recorded."""
        for axis, values in enumerate(captures):
            if len(self._known[axis]) == numbers[0]:
                self._known[axis] = np.append(self._known[axis], values)
            self._has_begun[axis] = True
        self._n_given = min(map(len, self._known))

    def new(self) -> list[Piece]:
        """Returns captures that were not given before, some thousands at most."""
        first, stop = self._n_given, min(map(len, self._known))
        stop = min(stop, first + CAPTURES_PER_CALL)
        self._n_given = max(first, stop)
        return [(first, [known[first:stop] for known in self._known])] if stop > first else []

    def _begins_anew(self, axis: int, values: Values) -> bool:
        known = self._known[axis]
        return not np.array_equal(values[: len(known)], known, equal_nan=True)


class Rows:
    """Rows that say of which frame they are; a frame of which others are told is one of another scan."""

    def __init__(self, n_axes: int) -> None:
        self.scan = -1  # as of `Arrays`
        self._known = np.full((n_axes, 0), np.nan)
        self._n_scans, self._top = 0, -1
        self._waiting: list[Piece] = []

    def take(self, numbers: NDArray[np.int64], rows: Values, *, is_old: bool) -> None:
        """Takes rows, (axis, row), of the frames `numbers`."""
        if not len(numbers):
            return
        is_known = numbers < self._known.shape[1]
        before, now = self._known[:, numbers[is_known]], rows[:, is_known]
        differs = np.isfinite(before) & np.isfinite(now) & (before != now)
        if numbers.max() < self._top or differs.any():
            self._n_scans, is_old = self._n_scans + 1, False
            self._known, self._waiting = self._known[:, :0], []
        self._note(numbers, rows)
        order = np.argsort(numbers, kind="stable")
        numbers, rows = numbers[order], rows[:, order]
        for piece in np.split(np.arange(len(numbers)), np.flatnonzero(np.diff(numbers) != 1) + 1):
            self._waiting.append((int(numbers[piece[0]]), list(rows[:, piece])))
        if not is_old:
            self.scan = self._n_scans

    def resume(self, numbers: NDArray[np.int64], captures: list[Values]) -> None:
        """Takes rows that a process before this one has recorded."""
        self._note(numbers, np.array(captures))

    def new(self) -> list[Piece]:
        """Returns rows that were not given before."""
        new, self._waiting = self._waiting, []
        return new

    def _note(self, numbers: NDArray[np.int64], rows: Values) -> None:
        self._top = int(numbers.max())
        missing = self._top + 1 - self._known.shape[1]
        if missing > 0:
            self._known = np.pad(self._known, ((0, 0), (0, missing)), constant_values=np.nan)
        self._known[:, numbers] = rows


class PvaPositions(PolledSource):
    """A source: PVs of y and x, or one table.

    Parameters
    ----------
    config : PositionsConfig
    updates : sequence of Updates
        Of the PVs `config.pvs`, in their order.
    """

    hears_ends = False

    def __init__(self, config: PositionsConfig, updates: Sequence[Updates]) -> None:
        self._config, self._updates = config, updates
        self._run = RunDocuments("pva", config)
        self._told = (Rows if config.numbers else Arrays)(len(self._run.axes))
        self._units: dict[int, str] = {}
        self._shown: int | None = None  # the scan that the last run is of

    def receive(self) -> Sequence[Said]:
        """Returns the documents of what has come since; see `PolledSource`."""
        self.waits_for = ", ".join(f"PV {one.name}" for one in self._updates if not one.is_connected)
        for axis, updates in enumerate(self._updates):
            for _ in range(UPDATES_PER_CALL):
                try:
                    update = updates.receive()
                except PvaError as error:
                    raise DocumentError(str(error)) from error
                if update is None:
                    break
                self._take(axis, updates.name, *update)
        return self._documents()

    def resume(self, name: str, document: Document) -> None:
        """Goes on with the run that a process before this one has left open."""
        self._run.resume(name, document)
        if name == "event_page" and self._run.is_open:
            numbers, data = np.array(document["seq_num"]) - 1, document["data"]
            captures = [np.array(data[axis], float).reshape(-1) for axis in self._run.axes]
            self._told.resume(numbers * self._run.captures_per_frame, captures)
            self._shown = 0

    def finish(self) -> Sequence[Said]:
        """Returns the end of the run, whose series is over."""
        return self._run.stop()

    def close(self) -> None:
        """Stops listening."""
        for updates in self._updates:
            updates.close()

    def _take(self, axis: int, name: str, value: Any, is_old: bool) -> None:
        try:
            held = value["value"]
            if isinstance(self._told, Arrays) and len(self._updates) > 1:
                self._told.take({axis: _numbers(held, name)}, is_old=is_old)
                self._note_unit(axis, value)
                return
            columns = [_numbers(held[column], f"{name}, column {column}") for column in self._run.names]
            n_rows = min(map(len, columns))
            if isinstance(self._told, Rows):
                numbers = _numbers(held[self._config.numbers], f"{name}, column {self._config.numbers}")
                n_rows = min(n_rows, len(numbers))
                self._told.take(
                    self._frames(numbers[:n_rows], name),
                    np.array([column[:n_rows] for column in columns]),
                    is_old=is_old,
                )
                return
            arrays = {column: values[:n_rows] for column, values in enumerate(columns)}
            self._told.take(arrays, is_old=is_old)
        except (KeyError, TypeError, AttributeError) as error:
            wanted = "an NTScalarArray" if len(self._updates) > 1 else "an NTTable"
            raise DocumentError(f"PV {name}: wanted {wanted} with positions: {error}") from error

    def _note_unit(self, axis: int, value: Any) -> None:
        unit = value.get("display.units")
        if isinstance(unit, str) and unit:
            self._units[axis] = unit

    def _frames(self, numbers: Values, name: str) -> NDArray[np.int64]:
        frames = numbers - self._config.first_number
        is_frame = (frames >= 0) & (frames < MAX_FRAMES) & (frames == np.floor(frames))
        if not is_frame.all():
            raise DocumentError(
                f"PV {name}, column {self._config.numbers}: {in_short(float(numbers[~is_frame][0]))}: wanted "
                f"whole numbers from positions.first_number, {self._config.first_number}, on"
            )
        return frames.astype(np.int64)

    def _documents(self) -> list[Said]:
        scan, documents = self._told.scan, list[Said]()
        if scan < 0 or (scan == self._shown and not self._run.is_open):
            return []
        if scan != self._shown:
            documents += self._run.stop()
        pieces = self._told.new()
        if pieces and not self._run.is_open:
            units = [self._units.get(axis) for axis in range(2)]
            sources = [one.name for one in self._updates] * (3 - len(self._updates))
            documents += self._run.start(units=units, sources=sources)
            self._shown = scan
        for first, captures in pieces:
            for axis, values in enumerate(captures):
                self._run.add(axis, first, values)
            documents += self._run.pages()
        return documents


def _numbers(values: Any, name: str) -> Values:
    if values is None:  # an array that nobody has set yet
        return np.empty(0)
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "iuf" or values.ndim != 1:
        raise DocumentError(f"PV {name} holds {in_short(type(values).__name__)}: wanted an array of numbers")
    if len(values) > MAX_FRAMES:
        raise DocumentError(f"PV {name} holds {len(values)} numbers: wanted {MAX_FRAMES} at most")
    return values.astype(np.float64)


def pva_positions(config: PositionsConfig) -> PvaPositions:
    """Returns the source of the PVs that are configured.

    Raises
    ------
    PvaError
        If they would be searched for on other computers, and that is not allowed.
    ImportError
        If p4p is missing.
    """
    return PvaPositions(config, [Monitor(name, QUEUE, insecure=config.insecure) for name in config.pvs])
