"""What a person says to a steered scan: real plan, RunEngine, policy and sockets."""

import threading

import pytest

pytest.importorskip("bluesky", reason="the extra 'beamline' is not installed")

from bluesky.utils import RunEngineInterrupted

from stream.steering.control_client import SteeringClient
from stream.wire.codec import ProtocolError
from tests.helpers.launch.in_process import InProcess
from tests.helpers.launch.plans import (
    BATCH,
    BLOCKED_S,
    HIGH,
    LOW,
    Run,
    Telling,
    answering,
    fly,
    least_blocked_s,
    said,
    step,
)
from tests.helpers.stream.policies import image, policy

UPPER = ((LOW, (LOW + HIGH) / 2), (LOW, HIGH))


def reasons(run, source):
    return [decision["reason"] for decision in run.decisions if decision["source"] == source]


def test_a_held_scan_measures_nothing_until_it_is_resumed():
    run, held = Run(), []
    with answering() as address:
        run.when("person", lambda: said(address, "resume", by="page"))
        detector = Telling({4: lambda: held.append(said(address, "hold"))})
        run(step(address, detector))
    assert run.exit_status == ["success"]
    assert reasons(run, "person") == ["held by lab", "resumed by page"]
    assert run.story[: 2 + BATCH + 1] == ["agent", *["point"] * BATCH, "person", "person"]
    assert len(run.points) == 60
    assert held[0].steering.held
    assert held[0].steering.plan == "running"


def test_a_scan_that_is_held_too_long_ends_cleanly():
    run = Run()
    with answering() as address:
        run(step(address, Telling({4: lambda: said(address, "hold")}), hold_s=0.3))
    assert run.exit_status == ["success"]
    assert len(run.points) == BATCH
    assert reasons(run, "end") == ["held for 0.3 s and nobody resumed"]


def test_a_hold_outlives_the_policy_process_that_heard_it():
    run, anew = Run(), threading.Event()

    def resume():
        anew.set()
        for _ in range(500):  # until the plan has asked the new process, which then knows of the hold
            try:
                return said(address, "resume", by="page")
            except ProtocolError:
                threading.Event().wait(0.02)

    with answering(anew=anew) as address:
        run.when("person", resume)
        run(step(address, Telling({4: lambda: said(address, "hold")})))
    assert run.exit_status == ["success"]
    assert reasons(run, "person") == ["held by lab", "resumed by page"]
    assert len(run.points) == 60


def test_a_hold_is_kept_when_the_policy_dies_and_the_run_says_so():
    run = Run()

    def dies(turn, consult, reply):
        return None if consult.held else reply

    with answering(dies) as address:
        plan = step(address, Telling({4: lambda: said(address, "hold")}), hold_s=2.0, stale_after=1.2)
        run(plan)
    assert run.exit_status == ["success"]
    assert len(run.points) == BATCH
    assert reasons(run, "person") == ["held by lab", "still held: nothing of the policy for 1.2 s"]
    assert run.story[-1] == "end"


def test_the_run_engine_can_be_paused_and_stopped_while_a_scan_is_held():
    run = Run()
    with answering() as address:
        run.when("person", lambda: run.engine.request_pause(defer=True))
        with pytest.raises(RunEngineInterrupted):
            run(step(address, Telling({4: lambda: said(address, "hold")})))
        run.when("person", lambda: None)
        threading.Thread(target=said, args=(address, "resume")).start()
        run.engine.resume()
    assert run.exit_status == ["success"]
    assert len(run.points) == 60


@pytest.mark.parametrize("by", ["lab", ""])
def test_a_stopped_scan_ends_cleanly_after_its_batch_and_says_who_stopped_it(by):
    run = Run()
    with answering() as address:
        run(step(address, Telling({BATCH + 2: lambda: said(address, "stop", by=by)})))
    assert run.exit_status == ["success"]
    assert len(run.points) == 2 * BATCH
    assert run.decisions[-1]["source"] == "end"
    assert run.decisions[-1]["reason"] == ("stopped by a person (lab)" if by else "stopped by a person")


def test_within_a_region_everything_is_measured_and_outside_nothing():
    steers, run = policy(), Run()
    steers.look(image())
    with answering(steers=steers) as address:
        run(step(address, Telling({4: lambda: said(address, "region", UPPER)}), max_points=80))
    assert run.exit_status == ["success"]
    inside, y = run.points[BATCH:], UPPER[0]
    assert ((inside[:, 0] >= y[0]) & (inside[:, 0] <= y[1])).all()
    assert len(inside) == 80 - BATCH
    assert reasons(run, "person")[0].startswith("region y (")


def test_a_region_holds_for_the_planned_pattern_too_and_is_cleared_again():
    run, regions = Run(), []

    def dies(turn, consult, reply):
        regions.append(consult.region)
        return None if consult.heard == 3 else reply

    with answering(dies) as address:
        talk = {
            2: lambda: said(address, "region", UPPER),
            BATCH + 1: lambda: said(address, "clear"),
            2 * BATCH + 1: lambda: said(address, "region", UPPER),
        }
        run(step(address, Telling(talk), max_points=None, wait_s=0.3))
    planned = [d for d in run.decisions if d["source"] == "planned"]
    n_planned = sum(decision["n_points"] for decision in planned)
    assert n_planned
    assert (run.points[-n_planned:, 0] <= UPPER[0][1]).all()
    assert None in regions[regions.index(UPPER) :]
    assert run.exit_status == ["success"]


def test_flown_too_a_person_is_obeyed_between_batches():
    run = Run()
    with answering() as address:
        run.when("agent", lambda: said(address, "hold"))
        run.when("person", lambda: said(address, "stop"))
        flown = fly(run, address)
    assert run.exit_status == ["success"]
    assert len(flown) % 12 == 0
    assert len(flown) < 60
    assert reasons(run, "person") == ["held by lab", "stopped by lab"]
    assert reasons(run, "end") == ["stopped by a person (lab)"]


def test_in_process_a_person_is_heard_as_well():
    run, advisor = Run(), InProcess(policy())
    talk = {2: lambda: advisor.say("region", UPPER, "console"), BATCH + 2: lambda: advisor.say("stop")}
    run(step(advisor, Telling(talk), wait_s=5.0))
    assert (run.points[BATCH:, 0] <= UPPER[0][1]).all()
    assert reasons(run, "person") == [f"region y {UPPER[0]}, x {UPPER[1]} by console", "stopped by a person"]
    assert run.exit_status == ["success"]


def test_who_speaks_when_nobody_listens_is_told_so():
    with answering() as address:
        with pytest.raises(ProtocolError, match="hold: no plan is being steered"):
            said(address, "hold")
        run = Run()
        far = ((HIGH + 5, HIGH + 6), (LOW, HIGH))
        refused = []

        def speak():
            for region in (far, None):
                with pytest.raises(ProtocolError) as error:
                    said(address, "region", region)
                refused.append(str(error.value))

        run(step(address, Telling({2: speak}), max_points=BATCH))
        assert "no place to measure" in refused[0]
        assert refused[1].startswith("region: expected")
        with pytest.raises(ProtocolError, match="no plan is being steered"):
            said(address, "resume")
    with pytest.raises(TimeoutError, match=r"nobody has answered at tcp://127\.0\.0\.1:9"):
        SteeringClient("tcp://127.0.0.1:9", timeout_s=0.05).report()


def test_the_loop_is_not_blocked_while_persons_talk():
    def talking():
        run = Run()
        with answering() as address:
            run.when("person", lambda: said(address, "resume"))
            run(step(address, Telling({4: lambda: said(address, "hold")})))
        return run

    assert least_blocked_s(talking) <= BLOCKED_S
