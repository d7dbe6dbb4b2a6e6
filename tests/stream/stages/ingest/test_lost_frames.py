"""Lost, doubled and reordered frames: every one is accounted for and none is mistaken for another."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream.detector.dialects import DIALECTS
from stream.detector.protocol import ImageMessage
from stream.record.scan import State
from tests.helpers.stream.detector import Recorder, assert_recorded, numbers_in, series, series_as

every_dialect = pytest.mark.parametrize("dialect", DIALECTS)


@every_dialect
def test_frames_that_never_came_are_named(tmp_path: Path, dialect: str) -> None:
    recorder = Recorder(tmp_path, format=dialect)
    recorder.take(series_as(dialect, "a", 50, drop=frozenset({0, 7, 8, 49})))
    recorder.wait(2.0)
    assert numbers_in(recorder.scan(), State.LOST) == [0, 7, 8, 49]
    account = recorder.account()
    assert (account.expected, account.recorded, account.lost, account.pending) == (50, 46, 4, 0)


@every_dialect
def test_a_duplicate_is_counted_and_the_first_stays(tmp_path: Path, dialect: str) -> None:
    recorder = Recorder(tmp_path, format=dialect)
    recorder.take(series_as(dialect, "a", 20, duplicate=frozenset({3, 19})), per_turn=7)
    assert_recorded(recorder.scan(), range(20))
    assert (recorder.counters()["duplicates"], recorder.counters()["conflicts"]) == (2, 0)


@pytest.mark.parametrize("per_turn", [1, 64])
def test_a_duplicate_with_other_pixels_is_a_conflict(tmp_path: Path, per_turn: int) -> None:
    ours, other = series("a", 5), series("a", 5, content=9)
    recorder = Recorder(tmp_path)
    recorder.take([*ours[:3], other[1], *ours[3:]], per_turn=per_turn)
    assert_recorded(recorder.scan(), range(5))
    assert (recorder.counters()["duplicates"], recorder.counters()["conflicts"]) == (1, 1)


@every_dialect
def test_order_does_not_matter(tmp_path: Path, dialect: str) -> None:
    recorder = Recorder(tmp_path, format=dialect)
    recorder.take(series_as(dialect, "a", 100, order=tuple(37 * i % 100 for i in range(100))), per_turn=9)
    assert_recorded(recorder.scan(), range(100))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_schedule_leaves_every_frame_accounted_for(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Losses, duplicates, reordering, lost starts and ends, detector and subscriber that start again."""
    scans, dialect = tmp_path_factory.mktemp("scans"), data.draw(st.sampled_from([*DIALECTS]))
    recorder, is_certain = Recorder(scans, format=dialect), True  # that what comes belongs to another series
    for content in range(data.draw(st.integers(1, 3))):
        n_frames = data.draw(st.integers(1, 40))
        numbers = st.integers(0, n_frames - 1)
        messages = series_as(
            dialect,
            f"series-{content}",
            n_frames,
            content=content,
            series_id=content,
            drop=data.draw(st.frozensets(numbers, max_size=n_frames - 1)),
            duplicate=data.draw(st.frozensets(numbers)),
            order=tuple(data.draw(st.permutations(range(n_frames)))),
            without_start=is_certain and data.draw(st.booleans()),
            without_end=data.draw(st.booleans()),
            stop_after=data.draw(st.none() | st.integers(1, n_frames)),
        )
        sent = _numbers_sent(dialect, messages)
        where = data.draw(st.integers(0, len(messages)))
        recorder.take(messages[:where], per_turn=data.draw(st.integers(1, 64)))
        if data.draw(st.booleans()):
            recorder = Recorder(scans, format=dialect)  # the process was killed: nothing was closed
        recorder.take(messages[where:], per_turn=data.draw(st.integers(1, 64)))
        recorder.wait(data.draw(st.sampled_from([0.0, 3.0])))
        assert_recorded(recorder.scan(content), sorted(sent), content)
        is_certain = recorder.counters()["closed"] == 1
    recorder.subscriber.close()
    for index in range(len([*scans.iterdir()])):
        account = recorder.account(index)
        assert (account.pending, account.recorded + account.lost) == (0, account.expected)
        assert recorder.counters(index)["closed"] == 1


def _numbers_sent(dialect: str, messages: list[list[bytes]]) -> set[int]:
    decoded = map(DIALECTS[dialect]().decode, messages)
    return {message.image_id for message in decoded if isinstance(message, ImageMessage)}
