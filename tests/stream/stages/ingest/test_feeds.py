"""What a feed brings is recorded as what a socket brings, across bad pieces and the death of the process."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stream.detector import dialects
from stream.detector.config import DetectorConfig
from stream.detector.dectris import decode_message
from stream.detector.protocol import DetectorMessage, DetectorMessageError
from stream.record.scan import State
from stream.stages.ingest.subscriber import Subscriber
from tests.helpers.stream.detector import Recorder, assert_recorded, numbers_in, series


class ListFeed:
    """What it brings, a call's pieces at a time; an error is raised."""

    def __init__(self, calls: Sequence[Sequence[DetectorMessage] | DetectorMessageError]) -> None:
        self.calls = list(calls)
        self.resumed: list[tuple[str, int]] = []
        self.is_closed = False

    def receive(self) -> Sequence[DetectorMessage]:
        call = self.calls.pop(0) if self.calls else []
        if isinstance(call, DetectorMessageError):
            raise call
        return call

    def resume(self, series_key: str, n_frames: int, n_whole: int) -> None:
        self.resumed.append((series_key, n_frames, n_whole))

    def close(self) -> None:
        self.is_closed = True


class Fed(Recorder):
    """A subscriber of a feed, with a clock that tests move."""

    def __init__(self, scans: Path, feed: ListFeed, **config: Any) -> None:
        self.now, self.scans, self.feed = 100.0, scans, feed
        settings = DetectorConfig(format="pva", pv="T:IMAGE", silence_s=60.0, **config)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(dialects.FEEDS, "pva", lambda config: feed)
            self.subscriber = Subscriber(settings, scans, lambda: self.now)

    def take_all(self) -> int:
        n_taken = 0
        while self.feed.calls:
            n_taken += self.subscriber.fetch()
            self.subscriber.idle(self.now)
        return n_taken


def messages(uid: str, n_frames: int) -> list[DetectorMessage]:
    decoded = [decode_message(message) for message in series(uid, n_frames)]
    return [message for message in decoded if message is not None]


def test_a_series_of_a_feed_is_recorded(tmp_path: Path) -> None:
    sent = messages("A", 5)
    fed = Fed(tmp_path, ListFeed([sent[:3], sent[3:]]))
    assert fed.subscriber.inlet is None
    assert fed.take_all() == 7
    assert_recorded(fed.scan(), range(5))
    fed.subscriber.close()
    assert fed.feed.is_closed


def test_a_bad_piece_costs_itself_and_is_counted(tmp_path: Path) -> None:
    sent = messages("A", 4)
    fed = Fed(tmp_path, ListFeed([sent[:3], DetectorMessageError("torn"), sent[4:]]))
    fed.take_all()
    assert numbers_in(fed.scan(), State.DONE) == [0, 1, 3]
    assert fed.counters()["rejected"] == 1
    fed.subscriber.close()


def test_a_series_goes_on_in_the_next_process(tmp_path: Path) -> None:
    sent = messages("A", 6)
    Fed(tmp_path, ListFeed([sent[:4]])).take_all()
    after = Fed(tmp_path, ListFeed([sent[4:]]))
    assert after.feed.resumed == [("A", 3, 3)]
    after.take_all()
    assert_recorded(after.scan(), range(6))
    after.subscriber.close()
