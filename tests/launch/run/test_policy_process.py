import os
import signal
import time

import numpy as np
import pytest
from pydantic import ValidationError

from launch.config.policy import policy_aims
from launch.config.run_file import ResolvedRun
from launch.run.stages import resolve
from launch.run.supervisor import Supervisor
from stream.steering.policy_client import PolicyClient
from tests.helpers.launch.runs import TRAINED_PROBE, make_config

STEERING = {"enabled": True, "address": "tcp://127.0.0.1:*", "limits": ((0.0, 8.0), (-4.0, 4.0))}
PATIENCE_S = 30.0


def steered_run(save) -> ResolvedRun:
    """A run of nothing but its policy."""
    config = make_config(save, probe=TRAINED_PROBE, policy=STEERING)
    run = resolve(config)
    (spec,) = (spec for spec in run.stages if spec.name == "policy")
    return run.model_copy(update={"stages": (spec.model_copy(update={"after": ()}),)})


def answer(client, measured, supervisor):
    """The next advice; the question is asked again while nobody listens."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        client.ask(measured, 9)
        give_up = time.monotonic() + 1.0
        while time.monotonic() < give_up:
            supervisor.poll(0.02)
            if (advice := client.poll()) is not None:
                return advice
    raise AssertionError(f"no advice: {client.complaint()}")


def test_a_policy_that_is_killed_comes_back_and_its_numbers_go_on(run_folder):
    with Supervisor(steered_run(run_folder), on_notice=lambda *notice: None) as supervisor:
        supervisor.start()
        address = supervisor.address("policy")
        client = PolicyClient(address)
        try:
            first = answer(client, np.zeros((0, 2)), supervisor)
            assert first.points.shape == (9, 2)
            assert first.recommendation.reasons == ("survey: the field has not been seen everywhere",)
            os.kill(supervisor.pid("policy"), signal.SIGKILL)
            while supervisor.n_restarts == 0:
                supervisor.poll(0.02)
            second = answer(client, first.points, supervisor)
        finally:
            client.close()
        assert supervisor.address("policy") == address
    assert second.recommendation.sequence > first.recommendation.sequence
    assert second.recommendation.n_measured == 9
    low, high = np.array(STEERING["limits"]).T
    for advice in (first, second):
        assert (advice.points >= low).all()
        assert (advice.points <= high).all()


def test_a_policy_needs_limits_a_probe_and_a_unit(tmp_path):
    with pytest.raises(ValidationError, match="the policy needs `limits`"):
        make_config(tmp_path, probe=TRAINED_PROBE, policy={"enabled": True})
    with pytest.raises(ValidationError, match="the policy needs a known probe"):
        make_config(tmp_path, policy=STEERING)


def test_a_policy_that_is_told_what_moving_costs_counts_in_pixels(tmp_path):
    moving = {**STEERING, "dwell_s": 0.02, "speed": 50.0}
    config = policy_aims(make_config(tmp_path, probe=TRAINED_PROBE, policy=moving, positions={"unit": "um"}))
    assert config.travel.dwell_s == 0.02
    assert config.travel.speed_px_s * config.axes.geometry.object_pixel_m == pytest.approx(50e-6)
    with pytest.raises(ValidationError, match="`dwell_s` and `speed` together"):
        make_config(tmp_path, probe=TRAINED_PROBE, policy={**STEERING, "speed": 50.0})


def test_the_policy_speaks_the_motors_of_the_configuration(tmp_path):
    positions = {"unit": "mm", "signs": (1, -1), "y": "sy", "x": "sx"}
    region = ((0.001, 0.002), (0.0, 0.001))
    steering = {**STEERING, "max_dose": 1e4, "region": region, "target_rad": 0.1}
    config = policy_aims(make_config(tmp_path, probe=TRAINED_PROBE, policy=steering, positions=positions))
    assert (config.axes.unit, config.axes.signs, config.motors) == ("mm", (1, -1), ("sy", "sx"))
    assert (config.max_dose, config.region, config.target_rad) == (1e4, region, 0.1)
    without = policy_aims(make_config(tmp_path, probe=TRAINED_PROBE, policy=STEERING))
    assert without.max_dose == np.inf
