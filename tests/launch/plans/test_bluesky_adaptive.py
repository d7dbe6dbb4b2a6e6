"""The policy as an optimizer of bluesky_adaptive: its plan and its acquisition, our suggestions."""

import numpy as np
import pytest

pytest.importorskip("bluesky_adaptive", reason="the extra 'dev' is not installed")

from bluesky_adaptive.plans import optimize
from bluesky_adaptive.protocols import (
    Checkpointable,
    OptimizationProblem,
    Optimizer,
    SupportsStoppingCriteria,
    TrialFaultAware,
)

from stream.steering.policy_client import PolicyClient
from stream.steering.remote_policy import RemotePolicy
from tests.helpers.launch.plans import HIGH, LOW, Detector, Motor, Run, answering
from tests.helpers.stream.policies import image, policy

N_POINTS = 24


def problem(steers, look):
    """What `optimize` solves; `look` shows the policy what the live image has become."""
    n_batches = iter(range(1000))

    def evaluate(uid, suggestions):
        look(next(n_batches))
        return [{"_id": suggestion["_id"], "is_measured": 1} for suggestion in suggestions]

    return OptimizationProblem(
        optimizer=steers,
        actuators=[Motor("y"), Motor("x")],
        sensors=[Detector()],
        evaluation_function=evaluate,
    )


def measured(run):
    """Points in the runs that `optimize` opened for each batch."""
    events = [data for data in run.events("primary") if "detector" in data]
    return np.array([[data["y"], data["x"]] for data in events])


def test_a_policy_is_what_bluesky_adaptive_calls_an_optimizer():
    for kind in (Optimizer, SupportsStoppingCriteria, TrialFaultAware):
        assert isinstance(policy(), kind)
    assert not isinstance(policy(), Checkpointable)  # the run records every decision of its policy


def test_a_policy_process_is_one_too_and_can_be_gone_on_with():
    with RemotePolicy(PolicyClient("tcp://127.0.0.1:9")) as agent:
        for kind in (Optimizer, SupportsStoppingCriteria, TrialFaultAware, Checkpointable):
            assert isinstance(agent, kind)


@pytest.mark.allow_error_log
def test_optimize_asks_a_policy_process_writes_checkpoints_and_tells_what_failed(tmp_path):
    steers, run, file = policy(), Run(), tmp_path / "agent.json"

    def spoilt(n):
        if n == 2:
            raise OSError("the detector is gone")

    with answering(steers=steers) as address:
        agent = RemotePolicy(PolicyClient(address), file=file)
        with pytest.raises(OSError, match="the detector is gone"):
            run(optimize(problem(agent, spoilt), iterations=4, n_points=6, checkpoint_interval=1))
        with RemotePolicy(PolicyClient(address), file=file) as other:
            assert len(other.measured) == 12
        assert len(agent.failed) == 6
        agent.suggest(1)
        agent.close()
    assert (len(steers.measured), len(steers.failed)) == (12, 6)


@pytest.mark.slow
def test_optimize_measures_what_the_policy_suggests_and_the_policy_knows_it():
    steers, run = policy(), Run()
    run(optimize(problem(steers, lambda n: None), iterations=3, n_points=N_POINTS))
    points = measured(run)
    assert len(points) == 3 * N_POINTS == steers.n_measured
    assert (points >= LOW).all()
    assert (points <= HIGH).all()
    assert sorted(points.tolist()) == sorted(steers.measured.tolist())
    assert len(np.unique(points, axis=0)) == len(points)
    assert set(run.exit_status) == {"success"}


@pytest.mark.slow
def test_optimize_ends_when_the_policy_has_seen_enough():
    steers, run = policy(target_rad=0.05), Run()

    def look(n):
        steers.look(image(version=n, sigma_rad=0.04 if steers.is_surveyed else 0.2))

    run(optimize(problem(steers, look), iterations=None, n_points=N_POINTS))
    assert steers.should_stop()[0]
    assert len(measured(run)) == steers.n_measured
    assert set(run.exit_status) == {"success"}
