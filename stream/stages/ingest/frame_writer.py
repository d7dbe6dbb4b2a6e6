"""Frames into the columns of their scan, by one of the processes that may store them.

The value is stored first, then its byte, then the head: a process that dies in between leaves nothing that
looks recorded and is not.
"""

from collections.abc import Sequence

import numpy as np

from stream.detector.dectris import DetectorMessageError, ImageMessage
from stream.record.columns import Column
from stream.record.scan import INGESTS, Scan, State

STAGE = INGESTS[0]


class FrameWriter:
    """Stores frames of `scan` that are new, can be read and have room.

    Parameters
    ----------
    scan : Scan
    writer : str
        Whose counters it keeps; nobody else does under this name.
    channel : str
        Which channel of the detector, "" for the first.

    Attributes
    ----------
    counters : Counters
        Of this writer.
    pixels : (row, column)
        The frame that was decoded last.
    problem : str
        What was wrong with the frame that could not be read last.
    """

    def __init__(self, scan: Scan, writer: str, channel: str = "") -> None:
        self.scan, self._channel = scan, channel
        self.counters = scan.counters(writer, writable=True)
        self.frames = scan.column("frames", writable=True)
        self._exposed = scan.column("exposed_s", writable=True)
        self._received = scan.column("received_s", writable=True)
        self.ledger = scan.ledger(STAGE, writable=True)
        self._n_room, self.problem = 0, ""
        # One buffer for all: it stays in the processor's cache between decoding and storing.
        self.pixels = np.empty(self.frames.item_shape, self.frames.dtype)

    @property
    def columns(self) -> tuple[Column, ...]:
        """What has to have room for a frame, the ledger first: one without room is still accounted for."""
        return self.ledger, self._exposed, self._received, self.frames

    def has_room(self, number: int) -> bool:
        """Says whether there is room for the frame `number`, whoever made it."""
        if number >= self._n_room:
            self._n_room = min(column.n_room for column in self.columns)
        return number < self._n_room

    def decode(self, image: ImageMessage) -> None:
        """Leaves the pixels of `image` in `pixels`; DetectorMessageError if it has none that fit."""
        image.frame(self._channel).decode_into(self.pixels)

    def write(self, images: Sequence[ImageMessage], received_s: float) -> int:
        """Stores frames up to the first that is not new, has no room or cannot be read; returns how many."""
        numbers: list[int] = []
        seen = set[int]()
        states = self.ledger.read([image.image_id for image in images]).tolist()
        for image, state in zip(images, states, strict=True):
            number = image.image_id
            if state != State.PENDING or number in seen or not self.has_room(number):
                break
            try:
                self.decode(image)
            except DetectorMessageError as error:
                self.problem = str(error)
                break
            self.frames.put(number, self.pixels)
            numbers.append(number)
            seen.add(number)
        if numbers:
            stored = np.array(numbers)
            self._exposed.write(stored, [image.exposed_s for image in images[: len(numbers)]])
            self._received.write(stored, received_s)
            self.scan.mark(STAGE, stored, State.DONE)
            self.see(max(numbers))
        return len(numbers)

    def see(self, number: int) -> None:
        """Takes note that a frame of this number exists."""
        if number >= self.counters["head"]:
            self.counters["head"] = number + 1
