"""Two processes take the frames of one detector: one scan, every frame once, whichever of them dies."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream.detector.config import DetectorConfig
from stream.detector.dectris import decode_message, encode_frame, encode_message
from stream.detector.protocol import ImageMessage
from stream.record.account import incompleteness
from stream.record.scan import INGESTS, State
from stream.stages.ingest.assistant import Assistant
from stream.stages.ingest.second import Second
from stream.wire import addresses
from stream.wire.sockets import Endpoint
from tests.helpers.stream.detector import Recorder, assert_recorded, numbers_in, series

RELAY = Endpoint(address="ipc://relay")


class Pulse:
    """Of a process that tests stop and kill."""

    def __init__(self) -> None:
        self.lives, self.emptied_at = True, 0.0

    def is_alive(self) -> bool:
        return self.lives


class Pair:
    """Both processes, to which a detector deals its messages; what the second passes on reaches the first."""

    def __init__(self, scans: Path, **config: Any) -> None:
        self.scans, self._config, self.pulse = scans, config, Pulse()
        self.start_first()
        self.start_second()
        self._queue: list[bytes] = []  # of the second while it is stopped
        self.is_stopped = False

    def start_first(self) -> None:
        now = self.recorder.now if hasattr(self, "recorder") else 100.0
        second = Second(self.pulse, RELAY, lambda: self.recorder.now, self.pass_time)
        self.recorder = Recorder(self.scans, second=second, **self._config)
        self.recorder.now = now

    def start_second(self) -> None:
        settings = DetectorConfig(address=addresses.DETECTOR, **self._config)
        self.assistant = Assistant(settings, self.scans, RELAY, lambda: self.recorder.now)

    def pass_time(self, seconds: float) -> None:
        self.recorder.now += seconds

    def take_second(self, messages: Sequence[bytes]) -> None:
        self._queue += messages
        if self.is_stopped:
            return
        self.assistant.handle([[message] for message in self._queue])
        self._queue.clear()
        self.assistant.idle(self.recorder.now)
        passed_on = [bytes(parts[0]) for parts in self.assistant.passed_on()]
        self.pulse.emptied_at = self.recorder.now
        self.recorder.take(passed_on)

    def take(
        self, messages: Iterable[bytes], *, per_turn: int = 16, first_has: Sequence[bool] = (True, False)
    ) -> None:
        """Deals messages in turn, as `first_has` says again and again."""
        held = list(messages)
        for begin in range(0, len(held), per_turn):
            turn = [*enumerate(held[begin : begin + per_turn], begin)]
            is_first = [first_has[index % len(first_has)] for index, _ in turn]
            self.take_second([message for (_, message), own in zip(turn, is_first, strict=True) if not own])
            self.recorder.take([message for (_, message), own in zip(turn, is_first, strict=True) if own])

    def wait(self, seconds: float) -> None:
        self.recorder.now += seconds
        if not self.is_stopped and self.pulse.lives:
            self.take_second([])
        self.recorder.wait(0.0)


def test_two_write_one_scan_and_each_frame_is_written_once(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.take(series("a", 200))
    assert [path.name for path in tmp_path.iterdir()] == ["0000-a"]
    assert_recorded(pair.recorder.scan(), range(200))
    counters = pair.recorder.counters()
    assert (counters["head"], counters["announced"], counters["closed"], counters["duplicates"]) == (
        200,
        200,
        1,
        0,
    )
    name, counts = pair.assistant.progress()
    assert (name, counts["recorded"]) == ("0000-a", 101 - counts["passed_on"])
    assert counts["passed_on"] < 10, "what came before there was a scan, and the end"
    assert pair.recorder.subscriber.progress()[1]["recorded"] == 200
    assert pair.recorder.account().is_complete


@pytest.mark.parametrize("start_goes_to_first", [True, False])
def test_whichever_hears_of_the_start_and_of_the_end_the_first_begins_and_ends_the_scan(
    tmp_path: Path, start_goes_to_first: bool
) -> None:
    pair = Pair(tmp_path)
    for uid in ("a", "b"):
        pair.take(series(uid, 40), first_has=(start_goes_to_first, not start_goes_to_first), per_turn=6)
    for index in range(2):
        assert_recorded(pair.recorder.scan(index), range(40))
        assert (pair.recorder.counters(index)["closed"], pair.recorder.counters(index)["announced"]) == (
            1,
            40,
        )


def test_what_a_killed_second_process_had_in_hand_is_lost_and_named_and_its_restart_takes_part(
    tmp_path: Path,
) -> None:
    pair = Pair(tmp_path)
    messages = series("a", 100)
    pair.take(messages[:41])
    pair.is_stopped = True
    pair.take(messages[41:61])
    pair._queue.clear()  # kill -9
    pair.is_stopped = False
    pair.start_second()
    pair.take(messages[61:])
    pair.wait(2.0)
    lost = [*range(41, 60, 2)]
    assert numbers_in(pair.recorder.scan(), State.LOST) == lost
    assert_recorded(pair.recorder.scan(), sorted({*range(100)} - {*lost}))
    assert "lost 10 frames (41, 43, 45, 47 and 6 more)" in incompleteness(pair.recorder.scan())
    assert pair.assistant.progress()[1]["recorded"] > 15


def test_a_killed_first_process_is_stood_in_for_and_goes_on_when_it_is_back(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    messages = series("a", 100)
    pair.take(messages[:41])
    pair.assistant.handle([[message] for message in messages[41:81]])  # the detector has nobody else
    pair.start_first()
    pair.take(messages[81:])
    assert_recorded(pair.recorder.scan(), range(100))
    assert (pair.recorder.counters()["closed"], pair.recorder.counters()["head"]) == (1, 100)


def test_a_series_stays_open_while_the_second_process_holds_frames_and_does_not_move(tmp_path: Path) -> None:
    pair = Pair(tmp_path, end_grace_s=2.0)
    messages = series("a", 40)
    pair.take(messages[:21])
    pair.is_stopped = True
    pair.take(messages[21:-1])
    pair.recorder.take(messages[-1:])
    pair.wait(5.0)
    assert pair.recorder.counters()["closed"] == 0
    pair.is_stopped = False
    pair.wait(0.1)
    assert pair.recorder.counters()["closed"] == 1
    assert_recorded(pair.recorder.scan(), range(40))


@pytest.mark.parametrize("lives", [False, True])
def test_one_that_is_dead_or_never_moves_again_keeps_no_series_open(tmp_path: Path, lives: bool) -> None:
    pair = Pair(tmp_path, end_grace_s=2.0)
    messages = series("a", 40)
    pair.take(messages[:21])
    pair.is_stopped, pair.pulse.lives = True, lives
    pair.take(messages[21:-1])
    pair.recorder.take(messages[-1:])
    pair.wait(13.0 if lives else 2.1)
    assert pair.recorder.counters()["closed"] == 1
    assert numbers_in(pair.recorder.scan(), State.LOST) == [*range(21, 40, 2)]
    pair.is_stopped = False
    pair.take_second([])
    assert pair.recorder.counters()["late"] == 10


def test_frames_of_the_last_series_are_taken_before_the_next_begins(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    *messages, end = series("a", 40)
    pair.take(messages[:21])
    pair.is_stopped = True
    pair.take(messages[21:])

    def moves_again(seconds: float) -> None:
        pair.is_stopped = False
        pair.pass_time(seconds)
        pair.take_second([])

    pair.recorder.subscriber._second._sleep = moves_again
    pair.recorder.take([end, *series("b", 10)])
    assert_recorded(pair.recorder.scan(0), range(40))
    assert_recorded(pair.recorder.scan(1), range(10))


def test_what_the_second_process_cannot_use_the_first_judges(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    messages = series("a", 40)
    damaged = decode_message(messages[11])
    assert isinstance(damaged, ImageMessage)
    wrong = encode_frame(np.zeros((2, 2), "<u2"))
    damaged_again = encode_message(msgspec.structs.replace(damaged, data={"threshold_1": wrong}))
    other = series("a", 40, content=9)
    pair.take(messages[:11])
    pair.take_second([b"nonsense", damaged_again, other[3], messages[4]])
    pair.take(messages[11:])
    counters = pair.recorder.counters()
    assert (counters["duplicates"], counters["conflicts"], counters["rejected"]) == (2, 1, 1)
    assert_recorded(pair.recorder.scan(), range(40))


def test_a_series_of_unknown_length_has_room_made_for_both(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.take(series("a", 9000, announce=1), per_turn=256)
    pair.wait(2.1)
    assert_recorded(pair.recorder.scan(), range(9000))
    assert pair.assistant.progress()[1]["recorded"] > 4000


def test_a_series_without_an_id_of_its_own_is_the_first_ones_alone(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.take(series("", 20, series_id=12))
    assert_recorded(pair.recorder.scan(), range(20))
    assert pair.assistant.progress()[1]["recorded"] == 0


def test_a_scan_of_two_is_read_by_its_head_of_both(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.take(series("a", 40)[:20])
    pair.assistant.handle([[message] for message in series("a", 40)[30:31]])
    scan = pair.recorder.scan()
    assert [scan.count(ingest, "head") for ingest in INGESTS] == [18, 30]
    assert scan.n_frames == 30


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_however_frames_are_dealt_every_one_is_accounted_for(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Losses, duplicates, reordering, missing starts, and processes that die with nothing in hand."""
    pair = Pair(tmp_path_factory.mktemp("scans"))
    for content in range(data.draw(st.integers(1, 2))):
        n_frames = data.draw(st.integers(2, 40))
        numbers = st.integers(0, n_frames - 1)
        messages = series(
            f"series-{content}",
            n_frames,
            content=content,
            series_id=content,
            drop=data.draw(st.frozensets(numbers, max_size=n_frames - 1)),
            duplicate=data.draw(st.frozensets(numbers)),
            order=tuple(data.draw(st.permutations(range(n_frames)))),
        )
        sent = {m.image_id for m in map(decode_message, messages) if isinstance(m, ImageMessage)}
        dealt = {
            "first_has": data.draw(st.lists(st.booleans(), min_size=1, max_size=7)),
            "per_turn": data.draw(st.integers(1, 64)),
        }
        where = data.draw(st.integers(0, len(messages)))
        pair.take(messages[:where], **dealt)
        if data.draw(st.booleans()):
            pair.start_second()
        if data.draw(st.booleans()):
            pair.start_first()
        pair.take(messages[where:], **dealt)
        pair.wait(3.0)
        pair.recorder.subscriber.close()  # an end that a killed process had heard is not heard again
        assert_recorded(pair.recorder.scan(content), sorted(sent), content)
        account = pair.recorder.account(content)
        assert (account.pending, account.recorded + account.lost) == (0, account.expected)
        assert pair.recorder.counters(content)["closed"] == 1
