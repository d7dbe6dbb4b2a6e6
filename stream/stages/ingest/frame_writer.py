"""Frames into the columns of their scan, by one of the processes that may store them.

The value is stored first, then its byte, then the head: a process that dies in between leaves nothing that
looks recorded and is not.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.detector.protocol import DetectorMessageError, ImageMessage
from stream.record.columns import Column
from stream.record.scan import INGESTS, Scan, State
from stream.stages.ingest.told import numbers_in, series_in, write_told
from stream.wire.codec import Buffer

STAGE = INGESTS[0]
CACHED_BYTES, MOST_TOGETHER = 1 << 18, 16  # of frames that are stored in one piece


class FrameWriter:
    """Stores frames of `scan` that are new, can be read and have room.

    Parameters
    ----------
    scan : Scan
    writer : str
        Whose counters it keeps; nobody else does under this name.
    channel : str
        Which channel of the detector, "" for the first.
    told : sequence of str
        Keys of numbers in the user data of images that are stored as well.

    Attributes
    ----------
    counters : Counters
        Of this writer.
    problem : str
        What was wrong with the frame that could not be read last.
    """

    def __init__(self, scan: Scan, writer: str, channel: str = "", told: Sequence[str] = ()) -> None:
        self.scan, self._channel, self._keys = scan, channel, told
        self.counters = scan.counters(writer, writable=True)
        self.frames = scan.column("frames", writable=True)
        self._exposed = scan.column("exposed_s", writable=True)
        self._received = scan.column("received_s", writable=True)
        self._told = scan.column("told", writable=True) if told else None
        self.ledger = scan.ledger(STAGE, writable=True)
        self._n_room, self.problem = 0, ""
        # Few enough that they stay in the cache of the processor between decoding and storing.
        n_decoded = min(max(CACHED_BYTES // self.frames.item_bytes, 1), MOST_TOGETHER)
        self._decoded = np.empty((n_decoded, *self.frames.item_shape), self.frames.dtype)

    @property
    def columns(self) -> tuple[Column, ...]:
        """What has to have room for a frame, the ledger first: one without room is still accounted for."""
        told = () if self._told is None else (self._told,)
        return self.ledger, self._exposed, self._received, *told, self.frames

    def has_room(self, number: int) -> bool:
        """Says whether there is room for the frame `number`, whoever made it."""
        if number >= self._n_room:
            self._n_room = min(column.n_room for column in self.columns)
        return number < self._n_room

    def decode(self, image: ImageMessage) -> NDArray[Any]:
        """Returns the pixels of `image`, (row, column); DetectorMessageError if it has none that fit."""
        image.frame(self._channel).decode_into(self._decoded[0])
        return self._decoded[0]

    def write(self, images: Sequence[ImageMessage], received_s: float) -> int:
        """Stores frames up to the first that is not new, has no room or cannot be read; returns how many."""
        numbers = _evenly_spaced([image.image_id for image in images])
        n_stored = self._store(images, numbers[: self._n_new(numbers)])
        if n_stored:
            stored = numbers[:n_stored]
            self._exposed.write(stored, [image.exposed_s for image in images[:n_stored]])
            self._received.write(stored, received_s)
            if self._told is not None:
                told = [numbers_in(image.user_data, self._keys) for image in images[:n_stored]]
                write_told(self._told, stored, told)
            self.scan.mark(STAGE, stored, State.DONE)
            self.see(max(stored))
        return n_stored

    def _n_new(self, numbers: Sequence[int]) -> int:
        """Return how many frames come before the first that came already or has no room."""
        states = self.ledger.read(numbers)
        if isinstance(numbers, range) and self.has_room(numbers[-1]) and not states.any():
            return len(numbers)
        seen = set[int]()
        for number, state in zip(numbers, states.tolist(), strict=True):
            if state != State.PENDING or number in seen or not self.has_room(number):
                break
            seen.add(number)
        return len(seen)

    def _store(self, images: Sequence[ImageMessage], numbers: Sequence[int]) -> int:
        """Store the pixels of `images`, neighbours together, up to the first that cannot be read."""
        first, pixels = 0, list[Buffer]()  # of what is decoded and not stored yet
        n_stored = 0
        for image, number in zip(images, numbers, strict=False):
            if pixels and (number != first + len(pixels) or len(pixels) == len(self._decoded)):
                self.frames.put(first, pixels)
                pixels = []
            try:
                decoded = image.frame(self._channel).decoded(self._decoded[len(pixels)])
            except DetectorMessageError as error:
                self.problem = str(error)
                break
            first = first if pixels else number
            pixels.append(decoded)
            n_stored += 1
        if pixels:
            self.frames.put(first, pixels)
        return n_stored

    def take_told(self, user_data: Any) -> None:
        """Stores the numbers of all frames, where the start of the series has lists of them."""
        if self._told is not None and (rows := series_in(user_data, self._keys)):
            self._told.reserve(len(rows))
            write_told(self._told, range(len(rows)), rows)

    def see(self, number: int) -> None:
        """Takes note that a frame of this number exists."""
        if number >= self.counters["head"]:
            self.counters["head"] = number + 1


def _evenly_spaced(numbers: list[int]) -> Sequence[int]:
    """Return `numbers` as the range that they are: frames in their order are one."""
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    spaced = range(numbers[0], numbers[-1] + 1, max(step, 1))
    return spaced if len(spaced) == len(numbers) and list(spaced) == numbers else numbers
