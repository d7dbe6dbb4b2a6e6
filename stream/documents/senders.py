"""Positions as those programs send them that the sources understand: for replays and tests.

Each takes the documents of bluesky runs, one by one, as bluesky's publisher does
(`stream.documents.publisher`): a start, a descriptor, event pages, a stop.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from operators.geometry import METRES_PER_UNIT
from stream.documents.sources.arrivals import SERIES
from stream.files.cxi import ENTRY, TRANSLATION
from stream.plain_json import plain_json
from stream.wire.pva import PvServer
from stream.wire.sockets import Endpoint, Socket

Page = Mapping[str, Any]


class Piece(NamedTuple):
    """Captures of an event page without a gap."""

    first: int  # capture, counted from the start of the run
    values: NDArray[np.float64]  # (capture, axis)


def pieces_of(page: Page, fields: Sequence[str]) -> Iterator[Piece]:
    """Yields the captures of an event page: of each event one, or as many as its values have."""
    frames = np.asarray(page["seq_num"]) - 1
    captures = np.stack([np.asarray(page["data"][field], float) for field in fields], axis=-1)
    captures = captures.reshape(len(frames), -1, len(fields))
    for part in np.split(np.arange(len(frames)), np.flatnonzero(np.diff(frames) != 1) + 1):
        if part.size:
            yield Piece(int(frames[part[0]]) * captures.shape[1], captures[part].reshape(-1, len(fields)))


def relay_messages(
    name: str, document: Page, names: Sequence[str], fields: Sequence[str], sent: list[int]
) -> Iterator[bytes]:
    """Yields what the relay of a PandA publishes for a document; `sent` counts its messages with data."""
    if name == "start":
        sent[:] = [0]
        yield _json(msg_type="start", arm_time=None, start_time=None, hw_time_offset_ns=None)
    elif name == "event_page":
        for first, values in pieces_of(document, fields):
            datasets = {
                dataset: {
                    "dtype": "float64",
                    "size": len(values),
                    "starting_sample_number": first,
                    "data": column.tolist(),
                }
                for dataset, column in zip(names, values.T, strict=True)
            }
            yield _json(msg_type="data", frame_number=sent[0], datasets=datasets)
            sent[0] += 1
    elif name == "stop":
        yield _json(msg_type="stop", emitted_frames=sent[0])


class RelaySender:
    """Publishes as the relay of a PandA does.

    Parameters
    ----------
    endpoint : Endpoint
        Of the relay, which owns its address.
    names, fields : sequence of str
        Of y and x, of the datasets and in the documents.
    """

    def __init__(self, endpoint: Endpoint, names: Sequence[str], fields: Sequence[str]) -> None:
        self._socket, self._names, self._fields = Socket("XPUB", endpoint), names, fields
        self._sent = [0]
        self.address, self._is_heard = self._socket.address, False

    def is_heard(self, timeout_s: float = 0.0) -> bool:
        """Says whether somebody subscribes, after waiting for it at most `timeout_s`."""
        self._is_heard = self._is_heard or self._socket.receive(timeout_s) is not None
        return self._is_heard

    def __call__(self, name: str, document: Page) -> None:
        """Sends what one document becomes."""
        for message in relay_messages(name, document, self._names, self._fields, self._sent):
            self._socket.send([message])

    def close(self) -> None:
        """Closes after the last messages have left."""
        self._socket.flush_and_close(5.0)


class PvaArraysSender:
    """Two PVs, of y and x, whose arrays grow; emptied when a run begins. A frame without a position is NaN.

    Parameters
    ----------
    server : PvServer
        Closed at the end.
    names, fields : sequence of str
        Of y and x, of the PVs and in the documents.
    """

    def __init__(self, server: PvServer, names: Sequence[str], fields: Sequence[str]) -> None:
        self._server, self._names, self._fields = server, names, fields
        self._known = np.full((0, len(fields)), np.nan)
        self._post()

    def is_heard(self, timeout_s: float = 0.0) -> bool:
        """Says whether somebody reads both, after waiting for it at most `timeout_s`."""
        ends_at = time.monotonic() + timeout_s
        while not (is_heard := all(map(self._server.is_read, self._names))) and time.monotonic() < ends_at:
            time.sleep(0.02)
        return is_heard

    def __call__(self, name: str, document: Page) -> None:
        """Renews the PVs by what one document brings."""
        if name == "start":
            self._known = self._known[:0]
        elif name == "event_page":
            for first, values in pieces_of(document, self._fields):
                missing = max(first + len(values) - len(self._known), 0)
                self._known = np.pad(self._known, ((0, missing), (0, 0)), constant_values=np.nan)
                self._known[first : first + len(values)] = values
        self._post()

    def close(self) -> None:
        """Takes the PVs away, after a moment in which their readers get the last values."""
        time.sleep(0.2)
        self._server.close()

    def _post(self) -> None:
        for name, values in zip(self._names, self._known.T, strict=True):
            self._server.post_array(name, values)


class TextSender:
    """Writes a table as text, a row per frame; one without a position is nan.

    Parameters
    ----------
    path : Path
        `{series}` in it becomes what the start document calls the series.
    names, fields : sequence of str
        Of y and x, in the first line and in the documents.
    """

    def __init__(self, path: Path, names: Sequence[str], fields: Sequence[str]) -> None:
        self._path, self._names, self._fields, self._n_rows = path, names, fields, 0
        self._there = path

    def is_heard(self, timeout_s: float = 0.0) -> bool:
        """Whether anybody reads the file is nothing that it knows."""
        return True

    def __call__(self, name: str, document: Page) -> None:
        """Appends what one document brings."""
        if name == "start":
            self._there, self._n_rows = named(self._path, document), 0
            self._append(f"frame,{','.join(self._names)}\n", "w")
        elif name == "event_page":
            for first, values in pieces_of(document, self._fields):
                gap = np.full((first - self._n_rows, values.shape[1]), np.nan)
                rows = np.concatenate([gap, values])
                lines = [
                    f"{self._n_rows + k},{','.join(map(repr, row))}\n" for k, row in enumerate(rows.tolist())
                ]
                self._append("".join(lines), "a")
                self._n_rows += len(rows)

    def close(self) -> None:
        """Has nothing to close."""

    def _append(self, text: str, mode: str) -> None:
        with self._there.open(mode) as file:
            file.write(text)


class Hdf5Sender:
    """Writes datasets y and x, or a CXI file's translation, and shares them as they grow (SWMR).

    Parameters
    ----------
    path : Path
        As of `TextSender`.
    names, fields : sequence of str
        Of y and x, of the datasets and in the documents.
    unit : {"m", "mm", "um", "nm"}
        Of the documents; CXI has metres.
    is_cxi : bool
        Whether it is a CXI file.
    """

    def __init__(
        self, path: Path, names: Sequence[str], fields: Sequence[str], unit: str, *, is_cxi: bool = False
    ) -> None:
        self._path, self._names, self._fields = path, names, fields
        self._is_cxi, self._metres = is_cxi, METRES_PER_UNIT[unit]
        self._file: h5py.File | None = None
        self._datasets: list[h5py.Dataset] = []

    def is_heard(self, timeout_s: float = 0.0) -> bool:
        """Whether anybody reads the file is nothing that it knows."""
        return True

    def __call__(self, name: str, document: Page) -> None:
        """Appends what one document brings."""
        if name == "start":
            self._begin(named(self._path, document))
        elif name == "event_page":
            for first, values in pieces_of(document, self._fields):
                self._write(first, values)
        elif name == "stop":
            self.close()

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def _begin(self, path: Path) -> None:
        self.close()
        file = h5py.File(path, "w", libver="latest")
        names, shape = (self._names, ()) if not self._is_cxi else ((f"{ENTRY}/{TRANSLATION[0]}",), (3,))
        self._datasets = [
            file.create_dataset(
                one, (0, *shape), "f8", maxshape=(None, *shape), chunks=(1024, *shape), fillvalue=np.nan
            )
            for one in names
        ]
        file.swmr_mode = True
        self._file = file

    def _write(self, first: int, values: NDArray[np.float64]) -> None:
        y, x = values.T
        columns = [y, x]
        if self._is_cxi:  # the motion of the sample, (x, y, z)
            columns = [-self._metres * np.stack([x, y, np.zeros(len(x))], axis=-1)]
        for dataset, column in zip(self._datasets, columns, strict=True):
            dataset.resize(max(len(dataset), first + len(column)), axis=0)
            dataset[first : first + len(column)] = column
            dataset.flush()


def named(path: Path, start: Page) -> Path:
    """Returns a path with what a start document calls the series."""
    return Path(str(path).replace(SERIES, str(start.get("detector_series_id", ""))))


def _json(**message: Any) -> bytes:
    return plain_json(message)
