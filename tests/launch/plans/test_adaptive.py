import numpy as np
import pytest

pytest.importorskip("bluesky", reason="the extra 'beamline' is not installed")

from ophyd_async.core import init_devices
from ophyd_async.sim import SimMotor

from launch.plans.adaptive import adaptive_ptycho
from launch.plans.exposures import Exposures, MaxDose
from tests.helpers.launch.in_process import InProcess
from tests.helpers.launch.plans import BATCH, PLANNED, Detector, Run, answering, fly, respoilt, step
from tests.helpers.stream.policies import AXES, ILLUMINATION, LIMITS, image, policy


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
        *("dose_peak", "shown_predicted_gain", "realised_gain"),
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


def test_a_plan_that_leaves_the_limits_is_refused_before_anything_moves():
    with pytest.raises(ValueError, match=r"planned point 0 at .* outside the limits"):
        Exposures(PLANNED + 1000, LIMITS, None, None)
    with pytest.raises(ValueError, match="expected planned points"):
        Exposures(np.zeros((0, 2)), LIMITS, None, None)
    with pytest.raises(ValueError, match="at least one point per batch"):
        next(step("tcp://127.0.0.1:9", batch=0))
