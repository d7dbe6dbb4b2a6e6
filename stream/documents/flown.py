"""Positions of a fly scan: bluesky's `stream_resource` and `stream_datum`, and the HDF5 files that they name.

As ophyd-async publishes them, a PandA's or a detector's: a resource is a dataset of one field, a datum says
which of its rows are written, and to which events of a stream they belong.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from stream.documents.captures import FlownAxes, Frames, Piece, Values
from stream.documents.codec import Document, DocumentError
from stream.documents.stream_files import StreamFiles
from stream.documents.values import events_of, is_whole, mapping_of, range_of, values_of
from stream.wire.foreign import in_short

MAX_CAPTURES = 2**16  # of one event
MAX_RESOURCES = 4096  # of one run; the first are forgotten


class FlownPositions:
    """Takes the documents of one run, and gives the frames of which all captures can be read.

    Parameters
    ----------
    files : StreamFiles
    n_fields : int
        Of a frame's position.
    frames_per_event : int
    captures_per_frame : int or None
        None takes it from the descriptor: values of an event over frames of an event.
    """

    def __init__(
        self, files: StreamFiles, *, n_fields: int, frames_per_event: int, captures_per_frame: int | None
    ) -> None:
        self._files, self._per_event, self._per_frame = files, frames_per_event, captures_per_frame
        # by uid of a descriptor: fields, and how many values of an event lie in a file, 0 if the event has it
        self._fields: dict[str, dict[str, int]] = {}
        self._resources: dict[str, Document] = {}
        self._axes = FlownAxes(n_fields)

    def __contains__(self, descriptor: str) -> bool:
        """Whether fields of the stream with this descriptor lie in files."""
        return descriptor in self._fields

    @property
    def is_waiting(self) -> bool:
        """Whether another look may find frames, though no other document comes."""
        return self._axes.is_waiting

    @property
    def waits_for(self) -> str:
        """Why the last look found less than documents promised; "" where nothing is waited for."""
        return self._axes.waits_for

    def read(self) -> Frames | None:
        """Returns frames that can be read by now, None where there are none; `DocumentError` as there."""
        return self._axes.read()

    def describe(self, descriptor: Document, fields: Sequence[str]) -> None:
        """Takes note of the stream that has these fields, if one of them lies in files.

        Raises
        ------
        DocumentError
            If one that does is not one number per capture.
        """
        data_keys = mapping_of(descriptor, "data_keys")
        n_values = {field: _values_of_event(field, data_keys.get(field)) for field in fields}
        if any(n_values.values()):
            self._fields[str(descriptor.get("uid"))] = n_values

    def note_event(self, document: Document, *, is_page: bool) -> None:
        """Takes those fields that an event or a page holds, while others of its stream lie in files."""
        events = events_of(document, is_page=is_page)
        together = np.split(np.arange(len(events)), np.flatnonzero(np.diff(events) != 1) + 1)
        for axis, (field, n_values) in enumerate(self._fields[str(document.get("descriptor"))].items()):
            if n_values:
                continue
            rows = values_of(mapping_of(document, "data"), field, len(events), self._per_event)
            for part in together:
                if part.size:
                    values = rows[part].reshape(-1)
                    first = (int(events[part[0]]) - 1) * self._per_event
                    self._axes.add(axis, Piece(first, first + len(values), 0, 1, 1, Values(values)))

    def note_resource(self, document: Document) -> None:
        """Takes note of a dataset; where it lies is asked when a datum is for it."""
        self._resources[str(document.get("uid"))] = document
        if len(self._resources) > MAX_RESOURCES:
            del self._resources[next(iter(self._resources))]

    def note_datum(self, document: Document) -> None:
        """Takes note of rows that are written.

        Raises
        ------
        DocumentError
            If the datum makes no sense, its resource is unknown, or that may not be read.
        """
        uid = document.get("stream_resource")
        resource = self._resources.get(str(uid))
        if resource is None:
            raise DocumentError(
                f"stream_datum of unknown stream_resource {in_short(uid)}: was that document lost?"
            )
        fields, field = self._fields[str(document.get("descriptor"))], resource.get("data_key")
        if not isinstance(field, str) or not fields.get(field):
            return  # of the detector's frames, for one
        index, end = range_of(document, "indices", 0)
        first, stop = index + 1, end + 1
        # Composed without a RunEngine they are an empty range.
        if document.get("seq_nums") is not None and any(range_of(document, "seq_nums", 0)):
            first, stop = range_of(document, "seq_nums", 1)
        if stop - first != end - index:
            raise DocumentError(f"stream_datum of {end - index} indices and {stop - first} seq_nums")
        dataset, (per_frame, per_row) = self._files.dataset(resource), self._shares(field, fields[field])
        if first < stop:
            start, after, at = (n * fields[field] * per_row for n in (first - 1, stop - 1, index))
            axis = list(fields).index(field)
            self._axes.add(axis, Piece(start, after, at, per_frame, per_row, dataset))

    def _shares(self, field: str, n_values: int) -> tuple[int, int]:
        """Return captures per frame, and how often each row counts, where frames share one."""
        if self._per_frame is not None:
            return self._per_frame, 1
        per_frame, per_row = max(n_values // self._per_event, 1), max(self._per_event // n_values, 1)
        if n_values * per_row == self._per_event * per_frame:
            return per_frame, per_row
        raise DocumentError(
            f"field {field!r} holds {n_values} values for an event of {self._per_event} frames: set "
            "positions.frames_per_event, or positions.captures_per_frame"
        )


def _values_of_event(field: str, data_key: Any) -> int:
    """Return how many values of a field in a file belong to an event, 0 where the event holds them."""
    external = data_key.get("external") if isinstance(data_key, dict) else None
    if not (isinstance(external, str) and external == "STREAM:"):
        return 0
    shape = data_key.get("shape")
    if isinstance(shape, list | tuple) and len(shape) <= 2 and all(is_whole(n, 1) for n in shape):
        # The first number is how many rows of the file an event has.
        n_values, width = (*map(int, shape), 1, 1)[:2]
        if width == 1 and n_values <= MAX_CAPTURES:
            return n_values
    raise DocumentError(
        f"field {field!r} has shape {in_short(shape)}: wanted one number per capture, [captures of an event]"
    )
