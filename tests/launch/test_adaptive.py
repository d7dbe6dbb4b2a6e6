import threading

import msgspec
import numpy as np
import pytest

pytest.importorskip("bluesky", reason="the extra 'beamline' is not installed")

from bluesky.utils import RunEngineInterrupted
from ophyd_async.core import init_devices
from ophyd_async.sim import SimMotor

from launch.adaptive import adaptive_ptycho
from launch.scan_ledger import Ledger, MaxDose
from stream.policy_client import InProcess
from stream.wire import decode, encode
from tests.launch.plans import BATCH, HIGH, LOW, PLANNED, Detector, Run, answering, fly, is_covered, step
from tests.stream.policies import AXES, ILLUMINATION, LIMITS, image, policy


def respoilt(reply, points=None, **fields):
    message, arrays = decode(reply[1:])
    message = msgspec.structs.replace(message, arrays=(), **fields)
    return [reply[0], *encode(message, arrays if points is None else [points])]


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


FAULTS = {
    dies: "silent",
    freezes: "frozen",
    babbles: "garbage",
    answers_another_run: "foreign",
    leaves_the_limits: "nothing usable: 4 points out of limits",
    goes_blind: "nothing usable: blind",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_policy_that_fails_costs_nothing_but_advice(fault):
    run = Run()
    with answering(fault) as address:
        run(step(address))
    sources = [decision["source"] for decision in run.decisions]
    assert run.exit_status == ["success"]
    assert sources[:2] == ["agent", "agent"]
    assert set(sources[2:-1]) == {"planned"}
    assert sources[-1] == "end"
    assert all(FAULTS[fault] in decision["reason"] for decision in run.decisions[2:])
    assert is_covered(run.points)
    assert len(run.points) <= 2 * BATCH + len(PLANNED)


def test_without_any_policy_the_planned_pattern_is_measured_point_for_point():
    run = Run()
    run(step("tcp://127.0.0.1:9", max_points=None, wait_s=0.02))
    np.testing.assert_array_equal(run.points, PLANNED)
    assert run.exit_status == ["success"]
    assert {decision["source"] for decision in run.decisions} == {"planned", "end"}


def test_stale_advice_is_not_followed():
    run = Run()
    with answering() as address:
        run(step(address, stale_after=0.0, max_points=None))
    np.testing.assert_array_equal(run.points, PLANNED)
    assert all("stale" in decision["reason"] for decision in run.decisions[:-1])


def test_a_pipeline_that_was_restarted_is_believed_again_and_its_sequence_goes_on():
    steers = policy()

    def restarts(turn, consult, reply):
        if turn == 1:
            return respoilt(reply, points=np.zeros((0, 2)), reasons=("blind: the pipeline",))
        if turn == 2:
            steers._sequence = -1  # as a process that was started anew
        return reply

    run = Run()
    with answering(restarts, steers) as address:
        run(step(address))
    sources = [decision["source"] for decision in run.decisions]
    assert sources[:4] == ["agent", "planned", "agent", "agent"]
    sequences = [decision["sequence"] for decision in run.decisions if decision["source"] == "agent"]
    assert (np.diff(sequences) > 0).all()
    assert len(run.points) == 60


def test_every_batch_is_an_event_that_says_where_it_came_from():
    steers = policy()
    steers.look(image())
    run = Run()
    with answering(steers=steers) as address:
        run(step(address, max_points=20))
    assert [decision["n_points"] for decision in run.decisions] == [6, 6, 6, 2, 0]
    first = run.decisions[0]
    assert set(first) == {
        *("source", "reason", "n_points", "sequence", "age_s", "frames_seen", "predicted_gain", "map_hash"),
        *("dose_peak", "realised_gain"),
    }
    assert len(first["map_hash"]) == 16
    assert first["reason"].startswith("survey")
    assert first["predicted_gain"] > 0
    assert run.decisions[-1]["reason"] == "every exposure that was allowed is made"
    start = run.documents[0][1]
    assert (start["plan_name"], start["n_planned"], start["n_most"]) == ("adaptive_ptycho", 36, 20)


def test_the_policy_can_end_the_scan():
    run = Run()
    with answering(lambda turn, _, reply: respoilt(reply, stop=True, reasons=("enough",))) as address:
        run(step(address))
    assert run.exit_status == ["success"]
    assert [(d["source"], d["reason"]) for d in run.decisions] == [("end", "stop: enough")]


def test_in_process_it_does_the_same():
    run = Run()
    run(step(InProcess(policy()), wait_s=5.0))
    assert len(run.points) == 60
    assert {decision["source"] for decision in run.decisions} == {"agent", "end"}


def test_dose_is_never_above_the_limit_whoever_asks():
    limit = MaxDose(photons_per_pixel=1.5 * ILLUMINATION.max(), illumination=ILLUMINATION, axes=AXES)

    def insists(turn, consult, reply):
        return respoilt(reply, points=np.repeat(PLANNED[[7]], BATCH, axis=0))

    run = Run()
    with answering(insists) as address:
        run(step(address, max_dose=limit))
    counts = np.unique(run.points, axis=0, return_counts=True)[1]
    assert (counts == 1).all()
    assert max(decision["dose_peak"] for decision in run.decisions) <= limit.photons_per_pixel
    assert any("over the dose" in decision["reason"] for decision in run.decisions)
    assert run.exit_status == ["success"]


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


def test_the_loop_of_the_run_engine_is_never_blocked_for_long():
    steers = policy()
    steers.look(image())
    blocked_s = []
    for _ in range(3):  # the machine itself may stall once
        run = Run()
        with answering(steers=steers) as address:
            run(step(address))
        blocked_s.append(run.blocked_s)
    assert min(blocked_s) <= 0.05


def test_motors_of_ophyd_async_do():
    run = Run()
    with init_devices():
        y, x = SimMotor("y"), SimMotor("x")
    plan = adaptive_ptycho(
        [Detector()],
        [y, x],
        InProcess(policy()),
        fallback=PLANNED,
        limits=LIMITS,
        max_points=8,
        batch=4,
        wait_s=5.0,
    )
    run(plan)
    assert run.exit_status == ["success"]
    assert len(run.points) == 8


def test_flown_it_is_one_trajectory_per_batch_and_every_reading_is_in_the_run():
    run = Run()
    with answering() as address:
        flown = fly(run, address)
    assert len(flown) == 60
    assert run.exit_status == ["success"]
    pages = [d for name, d in run.documents if name == "event_page"]
    read = [
        pair for page in pages for pair in zip(page["data"]["stage-y"], page["data"]["stage-x"], strict=True)
    ]
    np.testing.assert_allclose(read, flown)
    assert [decision["source"] for decision in run.decisions] == ["agent"] * 5 + ["end"]


def test_flown_too_it_finishes_as_planned_when_the_policy_dies():
    run = Run()
    with answering(dies) as address:
        flown = fly(run, address)
    assert is_covered(flown)
    assert run.exit_status == ["success"]
    assert [decision["source"] for decision in run.decisions][:3] == ["agent", "agent", "planned"]


def test_a_plan_that_leaves_the_limits_is_refused_before_anything_moves():
    with pytest.raises(ValueError, match=r"planned point 0 at .* outside the limits"):
        Ledger(PLANNED + 1000, LIMITS, None, None)
    with pytest.raises(ValueError, match="expected planned points"):
        Ledger(np.zeros((0, 2)), LIMITS, None, None)
    with pytest.raises(ValueError, match="at least one point per batch"):
        next(step("tcp://127.0.0.1:9", batch=0))
