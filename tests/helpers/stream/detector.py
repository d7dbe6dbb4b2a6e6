"""A detector for tests of the subscriber: frames that say in their pixels which they are."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stream.detector.config import DetectorConfig
from stream.detector.dectris import encode_message
from stream.detector.dialects import ENCODERS
from stream.detector.protocol import DetectorMessage
from stream.detector.simulator import Faults, ReplayConfig, series_messages
from stream.record.account import Account, account
from stream.record.scan import Scan, State, scans_in
from stream.stages.ingest.frame_writer import STAGE
from stream.stages.ingest.second import Second
from stream.stages.ingest.subscriber import Subscriber
from stream.wire import addresses

SHAPE = (6, 8)


def pixels(number: int, series: int = 0) -> np.ndarray:
    """The frame `number` of series `series`: no two are alike."""
    frame = np.full(SHAPE, number, "<u2")
    frame[0] = series
    return frame


def series(uid: str, n_frames: int, *, content: int = 0, series_id: int = 1, **faults: Any) -> list[bytes]:
    """The messages of one series; `content` is what `pixels` calls its series."""
    return [encode_message(message) for message in _said(uid, n_frames, content, series_id, faults)]


def series_as(
    dialect: str, uid: str, n_frames: int, *, content: int = 0, series_id: int = 1, **faults: Any
) -> list[list[bytes]]:
    """The messages of one series in a dialect, each in its parts."""
    encode = ENCODERS[dialect]
    return [
        parts for message in _said(uid, n_frames, content, series_id, faults) for parts in encode(message)
    ]


def _said(
    uid: str, n_frames: int, content: int, series_id: int, faults: dict[str, Any]
) -> Iterator[DetectorMessage]:
    config = ReplayConfig(series_uid=uid, series_id=series_id, rate_hz=100.0, faults=Faults(**faults))
    frames = [pixels(number, content) for number in range(n_frames)]
    return (message for _, message in series_messages(frames, config, n_frames))


class Recorder:
    """A subscriber with a clock that tests move, fed with messages instead of a socket."""

    def __init__(
        self, scans: Path, results: Path | None = None, second: Second | None = None, **config: Any
    ) -> None:
        self.now = 100.0
        self.scans = scans
        settings = DetectorConfig(address=addresses.DETECTOR, **config)
        self.subscriber = Subscriber(settings, scans, lambda: self.now, results=results, second=second)

    def take(self, messages: Iterable[bytes | list[bytes]], *, per_turn: int = 64) -> None:
        """Hands over messages, of one part or of several, as `run_stage` does."""
        held = [[message] if isinstance(message, bytes) else message for message in messages]
        for first in range(0, len(held), per_turn):
            self.subscriber.handle(held[first : first + per_turn])
            self.subscriber.idle(self.now)

    def wait(self, seconds: float) -> None:
        """Lets time pass."""
        self.now += seconds
        self.subscriber.idle(self.now)

    def scan(self, index: int = -1) -> Scan:
        """The scan recorded as the `index`-th."""
        return [*scans_in(self.scans)][index]

    def account(self, index: int = -1) -> Account:
        """What became of the frames of a scan."""
        return account(self.scan(index), STAGE)

    def counters(self, index: int = -1) -> dict[str, int]:
        """The subscriber's counters of a scan."""
        return self.scan(index).counters(STAGE).as_dict()


def numbers_in(scan: Scan, state: State) -> list[int]:
    """Frames that the subscriber left in `state`."""
    return np.flatnonzero(scan.states(STAGE) == state).tolist()


def assert_recorded(scan: Scan, numbers: Sequence[int], content: int = 0) -> None:
    """Exactly these frames are recorded, each with its own pixels."""
    assert numbers_in(scan, State.DONE) == sorted(numbers)
    for number, frame in zip(sorted(numbers), scan.column("frames").read(sorted(numbers)), strict=True):
        np.testing.assert_array_equal(frame, pixels(number, content))
