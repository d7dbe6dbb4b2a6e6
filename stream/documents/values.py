"""Values that documents hold, checked: they may hold anything."""

from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from stream.documents.codec import Document, DocumentError
from stream.wire.foreign import in_short

MAX_SEQ_NUM = 2**40


def mapping_of(document: Document, key: str) -> Document:
    """Returns a mapping of a document.

    Raises
    ------
    DocumentError
        If it has none there.
    """
    value = document.get(key)
    if not isinstance(value, dict):
        raise DocumentError(f"wanted a mapping {key!r} in the document, got {type(value).__name__}")
    return value


def is_whole(value: Any, least: int) -> TypeGuard[int]:
    """Whether a value is a whole number from `least`, and none beyond all measure."""
    is_number = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return is_number and least <= int(value) <= MAX_SEQ_NUM


def range_of(document: Document, key: str, least: int) -> tuple[int, int]:
    """Returns start and stop of a range, whole numbers from `least`.

    Raises
    ------
    DocumentError
        If the document has no such range.
    """
    value = mapping_of(document, key)
    start, stop = value.get("start"), value.get("stop")
    if not (is_whole(start, least) and is_whole(stop, least) and int(start) <= int(stop)):
        raise DocumentError(f"{key} {in_short(value)}: wanted whole numbers from {least}, start <= stop")
    return int(start), int(stop)


def events_of(document: Document, *, is_page: bool) -> NDArray[np.int64]:
    """Returns the seq_num of each event of a document, (event,) int64, from 1.

    Raises
    ------
    DocumentError
        If they are no such numbers.
    """
    seq_nums = document.get("seq_num") if not is_page else document.get("seq_nums", document.get("seq_num"))
    events = np.asarray(seq_nums if is_page else [seq_nums], object)
    if events.ndim != 1 or not all(is_whole(value, 1) for value in events):
        raise DocumentError(f"event with seq_num {in_short(seq_nums)}: wanted whole numbers from 1")
    return events.astype(np.int64)


def values_of(data: Document, field: str, n_events: int, per_event: int) -> NDArray[np.float64]:
    """Returns a field's values in events of `per_event` frames, (event, frame) float64.

    Raises
    ------
    DocumentError
        If the field holds neither a number per event nor one per frame.
    """
    try:
        values = np.asarray(data[field], np.float64)
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise DocumentError(f"event without numbers in field {field!r}: {error}") from error
    if values.size == n_events:
        return np.repeat(values.reshape(n_events, 1), per_event, axis=1)
    if values.size == n_events * per_event:
        return values.reshape(n_events, per_event)
    raise DocumentError(
        f"field {field!r} holds {values.size} values for {n_events} events of {per_event} frames each: "
        "set positions.frames_per_event"
    )
