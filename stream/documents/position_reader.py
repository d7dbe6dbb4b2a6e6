"""Positions out of the documents of one bluesky run: which field, which unit, which frame number.

Documents in, frame numbers and positions out; of positions that lie in files beside the documents
`stream.documents.flown` knows more. Fields come from the descriptors' hints or are named, never guessed: an
axis taken for another is a wrong picture that looks right.
"""

import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt, model_validator

from operators.geometry import METRES_PER_UNIT, probe_positions
from operators.section import Section
from stream.documents.codec import Document, DocumentError
from stream.documents.flown import MAX_CAPTURES, FlownPositions
from stream.documents.stream_files import StreamFiles
from stream.documents.values import events_of, is_whole, mapping_of, values_of
from stream.wire.foreign import in_short

_SPELLINGS = {
    "m": ("metre", "meter", "metres", "meters"),
    "mm": ("millimetre", "millimeter", "millimetres", "millimeters"),
    "um": ("µm", "μm", "micron", "microns", "micrometre", "micrometer", "micrometres", "micrometers"),
    "nm": ("nanometre", "nanometer", "nanometres", "nanometers"),
}
_UNIT_OF = {spelling: unit for unit, others in _SPELLINGS.items() for spelling in (unit, *others)}


class Rows(NamedTuple):
    """What documents say of some frames, (y, x) as recorded."""

    numbers: NDArray[np.int64]  # (frame,)
    raw: NDArray[np.float64]  # (frame, 2), the mean of its captures
    is_settling: NDArray[np.bool_]  # (frame,), the probe was not at rest yet
    spread: NDArray[np.float64] | None = None  # (frame, 2), their standard deviation, where there are several
    travel: NDArray[np.float64] | None = None  # (frame, 2), from the first of them to the last
    monitor: NDArray[np.float64] | None = None  # (frame,), the mean of its captures


class Placed(NamedTuple):
    """The same of the probe on the sample, metres, (y, x)."""

    numbers: NDArray[np.int64]  # (frame,)
    positions_m: NDArray[np.float64]  # (frame, 2)
    settling: NDArray[np.int64] = np.zeros(0, np.int64)  # frames that were taken before the probe was at rest
    n_no_numbers: int = 0  # positions that are none
    spread_m: NDArray[np.float64] | None = None  # (frame, 2)
    travel_m: NDArray[np.float64] | None = None  # (frame, 2)
    flux: NDArray[np.float64] | None = None  # (frame,), reading of the monitor over the reference


class PositionFields(Section):
    """What the recorded positions mean."""

    y: str = ""
    """motor, field, or column of a table, with the vertical position; empty takes the one called y"""
    x: str = ""
    """motor, field, or column of a table, with the horizontal position; empty takes the one called x"""
    unit: Literal["m", "mm", "um", "nm"] | None = None
    """unit of the positions; a CXI file carries its own"""
    signs: tuple[Literal[-1, 1], Literal[-1, 1]] = (1, 1)
    """sign of y and x; -1 where a motor moves the sample, not the probe"""
    frames_per_event: PositiveInt = 1
    """frames that share one event document"""
    captures_per_frame: PositiveInt | None = None
    """captures of a fly scan that belong to one frame, whose mean is its position; null takes it from the
    documents: values of an event over `frames_per_event`"""
    stream: str = ""
    """name of the document stream; empty takes the first with both fields"""
    settled: str = ""
    """field of the events that is 0 or false while the stage still moves: such frames are in no image"""
    monitor: str = ""
    """field of the events that is proportional to the flux of the beam during the frame (I0): patterns are
    brought to the same flux"""
    monitor_reference: PositiveFloat | None = None
    """reading of the monitor at which a pattern counts as it is, such as the usual one; with `monitor`"""

    @model_validator(mode="after")
    def _are_complete(self) -> Self:
        if bool(self.monitor) != (self.monitor_reference is not None):
            raise ValueError("`monitor` and `monitor_reference` belong together: name both or neither")
        if bool(self.y) != bool(self.x) or (self.y and self.y == self.x):
            raise ValueError(f"name two different fields or none, got y {self.y!r}, x {self.x!r}")
        return self


class PositionReader:
    """Reads the documents of one run in order.

    `read` and `read_files` return positions as recorded; `to_metres` turns them into positions of the probe
    on the sample.

    Parameters
    ----------
    fields : PositionFields
    files : StreamFiles, optional
        Where files that documents name may lie; nowhere by default.

    Attributes
    ----------
    doubts : list of str
        What somebody should hear of, since the caller last emptied it.

    Raises
    ------
    ValueError
        If the unit is not said: documents often do not, and there is no default.
    """

    def __init__(self, fields: PositionFields, files: StreamFiles | None = None) -> None:
        if fields.unit is None:
            raise ValueError("positions from documents: wanted at least positions.unit (m, mm, um or nm)")
        self.fields, self._unit = fields, fields.unit
        self._stream = fields.stream
        self._pairs: dict[str, tuple[str, str]] = {}  # uid of a descriptor: its fields for y and x
        self._n_captures: dict[str, int] = {}  # by the same uid: how many of a frame an event holds
        self._without: list[str] = []
        self._is_warned = False
        self.doubts: list[str] = []
        self.flown = FlownPositions(
            files or StreamFiles(),
            n_fields=2 + len(self._beside),
            frames_per_event=fields.frames_per_event,
            captures_per_frame=fields.captures_per_frame,
        )

    @property
    def _beside(self) -> tuple[str, ...]:
        """The fields that are read beside y and x, in this order."""
        return tuple(filter(None, (self.fields.settled, self.fields.monitor)))

    @property
    def has_positions(self) -> bool:
        """Whether a descriptor with the fields has come."""
        return bool(self._pairs)

    @property
    def fields_read(self) -> tuple[str, str] | None:
        """The fields that y and x come from, None before a descriptor has told."""
        return next(iter(self._pairs.values()), None)

    def read(self, name: str, document: Document) -> Rows:
        """Returns frame numbers and raw positions; empty where there are none.

        Parameters
        ----------
        name : str
            The document's name; `event` and `event_page` hold positions, frame number = seq_num - 1 (or
            (seq_num - 1) * frames_per_event + j). Of `stream_datum` come none: `read_files`.
        document : dict
            As decoded; it may hold anything.

        Raises
        ------
        DocumentError
            If the fields do not exist or are ambiguous, the unit contradicts the configured one, or an event
            does not hold what its descriptor promised.
        """
        if name == "descriptor":
            self._describe(document)
        elif name in ("event", "event_page"):
            uid, is_page = str(document.get("descriptor")), name == "event_page"
            if uid in self.flown:
                self.flown.note_event(document, is_page=is_page)
            elif uid in self._pairs:
                return self._rows(document, self._pairs[uid], is_page=is_page)
            else:
                self._warn_once()
        elif name == "stream_resource":
            self.flown.note_resource(document)
        elif name == "stream_datum" and str(document.get("descriptor")) in self.flown:
            self.flown.note_datum(document)
        elif name == "stop" and not self._pairs:
            raise DocumentError(f"the run ended without positions: {self._missing()}")
        return _NONE

    def read_files(self) -> Rows:
        """Returns positions that lie in files and can be read by now, some thousands at most.

        Raises
        ------
        DocumentError
            If a file holds something else than documents say, or a part of it lies elsewhere.
        """
        frames = self.flown.read()
        return _NONE if frames is None else self._rows_of(frames.numbers, frames.captures)

    def join(self, event: Document) -> None:
        """Takes the fields from an event of a run whose descriptor was missed; nobody tells their unit.

        Raises
        ------
        DocumentError
            If the event has no such fields, or several.
        """
        data = mapping_of(event, "data")
        pair = self._pick(data, {"its event": [str(field) for field in data]})
        if pair is None:
            self._without.append(f"an event of a run that had begun before has {', '.join(map(str, data))}")
            raise DocumentError(self._missing())
        self._pairs[str(event.get("descriptor"))] = pair
        self.doubts.append(
            f"a run had begun before its documents were heard: fields {pair[0]!r} and {pair[1]!r} are taken "
            f"for y and x in {self._unit}"
        )

    def to_metres(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns probe positions on the sample, (frame, 2) float64, metres, (y, x)."""
        return probe_positions(raw, unit=self._unit, signs=self.fields.signs)

    def placed(self, rows: Rows) -> Placed:
        """Returns where the probe was on the sample: of frames that have numbers, taken at rest."""
        told = [values for values in (rows.raw, rows.spread, rows.travel) if values is not None]
        is_number = np.isfinite(np.concatenate(told, axis=1)).all(axis=1)
        is_used = is_number & ~rows.is_settling
        return Placed(
            rows.numbers[is_used],
            self.to_metres(rows.raw[is_used]),
            rows.numbers[rows.is_settling],
            int(np.count_nonzero(~is_number & ~rows.is_settling)),
            None if rows.spread is None else np.abs(self.to_metres(rows.spread[is_used])),
            None if rows.travel is None else self.to_metres(rows.travel[is_used]),
            None if rows.monitor is None else rows.monitor[is_used] / (self.fields.monitor_reference or 1),
        )

    def _describe(self, descriptor: Document) -> None:
        stream = str(descriptor.get("name"))
        if self._stream not in ("", stream):
            return
        data_keys, hints = mapping_of(descriptor, "data_keys"), _hinted_fields(descriptor)
        pair = self._pick(data_keys, hints)
        if pair is None:
            self._without.append(f"stream {stream!r} hints {_listed(hints)}")
            if self._stream:
                raise DocumentError(self._missing())
            return
        for field in pair:
            self._check_unit(field, data_keys[field])
        self.flown.describe(descriptor, (*pair, *self._beside))
        self._stream = stream
        self._pairs[str(descriptor.get("uid"))] = pair
        self._n_captures[str(descriptor.get("uid"))] = self._captures_in(data_keys[pair[0]])

    def _pick(self, data_keys: Document, hints: dict[str, list[str]]) -> tuple[str, str] | None:
        if not self.fields.y:
            hinted = {field for fields in hints.values() for field in fields if field in data_keys}
            ys, xs = _named(hinted, "y"), _named(hinted, "x")
            return (ys[0], xs[0]) if len(ys) == len(xs) == 1 else None
        y, x = (_field_of(name, data_keys, hints) for name in (self.fields.y, self.fields.x))
        return None if y is None or x is None else (y, x)

    def _check_unit(self, field: str, data_key: Any) -> None:
        units = data_key.get("units") if isinstance(data_key, dict) else None
        if units is None or (isinstance(units, str) and not units):
            return
        if not isinstance(units, str) or _UNIT_OF.get(units.strip().lower()) != self._unit:
            raise DocumentError(
                f"field {field!r} is in {in_short(units)} says its descriptor, the configuration says "
                f"{self._unit!r}: correct positions.unit (one of {', '.join(METRES_PER_UNIT)})"
            )

    def _rows(self, document: Document, pair: tuple[str, str], *, is_page: bool) -> Rows:
        data = mapping_of(document, "data")
        events = events_of(document, is_page=is_page)
        per_event = self.fields.frames_per_event
        n_captures = self._n_captures.get(str(document.get("descriptor")), 1)
        numbers = ((events - 1)[:, None] * per_event + np.arange(per_event)).reshape(-1)
        fields = (*pair, *self._beside)
        values = [values_of(data, field, len(events), per_event * n_captures) for field in fields]
        return self._rows_of(numbers, [one.reshape(-1, n_captures) for one in values])

    def _rows_of(self, numbers: NDArray[np.int64], captures: Sequence[NDArray[np.float64]]) -> Rows:
        """Return what captures (frame, capture) of y, x and the fields beside them say of frames."""
        y, x, *beside = captures
        is_settling = (beside[0] == 0).any(axis=1) if self.fields.settled else np.zeros(len(y), bool)
        both = np.stack([y, x], axis=-1)  # (frame, capture, axis)
        with np.errstate(over="ignore", invalid="ignore"):  # what is no number then is left out
            monitor = beside[-1].mean(axis=1) if self.fields.monitor else None
            if y.shape[1] == 1:
                return Rows(numbers, both[:, 0], is_settling, monitor=monitor)
            spread, travel = both.std(axis=1), both[:, -1] - both[:, 0]
            return Rows(numbers, both.mean(axis=1), is_settling, spread, travel, monitor)

    def _captures_in(self, data_key: Any) -> int:
        """Return how many captures of each frame an event holds, as its descriptor says."""
        shape = data_key.get("shape") if isinstance(data_key, dict) else None
        n_values = shape[0] if isinstance(shape, list | tuple) and len(shape) == 1 else 1
        if not is_whole(n_values, 1) or n_values > MAX_CAPTURES or n_values % self.fields.frames_per_event:
            return 1
        return int(n_values) // self.fields.frames_per_event

    def _missing(self) -> str:
        wanted = (
            f"{self.fields.y!r} and {self.fields.x!r}"
            if self.fields.y
            else "one hinted field for y, one for x"
        )
        where = f" in stream {self.fields.stream!r}" if self.fields.stream else ""
        found = "; ".join(self._without) or "no such descriptor came"
        return f"wanted {wanted}{where}; {found}. Name motors or fields in positions.y and positions.x"

    def _warn_once(self) -> None:
        # A baseline without the fields is nothing to worry about, a primary stream without them is.
        if not self._pairs and not self._is_warned and any("'primary'" in text for text in self._without):
            self._is_warned = True
            self.doubts.append(f"events without positions: {self._missing()}")


_NONE = Rows(np.zeros(0, np.int64), np.zeros((0, 2)), np.zeros(0, bool))


def _hinted_fields(descriptor: Document) -> dict[str, list[str]]:
    if descriptor.get("hints") is None:
        return {}
    hinted = {}
    for device, hint in mapping_of(descriptor, "hints").items():
        fields = hint.get("fields", ()) if isinstance(hint, dict) else None
        if not isinstance(fields, list | tuple) or not all(isinstance(field, str) for field in fields):
            raise DocumentError(
                f"hints of {in_short(device)}: wanted {{'fields': [names]}}, got {in_short(hint)}"
            )
        hinted[str(device)] = list(fields)
    return hinted


def _field_of(name: str, data_keys: Document, hints: dict[str, list[str]]) -> str | None:
    hinted = [field for field in hints.get(name, ()) if field in data_keys]
    if len(hinted) > 1 and name not in hinted:
        raise DocumentError(f"motor {name!r} hints {', '.join(hinted)}: name one of these fields")
    if len(hinted) == 1:
        return hinted[0]
    return name if name in data_keys else None


def _named(fields: set[str], axis: str) -> list[str]:
    return [field for field in fields if re.search(rf"(^|[-_.:]){axis}$", field, re.IGNORECASE)]


def _listed(hints: dict[str, list[str]]) -> str:
    listed = [f"{device} ({', '.join(fields)})" for device, fields in sorted(hints.items())]
    return ", ".join(listed) or "no fields"
