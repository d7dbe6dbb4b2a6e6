"""Whatever becomes of the policy, a steered scan ends well: stepped and flown, with a real RunEngine."""

import threading

import numpy as np
import pytest

pytest.importorskip("bluesky", reason="the extra 'beamline' is not installed")

from bluesky.suspenders import SuspendBoolHigh
from bluesky.utils import RunEngineInterrupted

from tests.helpers.launch.plans import (
    BATCH,
    BLOCKED_S,
    HIGH,
    LOW,
    PLANNED,
    Detector,
    Run,
    answering,
    fly,
    flying,
    is_covered,
    least_blocked_s,
    respoilt,
    step,
    until,
)
from tests.helpers.stream.policies import image, policy

FLOWN_BATCH = 12


def dies(turn, consult, reply):
    return reply if turn < 2 else None


def freezes(turn, consult, reply):
    return reply if turn < 2 else respoilt(reply, sequence=1)


def babbles(turn, consult, reply):
    return reply if turn < 2 else [reply[0], b"\xff\xffgarbage", b"more"]


def answers_another_run(turn, consult, reply):
    return reply if turn < 2 else respoilt(reply, run="somebody else's")


def leaves_the_limits(turn, consult, reply):
    bad = np.array([[np.nan, 1.0], [HIGH + 1, 1.0], [1.0, -np.inf], [LOW - 1e-3, 1.0]])
    return reply if turn < 2 else respoilt(reply, points=bad)


def goes_blind(turn, consult, reply):
    return reply if turn < 2 else respoilt(reply, points=np.zeros((0, 2)), reasons=("blind: the pipeline",))


def takes_too_long(turn, consult, reply):
    return reply if turn < 2 else respoilt(reply, expires_s=1e-9)


FAULTS = {
    dies: "silent",
    freezes: "frozen",
    babbles: "garbage",
    answers_another_run: "foreign",
    leaves_the_limits: "nothing usable: 4 points out of limits",
    goes_blind: "nothing usable: blind",
    takes_too_long: "stale",
}


def stepped(run, address):
    run(step(address))
    return run.points


def flown(run, address):
    return fly(run, address, max_points=72)


@pytest.mark.parametrize("measure", [stepped, flown])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_policy_that_fails_costs_nothing_but_advice(fault, measure):
    run = Run()
    with answering(fault) as address:
        points = measure(run, address)
    sources = [decision["source"] for decision in run.decisions]
    assert run.exit_status == ["success"]
    assert sources[:2] == ["agent", "agent"]
    assert set(sources[2:-1]) == {"planned"}
    assert sources[-1] == "end"
    assert all(FAULTS[fault] in decision["reason"] for decision in run.decisions[2:])
    assert is_covered(points)
    assert len(points) <= 2 * (BATCH if measure is stepped else FLOWN_BATCH) + len(PLANNED)


@pytest.mark.parametrize("measure", [stepped, flown])
def test_a_pipeline_that_was_restarted_is_believed_again_and_its_sequence_goes_on(measure):
    anew = threading.Event()

    def restarts(turn, consult, reply):
        if turn == 1:
            anew.set()  # the next question finds a process that knows nothing
            return respoilt(reply, points=np.zeros((0, 2)), reasons=("blind: the pipeline",))
        return reply

    run = Run()
    with answering(restarts, anew=anew) as address:
        points = measure(run, address)
    sources = [decision["source"] for decision in run.decisions]
    assert sources[:4] == ["agent", "planned", "agent", "agent"]
    sequences = [decision["sequence"] for decision in run.decisions if decision["source"] == "agent"]
    assert (np.diff(sequences) > 0).all()
    assert run.exit_status == ["success"]
    assert len(points) == (60 if measure is stepped else 72)


@pytest.mark.parametrize("deferred", [True, False])
def test_a_pause_loses_no_planned_point(deferred):
    run = Run()

    def pause(n):
        if n in (4, 20):  # from another thread, as a person does: the loop must not wait for itself
            threading.Thread(target=run.engine.request_pause, args=(deferred,)).start()

    detector = Detector(pause)
    with answering(dies) as address:
        with pytest.raises(RunEngineInterrupted):
            run(step(address, detector))
        with pytest.raises(RunEngineInterrupted):
            run.engine.resume()
        run.engine.resume()
    assert run.exit_status == ["success"]
    assert is_covered(run.points)


@pytest.mark.parametrize("deferred", [True, False])
def test_a_pause_of_a_flown_scan_loses_no_planned_point(deferred):
    run = Run()
    run.when("agent", lambda: run.engine.request_pause(deferred))
    with answering(dies) as address, flying(address, max_points=72) as (plan, stage):
        with pytest.raises(RunEngineInterrupted):
            run(plan)
        run.engine.resume()
    points = np.concatenate(stage.flown)
    assert run.exit_status == ["success"]
    assert is_covered(points)
    if deferred:  # it comes between two batches; at once, it may come while one is started
        assert len(points) <= 2 * FLOWN_BATCH + len(PLANNED)


class Beam:
    """A signal that says whether the beam is lost, as suspenders watch it."""

    name = "beam_is_lost"

    def __init__(self):
        self._told, self._value = [], 0

    def subscribe(self, tell, event_type=None, run=True):
        self._told.append(tell)

    def get(self):
        return self._value

    def put(self, value):
        self._value = value
        for tell in self._told:
            tell(value=value)


@pytest.mark.parametrize("measure", ["stepped", "flown"])
def test_a_beam_loss_suspends_the_scan_and_no_point_is_lost(measure):
    run, beam = Run(), Beam()
    run.engine.record_interruptions = True
    run.engine.install_suspender(SuspendBoolHigh(beam))

    def dump():
        beam.put(1)
        until(lambda: run.events("interruptions"))
        beam.put(0)

    run.when("agent", dump)
    with answering(dies) as address:
        if measure == "stepped":
            run(step(address))
            points = run.points
        else:
            points = fly(run, address, max_points=84)
    assert run.exit_status == ["success"]
    assert len(run.events("interruptions")) >= 1
    assert is_covered(points)


@pytest.mark.parametrize("measure", [stepped, flown])
@pytest.mark.parametrize("fault", [None, dies, babbles], ids=["none", "dies", "babbles"])
def test_the_loop_of_the_run_engine_is_never_blocked_for_long(fault, measure):
    def steered():
        run, steers = Run(), policy()
        steers.look(image())
        with answering(*[fault] * bool(fault), steers=steers) as address:
            measure(run, address)
        return run

    assert least_blocked_s(steered) <= BLOCKED_S
