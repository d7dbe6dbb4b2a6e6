"""Files as detectors write them, and what a feed says of them."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from stream.detector.config import DetectorConfig
from stream.detector.files.feed import FilesFeed
from stream.detector.files.writers import FRAMES_PER_FILE, FileSender
from stream.detector.protocol import DetectorMessageError, EndMessage, ImageMessage, StartMessage
from stream.detector.simulator import Faults, ReplayConfig, series_messages
from tests.helpers.stream.clock import Clock

N, SHAPE = 2 * FRAMES_PER_FILE + 30, (6, 9)
SILENCE_S, GRACE_S = 5.0, 1.0
FRAMES = np.random.default_rng(0).poisson(3, (N, *SHAPE)).astype("<u2")
TOLD = {"energy_ev": 9000.0, "detector_distance_m": 1.5, "detector_pixel_m": 75e-6}


class Read:
    """What a feed has said so far, and its clock."""

    def __init__(self, place: Path, *, seconds_later: float = 0.0, **settings) -> None:
        fields = {"silence_s": SILENCE_S, "end_grace_s": GRACE_S, "takes_old": True, **settings}
        self.clock = Clock()
        config = DetectorConfig(format="files", path=place, **fields)
        self.feed = FilesFeed(config, self.clock, lambda: time.time() + seconds_later)
        self.messages, self.errors = [], []

    def after(self, seconds: float = 0.0) -> "Read":
        """Look again and again until so much later."""
        for _ in range(max(round(seconds / 0.1), 1)):
            self.clock.now += 0.1
            for _ in range(8):
                try:
                    self.messages += self.feed.receive()
                except DetectorMessageError as error:
                    self.errors.append(str(error))
                self.clock.now += 1e-3
        return self

    @property
    def numbers(self) -> list[int]:
        return [message.image_id for message in self.messages if isinstance(message, ImageMessage)]

    @property
    def starts(self) -> list[StartMessage]:
        return [message for message in self.messages if isinstance(message, StartMessage)]

    @property
    def n_ends(self) -> int:
        return sum(isinstance(message, EndMessage) for message in self.messages)

    def assert_as(self, frames: np.ndarray, numbers: Iterable[int]) -> None:
        assert self.numbers == list(numbers)
        images = [message for message in self.messages if isinstance(message, ImageMessage)]
        for image in images:
            np.testing.assert_array_equal(image.frame().decode(), frames[image.image_id])


def write(
    sender: FileSender, frames: np.ndarray = FRAMES, name: str = "scan", until: int | None = None, **faults
) -> Callable[[], None]:
    """Write a series up to frame `until`; gives what writes the rest."""
    config = ReplayConfig(series_uid=name, faults=Faults(**faults), **TOLD)
    messages = [message for _, message in series_messages(frames, config, len(frames))]
    at = len(messages) if until is None else until + 1
    for message in messages[:at]:
        sender.send(message, 0.0)

    def rest() -> None:
        for message in messages[at:]:
            sender.send(message, 0.0)
        sender.close()

    if until is None:
        rest()
    return rest
