"""A PandA's captures as the relay of NSLS-II publishes them: JSON over ZeroMQ.

As PandABlocks-ioc does where PANDABLOCKS_IOC_PUB_ZMQ_ADDRESS is set, and as holoptycho reads it: messages
`start`, `data` and `stop`, of which one with data holds a piece of each captured field:
`{"msg_type": "data", "frame_number": 3, "datasets": {"/FMC_IN.VAL1.Value": {"dtype": "float64", "size": 41,
"starting_sample_number": 123, "data": [...]}}}`. Its `frame_number` counts messages, not frames.
"""

import json
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.documents.codec import Document, DocumentError
from stream.documents.config import PositionsConfig
from stream.documents.sources.protocol import Said, WireSource
from stream.documents.sources.run import RunDocuments
from stream.documents.values import is_whole
from stream.wire.codec import Buffer
from stream.wire.foreign import in_short

log = logging.getLogger(__name__)


class PandaRelay(WireSource):
    """Makes a run of what comes from a start to its stop; where each capture belongs says its number.

    Parameters
    ----------
    config : PositionsConfig
        `y`, `x` and `settled` are the names of datasets.
    """

    pattern = "SUB"

    def __init__(self, config: PositionsConfig) -> None:
        self._run = RunDocuments("panda-json", config)
        self._came = set[int]()  # numbers of the run's messages with data
        self._first: int | None = None  # the number from which on this process has listened
        self._is_heard = False  # whether anything has come in this process

    def decode(self, parts: Sequence[Buffer]) -> Sequence[Said]:
        """Returns what one message brings: the start of a run, whole frames, or its end."""
        message = _message(bytes(parts[-1]) if parts else b"")
        is_first, self._is_heard = not self._is_heard, True
        kind = message.get("msg_type")
        if kind == "start":
            self._came, self._first = set(), 0
            return self._run.start(sources=self._run.names)
        if kind == "data":
            return self._data(message, may_join=is_first)
        if kind == "stop":
            return self._stop(message)
        raise DocumentError(
            f"message of the PandA's relay of type {in_short(kind)}: wanted start, data, stop"
        )

    def resume(self, name: str, document: Document) -> None:
        """Goes on with the run that a process before this one has left open."""
        self._run.resume(name, document)

    def _data(self, message: Document, *, may_join: bool) -> list[Said]:
        captures = _captures(message, self._run.names)
        said: list[Said] = []
        if not self._run.is_open:
            # What straggles in after the stop must not become the next scan's.
            if not may_join and message.get("frame_number") != 0:
                raise DocumentError("data of the PandA's relay between two runs: was their start lost?")
            self._came, self._first = set(), None
            said = self._run.start(sources=self._run.names)
        if is_whole(number := message.get("frame_number"), 0):
            self._first = number if self._first is None else self._first
            self._came.add(number)
        for axis, (first, values) in enumerate(captures):
            self._run.add(axis, first, values)
        return [*said, *self._run.pages()]

    def _stop(self, message: Document) -> list[Said]:
        sent = message.get("emitted_frames")
        if self._run.is_open and self._first is not None and is_whole(sent, 0):
            n_lost = sent - self._first - sum(self._first <= number < sent for number in self._came)
            if n_lost > 0:
                log.warning("%d of %d messages of the PandA's relay were lost", n_lost, sent)
        return self._run.stop()


def _message(content: bytes) -> Document:
    try:
        message = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"message of the PandA's relay that is no JSON: {in_short(content)}") from error
    if not isinstance(message, dict):
        raise DocumentError(f"message of the PandA's relay: wanted a mapping, got {in_short(message)}")
    return message


def _captures(message: Document, axes: Sequence[str]) -> list[tuple[int, NDArray[np.float64]]]:
    """Return the number of the first capture and their values, of each axis."""
    datasets = message.get("datasets")
    if not isinstance(datasets, dict):
        raise DocumentError(f"data of the PandA's relay with datasets {in_short(datasets)}: wanted a mapping")
    by_name = {str(name).strip("/"): dataset for name, dataset in datasets.items()}
    missing = [axis for axis in axes if axis.strip("/") not in by_name]
    if missing:
        raise DocumentError(
            f"the PandA's relay sends no {' and no '.join(missing)}, but {in_short(list(datasets))}: name "
            "those to be read in positions.y and positions.x"
        )
    return [_piece(axis, by_name[axis.strip("/")]) for axis in axes]


def _piece(name: str, dataset: Any) -> tuple[int, NDArray[np.float64]]:
    data, first = (
        (dataset.get("data"), dataset.get("starting_sample_number"))
        if isinstance(dataset, dict)
        else (None, None)
    )
    if not is_whole(first, 0):
        raise DocumentError(
            f"dataset {name} of the PandA's relay: wanted a whole number starting_sample_number, got "
            f"{in_short(first)}"
        )
    # Exact types: true is no position, and a text that looks like a number is none either.
    if not isinstance(data, list) or not all(type(value) in (int, float) for value in data):
        raise DocumentError(f"dataset {name} of the PandA's relay: wanted numbers, got {in_short(data)}")
    if "size" in dataset and dataset["size"] != len(data):
        raise DocumentError(
            f"dataset {name} of the PandA's relay holds {len(data)} values, its size is "
            f"{in_short(dataset['size'])}"
        )
    try:
        return int(first), np.array(data, np.float64)
    except OverflowError as error:
        raise DocumentError(f"dataset {name} of the PandA's relay: {error}") from error
