"""An agent that asks a policy process: suggestions, failures, the end, and going on after its own death."""

import numpy as np
import pytest

pytest.importorskip("bluesky", reason="the extra 'beamline' is not installed")

from stream.steering.policy_client import PolicyClient
from stream.steering.remote_policy import RemotePolicy
from tests.helpers.launch.plans import answering, said
from tests.helpers.stream.policies import image, policy


def positions(suggestions):
    return [(point["y"], point["x"]) for point in suggestions]


def test_what_is_measured_is_not_suggested_again_and_the_policy_knows_it():
    steers = policy()
    with answering(steers=steers) as address, RemotePolicy(PolicyClient(address)) as agent:
        first = agent.suggest(9)
        agent.ingest([*first[:5], {"y": 3.0, "x": 4.0}])
        second = agent.suggest(9)
        assert agent.should_stop() == (False, "")
        assert agent.get_best_points()[0][:2] == ("5", {"y": 3.0, "x": 4.0})
    assert len(first) == len(second) == 9
    assert not set(positions(first[:5])) & set(positions(second))
    assert steers.measured.tolist() == [*map(list, positions(first[:5])), [3.0, 4.0]]


def test_a_point_that_failed_is_tried_once_more_and_then_left_out():
    with answering() as address, RemotePolicy(PolicyClient(address)) as agent:
        first = agent.suggest(9)
        agent.ingest(first[1:])
        agent.register_failures(first[:1])
        again = agent.suggest(9)
        assert positions(first[:1])[0] in positions(again)
        agent.register_failures([point for point in again if positions([point]) == positions(first[:1])])
        assert positions(first[:1])[0] not in positions(agent.suggest(200))


def test_an_agent_goes_on_where_its_checkpoint_was_written(tmp_path):
    steers, file = policy(), tmp_path / "agent.json"
    with answering(steers=steers) as address:
        agent = RemotePolicy(PolicyClient(address), file=file)
        first = agent.suggest(9)
        agent.ingest(first[:4])
        agent.checkpoint()
        agent._client.close()  # as a process that is killed
        with RemotePolicy(PolicyClient(address), file=file) as other:
            assert other.run == agent.run
            other.ingest(first[4:])  # suggested before, by their `_id`
            assert not set(positions(first)) & set(positions(other.suggest(9)))
    assert steers.n_measured == 9


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    file = tmp_path / "agent.json"
    file.write_text('{"run": 3}')
    with pytest.raises(ValueError, match=r"agent.json is no checkpoint of a policy: .*`\$.run`"):
        RemotePolicy(PolicyClient("tcp://127.0.0.1:9"), file=file)
    with pytest.raises(ValueError, match="expected a `file`"):
        RemotePolicy(PolicyClient("tcp://127.0.0.1:9")).checkpoint()


def test_the_end_is_told_with_its_reason():
    steers = policy(target_rad=0.05)
    for version in range(4):
        steers.look(image(version=version, sigma_rad=0.04))
    with answering(steers=steers) as address, RemotePolicy(PolicyClient(address)) as agent:
        agent.ingest(agent.suggest(1000))
        for version in range(10, 14):
            steers.look(image(version=version, sigma_rad=0.04))
            last = agent.suggest(9)
        assert (last, agent.should_stop()[0]) == ([], True)
        assert "95 % of what matters is known" in agent.should_stop()[1]


def test_an_agent_hears_people():
    with answering() as address, RemotePolicy(PolicyClient(address)) as agent:
        assert agent.suggest(3)
        said(address, "hold")
        assert agent.suggest(3) == []
        assert agent.is_held
        said(address, "stop")
        assert agent.suggest(3) == []
        assert agent.should_stop() == (True, "stopped by lab")


def test_nobody_there_is_said_after_the_longest_wait():
    waited = []
    agent = RemotePolicy(PolicyClient("tcp://127.0.0.1:9"), timeout_s=1.0, wait=waited.append)
    with agent, pytest.raises(TimeoutError, match=r"policy at tcp://127.0.0.1:9: it does not answer"):
        agent.suggest(3)
    assert sum(waited) == pytest.approx(1.0)


def test_a_point_without_place_and_without_known_id_is_refused():
    with RemotePolicy(PolicyClient("tcp://127.0.0.1:9")) as agent:
        for wrong in ({}, {"y": 1.0}, {"_id": "7.1"}):
            with pytest.raises(ValueError, match="expected the positions of 'y' and 'x', or the `_id`"):
                agent.register_failures([wrong])
        with pytest.raises(ValueError, match="finite"):
            agent.ingest([{"y": np.nan, "x": 0.0}])
