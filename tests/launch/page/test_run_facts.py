import json

import numpy as np

from launch.page.run_facts import RunFacts
from launch.page.server import LiveFeed
from launch.page.status import status_of
from stream.record.events import EventLog
from stream.record.run_state import write_state
from stream.wire.handshake import SILENCE_S
from stream.wire.messages import FinishedScan, FinishingScan, MotorAxes, RunState, StageState
from stream.wire.sockets import Endpoint
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.fake_door import FakeDoor
from tests.helpers.stream.live_images import live_image

SILENT = StageState(name="detector", text="silent for 8 s", level="warning")
STALE = RunState(scan="0000-star", level="stale", text="detector: silent for 8 s", stages=(SILENT,))
MOTORS = MotorAxes(unit="um", origin=(-1.0, 2.0), pitch=(0.5, -0.25))


def test_the_page_has_the_stages_events_and_motors_of_its_run(tmp_path):
    write_state(tmp_path, STALE)
    EventLog(tmp_path, Clock(5.0)).add("detector", "warning", "silent for 3 s")
    with FakeDoor() as door:
        door.begin("0000-star")
        feed = LiveFeed(Endpoint(address=door.address), facts=RunFacts.of(tmp_path, tmp_path))
        before = json.loads(feed.state())
        door.publish(np.ones((4, 4), np.complex64), motors=MOTORS)
        with feed.live:
            while feed.image is None:
                feed.look(0.1)
        state = json.loads(feed.state())
    assert before["motors"] is None
    assert (before["level"], before["text"]) == ("stale", "detector: silent for 8 s"), "from its own folder"
    assert state["stages"] == [{"name": "detector", "text": "silent for 8 s", "level": "warning"}]
    assert state["events"] == [
        {"time_s": 5.0, "level": "warning", "source": "detector", "text": "silent for 3 s", "scan": ""}
    ]
    assert state["motors"] == {"unit": "um", "origin": [-1.0, 2.0], "pitch": [0.5, -0.25]}


def test_scans_before_the_running_one_are_told_while_they_are_finished_and_the_last_one_that_was():
    finishing = [FinishingScan(name=f"000{n}-s", text=f"epoch {n} of 40") for n in range(2, 7)]
    finished = [FinishedScan(name=f"000{n}-s", text="scan complete", result=f"/r/{n}.cxi") for n in (0, 1)]
    state = RunState(level="live", text="live", finishing=tuple(finishing), finished=tuple(finished))
    assert RunFacts().as_json(None)["before"] == []
    assert RunFacts().as_json(state)["before"] == [
        {"name": "0002-s", "text": "being finished: epoch 2 of 40", "level": "busy"},
        {"name": "0003-s", "text": "being finished: epoch 3 of 40", "level": "busy"},
        {"name": "0004-s", "text": "being finished: epoch 4 of 40", "level": "busy"},
        {"name": "2 more", "text": "being finished", "level": "busy"},
        {"name": "0001-s", "text": "finished: scan complete; /r/1.cxi", "level": "done"},
    ]


def test_a_page_elsewhere_has_the_stages_that_the_pipeline_tells():
    with FakeDoor() as door:
        door.state = STALE
        feed = LiveFeed(Endpoint(address=door.address))
        with feed.live:
            while feed.live.state is None:
                feed.look(0.1)
        state = json.loads(feed.state())
    assert (state["text"], len(state["stages"]), state["events"]) == (STALE.text, 1, [])


def test_what_was_seen_goes_before_what_an_image_looks_like():
    image = live_image(np.ones((2, 2)), scan="0000-star", counts={"expected": 10})
    final = live_image(np.ones((2, 2)), scan="0000-star", counts={"expected": 10}, is_final=True)
    live = RunState(scan="0000-star", level="live", text="live")
    next_ = RunState(scan="0001-next", level="waiting", text="waiting for the first frame")
    assert status_of(image, 0.1, "", STALE).level == "stale"
    assert status_of(None, float("inf"), "", next_).text == "waiting for the first frame"
    assert status_of(image, SILENCE_S + 1, "", live).text == "stale: no data for 4.0 s"
    assert status_of(final, 0.1, "", live).level == "complete", "the supervisor has not looked again yet"
    assert status_of(final, 0.1, "", next_).text == "waiting for the first frame", "another scan has begun"
