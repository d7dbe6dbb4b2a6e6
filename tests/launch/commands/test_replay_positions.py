"""Positions of a replay, sent in every way, arrive as those that were recorded."""

import numpy as np
import pytest

from launch.commands.replay import PositionDocuments
from stream.documents.config import PositionsConfig
from stream.documents.outlets import OUTLETS
from stream.record.scan import State
from stream.stages.positions import Positions
from stream.wire.sockets import Endpoint, Socket
from tests.helpers.stream.position_stage import TRUTH_M, Detector, N
from tests.helpers.stream.pva import own_network

SOURCES = {"csv": "growing-file", "hdf5": "growing-file", "cxi": "growing-file"}


@pytest.fixture(autouse=True)
def _has_a_network_of_its_own():
    with own_network():
        yield


@pytest.mark.parametrize("kind", OUTLETS)
def test_positions_that_are_replayed_arrive_at_their_frames(kind, tmp_path):
    """Frame 7 has no position."""
    way, name = OUTLETS[kind], f"p_{{series}}.{'csv' if kind == 'csv' else kind.replace('hdf5', 'h5')}"
    where = str(tmp_path / name) if way.is_file else f"ipc://{tmp_path}/p"
    (scans := tmp_path / "scans").mkdir()
    outlet = None
    if kind == "panda":
        outlet = way.open(Endpoint(address="tcp://127.0.0.1:0"), "um")
        where = outlet.address
    y, x = ("", "") if kind in ("documents", "cxi") else way.names
    settings = {"growing_path": where} if way.is_file else {"address": where}
    if kind == "pva":
        where = way.where
        settings = {"pvs": where.split(",")}
    unit = None if kind == "cxi" else "um"
    config = PositionsConfig(source=SOURCES.get(kind, kind), y=y, x=x, unit=unit, **settings)
    it, now = Positions(config, scans), 0.0
    it._source._clock = lambda: now
    inlet = Socket(it.inlet.pattern, it.inlet.endpoints) if it.inlet else None
    outlet = outlet or way.open(Endpoint(address=where), "um")

    def listen():
        nonlocal now
        now += 0.2
        while inlet and (parts := inlet.receive(0.2)) is not None:
            it.handle([parts])
        it.idle(now)

    while not outlet.is_heard(0.05):
        listen()
    detector = Detector(scans, "series-a")
    positions_m = TRUTH_M[:N].copy()
    positions_m[7] = np.nan
    sent = PositionDocuments(outlet, np.arange(N), positions_m, "series-a", 10, "um")
    sent.begin()
    for number in range(N):
        sent.reach(number)
        if number % 10 == 9:
            listen()
    sent.end()
    outlet.is_heard()
    listen()
    while kind == "pva" and (detector.states() == State.DONE).sum() < N - 1:  # on its way
        it.idle(now)
    detector.close()
    for _ in range(3):
        listen()
    now += config.late_s
    listen()
    known = np.arange(N) != 7
    assert (detector.states()[known] == State.DONE).all()
    assert detector.states()[7] == State.NO_POSITION
    np.testing.assert_allclose(detector.positions_m()[known], TRUTH_M[:N][known], atol=1e-13)
    it.close()
    outlet.close()
    if inlet:
        inlet.close()
