"""Positions that come in the detector's own messages."""

import json

import numpy as np
import pytest
from msgspec.structs import replace

from stream.detector.config import DetectorConfig
from stream.detector.dialects import ENCODERS
from stream.detector.protocol import ImageMessage, StartMessage
from stream.detector.simulator import Faults, ReplayConfig, series_messages
from stream.documents.config import PositionsConfig
from stream.record.scan import Scan, State
from stream.stages.ingest.subscriber import Subscriber
from stream.stages.ingest.told import numbers_in, series_in
from stream.stages.positions import Positions
from stream.wire import addresses
from tests.helpers.stream.detector import pixels
from tests.helpers.stream.position_stage import TRUTH_M

N = 60
CONFIG = PositionsConfig(source="detector", y="stage.y", x="stage.x", unit="um")


def told(number):
    y, x = (1e6 * TRUTH_M[number]).tolist()
    return {"stage": {"y": y, "x": x}, "line": number}


class Beamline:
    """A subscriber and a position stage on the same folder."""

    def __init__(self, scans, dialect="dectris-v2"):
        self.scans, self.dialect = scans, dialect
        detector = DetectorConfig(address=addresses.DETECTOR, format=dialect)
        self.subscriber = Subscriber(detector, scans, lambda: 100.0, told=CONFIG.told)
        self.positions = Positions(CONFIG, scans)
        self.now = 0.0

    def take(self, messages):
        encode = ENCODERS[self.dialect]
        self.subscriber.handle([parts for message in messages for parts in encode(message)])
        self.subscriber.idle(100.0)
        self.now += 1.0
        self.positions.idle(self.now)

    def scan(self):
        return Scan(sorted(self.scans.iterdir())[-1])


def messages(uid="a", user_data=told, start=None, **faults):
    config = ReplayConfig(series_uid=uid, rate_hz=100.0, faults=Faults(**faults))
    for _, message in series_messages([pixels(number) for number in range(N)], config, N):
        if isinstance(message, ImageMessage):
            yield replace(message, user_data=user_data(message.image_id))
        elif isinstance(message, StartMessage):
            yield replace(message, user_data=start)
        else:
            yield message


def assert_placed(scan, missing=()):
    states, known = scan.states("positions"), np.delete(np.arange(N), list(missing))
    assert (states[known] == State.DONE).all()
    positions_m = scan.column("positions_m").read(known)
    np.testing.assert_allclose(positions_m, TRUTH_M[known], atol=1e-12)
    assert scan.count("positions", "closed") == 1


@pytest.mark.parametrize("dialect", ["dectris-v2", "dectris-v1", "json"])
def test_each_frame_has_the_position_of_its_own_message_whatever_is_lost_or_comes_twice(scans, dialect):
    it = Beamline(scans, dialect)
    order = np.arange(N)
    order[[10, 20]] = order[[20, 10]]
    faults = {"drop": frozenset({3, 40}), "duplicate": frozenset({5, 6}), "order": tuple(order.tolist())}
    for uid in ("a", "b"):
        said = list(messages(uid, **faults))
        for first in range(0, len(said), 16):
            it.take(said[first : first + 16])
        for _ in range(3):
            it.take([])
        it.subscriber.idle(200.0)
        it.positions.idle(it.now)
        assert_placed(it.scan(), missing=(3, 40))


def test_messages_without_a_position_leave_their_frames_without_one(scans):
    it = Beamline(scans)
    it.take(messages(user_data=lambda number: None if number in (7, 8) else json.dumps(told(number))))
    it.subscriber.idle(200.0)
    it.positions.idle(it.now + 1)
    assert_placed(it.scan(), missing=(7, 8))
    assert (it.scan().states("positions")[7:9] == State.NO_POSITION).all()


def test_the_start_of_a_series_may_have_the_positions_of_all_its_frames(scans):
    it = Beamline(scans)
    y, x = (1e6 * TRUTH_M[:N]).T.tolist()
    it.take(messages(start={"stage": {"y": y, "x": x}}, user_data=lambda number: None))
    it.subscriber.idle(200.0)
    it.positions.idle(it.now + 1)
    assert_placed(it.scan())


def test_a_stage_that_dies_goes_on_with_its_scan(scans):
    it, said = Beamline(scans), list(messages())
    it.take(said[:30])
    it.positions = Positions(CONFIG, scans)
    it.take(said[30:])
    it.subscriber.idle(200.0)
    it.positions.idle(it.now + 1)
    assert_placed(it.scan())
    assert it.scan().count("positions", "duplicates") == 0


@pytest.mark.parametrize(
    ("user_data", "expected"),
    [
        ({"a": 1, "b": 2.5}, [1.0, 2.5]),
        ('{"a": 1, "b": 2.5}', [1.0, 2.5]),
        ({"a": True, "b": 1}, None),
        ({"a": "1", "b": 1}, None),
        ({"a": 10**400, "b": 1}, None),
        ({"a": float("nan"), "b": 1}, None),
        ('{"a": ', None),
        ([1, 2], None),
        (None, None),
    ],
)
def test_user_data_is_believed_only_where_it_has_numbers(user_data, expected):
    assert numbers_in(user_data, ("a", "b")) == expected


def test_lists_of_unequal_length_are_no_positions():
    assert series_in({"a": [1, 2], "b": [3, 4]}, ("a", "b")) == [[1.0, 3.0], [2.0, 4.0]]
    assert series_in({"a": [1, 2], "b": [3]}, ("a", "b")) == []
    assert series_in({"a": [1, None], "b": [3, 4]}, ("a", "b")) == []
