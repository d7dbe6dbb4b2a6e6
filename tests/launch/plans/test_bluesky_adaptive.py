"""The policy as an optimizer of bluesky_adaptive: its plan and its acquisition, our suggestions."""

import numpy as np
import pytest

pytest.importorskip("bluesky_adaptive", reason="the extra 'dev' is not installed")

from bluesky_adaptive.plans import optimize
from bluesky_adaptive.protocols import OptimizationProblem, Optimizer, SupportsStoppingCriteria

from tests.helpers.launch.plans import HIGH, LOW, Detector, Motor, Run
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
    assert isinstance(policy(), Optimizer)
    assert isinstance(policy(), SupportsStoppingCriteria)


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
