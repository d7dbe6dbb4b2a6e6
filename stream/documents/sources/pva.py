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
Captures = tuple[NDArray[np.int64], Values]  # numbers (capture,), and values (capture, axis)


class Arrays:
    """Axes whose arrays hold the whole scan so far; what is not known yet is NaN.

    One that is shorter than it was, or begins differently, is of another scan; that has begun when all axes
    have begun anew, or grown from nothing.
    """

    def __init__(self, n_axes: int) -> None:
        self._known: list[Values] = [np.empty(0)] * n_axes
        self._has_begun = [False] * n_axes
        self._n_scans = 0
        self._is_given: NDArray[np.bool_] = np.empty(0, bool)
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
            self._is_given, self._is_joined = np.empty(0, bool), False
        for axis, values in arrays.items():
            n_known = len(self._known[axis])
            grows = len(values) > n_known and not is_old
            self._has_begun[axis] |= is_anew or (grows and (not n_known or self._is_joined))
            self._known[axis] = values

    def resume(self, numbers: NDArray[np.int64], captures: Values) -> None:
        """Takes captures that a process before this one has recorded."""
        n_known = max(len(self._known[0]), int(numbers.max()) + 1)
        self._known = [_longer(known, n_known) for known in self._known]
        for known, values in zip(self._known, captures.T, strict=True):
            known[numbers] = values
        self._has_begun = [True] * len(self._known)
        self._is_given = np.array(np.isfinite(self._known).all(axis=0))

    def new(self) -> Captures:
        """Returns captures that were not given before, some thousands at most."""
        n_known = min(map(len, self._known))
        missing = max(n_known - len(self._is_given), 0)
        self._is_given = np.pad(self._is_given, (0, missing))
        known = np.array([one[:n_known] for one in self._known])
        is_new = np.isfinite(known).all(axis=0) & ~self._is_given[:n_known]
        numbers = np.flatnonzero(is_new)[:CAPTURES_PER_CALL]
        self._is_given[numbers] = True
        return numbers, known.T[numbers]

    def _begins_anew(self, axis: int, values: Values) -> bool:
        known = self._known[axis]
        return len(values) < len(known) or _differ(known, values[: len(known)])


class Rows:
    """Rows that say of which frame they are.

    A frame of which something else is told than before is one of another scan, and so is the first one when
    it comes again after others.
    """

    def __init__(self, n_axes: int) -> None:
        self.scan = -1  # as of `Arrays`
        self._known = np.full((n_axes, 0), np.nan)
        self._n_scans, self._least, self._top = 0, MAX_FRAMES, -1
        self._waiting: list[Captures] = []

    def take(self, numbers: NDArray[np.int64], rows: Values, *, is_old: bool) -> None:
        """Takes rows, (row, axis), of the frames `numbers`; `is_old` as for `Arrays`."""
        if not len(numbers):
            return
        is_known = numbers < self._known.shape[1]
        comes_again = not is_old and self._least in numbers and numbers.max() < self._top
        if comes_again or _differ(self._known[:, numbers[is_known]], rows[is_known].T):
            self._n_scans, is_old = self._n_scans + 1, False
            self._known, self._waiting = self._known[:, :0], []
            self._least, self._top = MAX_FRAMES, -1
        self._note(numbers, rows)
        order = np.argsort(numbers, kind="stable")
        self._waiting.append((numbers[order], rows[order]))
        if not is_old:
            self.scan = self._n_scans

    def resume(self, numbers: NDArray[np.int64], captures: Values) -> None:
        """Takes rows that a process before this one has recorded."""
        self._note(numbers, captures)

    def new(self) -> Captures:
        """Returns rows that were not given before."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return np.empty(0, np.int64), np.empty((0, len(self._known)))
        numbers, rows = zip(*waiting, strict=True)
        return np.concatenate(numbers), np.concatenate(rows)

    def _note(self, numbers: NDArray[np.int64], rows: Values) -> None:
        self._least, self._top = min(self._least, int(numbers.min())), max(self._top, int(numbers.max()))
        self._known = np.array([_longer(known, self._top + 1) for known in self._known])
        self._known[:, numbers] = rows.T


def _longer(values: Values, n: int) -> Values:
    return np.append(values, np.full(max(n - len(values), 0), np.nan))


def _differ(before: Values, now: Values) -> bool:
    """Whether a number that was known is another one now."""
    return bool((np.isfinite(before) & np.isfinite(now) & (before != now)).any())


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
        self._told = (Rows if config.numbers else Arrays)(len(self._run.names))
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
            data, n_captures = document["data"], self._run.captures_per_frame
            frames = np.array(document["seq_num"]) - 1
            captures = np.array([np.array(data[axis], float).reshape(-1) for axis in self._run.axes])
            numbers = (frames[:, np.newaxis] * n_captures + np.arange(n_captures)).reshape(-1)
            self._told.resume(numbers, captures.T)
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
                    np.array([column[:n_rows] for column in columns]).T,
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
        numbers, captures = self._told.new()
        if len(numbers) and not self._run.is_open:
            units = [self._units.get(axis) for axis in range(2)]
            sources = [one.name for one in self._updates] * (3 - len(self._updates))
            documents += self._run.start(units=units, sources=sources)
            self._shown = scan
        self._run.add_rows(numbers, captures)
        return documents + self._run.pages()


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
