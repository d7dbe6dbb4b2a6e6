import pytest

from launch.config.config import DEMO_WEIGHTS, FAST_WEIGHTS, config_hash
from launch.run import network_choice
from launch.run.network_choice import for_the_rate, n_at_once, sustained_hz
from stream.stages.config import NetworkConfig
from tests.helpers.launch.runs import TRAINED_PROBE, make_config


@pytest.fixture
def here(monkeypatch):
    """What the network does on the computer of the test, frames a second; and which weights were tried."""
    tried = []

    def does(section, n_pixels):
        tried.append(section.weights)
        return 400.0

    monkeypatch.setattr(network_choice, "sustained_hz", does)
    return tried


def config_for(folder, rate_hz, **network):
    detector = {"address": "tcp://127.0.0.1:31001", "rate_hz": rate_hz}
    return make_config(folder, detector=detector, network={"weights": "demo", **network}, probe=TRAINED_PROBE)


def test_a_rate_that_the_network_does_not_keep_up_with_brings_its_fast_variant(tmp_path, here):
    config, why = for_the_rate(config_for(tmp_path, 1000))
    assert config.network.weights == FAST_WEIGHTS
    assert why == (
        "physics-64-fast instead of physics-64, which does 400 frames a second here: 1000 are expected "
        "(detector.rate_hz)"
    )
    assert for_the_rate(config) == (config, ""), "it is chosen once"
    assert here == [DEMO_WEIGHTS]


@pytest.mark.parametrize(
    ("rate_hz", "network", "n_tried"),
    [
        (260, {}, 1),
        (100, {}, 0),
        (None, {}, 0),
        (1000, {"fast_weights": None}, 0),
        (1000, {"disagreement": "ensemble", "members": [DEMO_WEIGHTS]}, 0),
        (1000, {"weights": DEMO_WEIGHTS}, 0),
    ],
    ids=["keeps up", "calm", "unknown rate", "not wanted", "members of one kind", "a file of one's own"],
)
def test_otherwise_the_network_stays(tmp_path, here, rate_hz, network, n_tried):
    config = config_for(tmp_path, rate_hz, **network)
    assert for_the_rate(config) == (config, "")
    assert len(here) == n_tried


@pytest.mark.parametrize(
    ("settings", "n"),
    [
        ({}, 1),
        ({"workers": 3}, 3),
        ({"workers": 9}, 4),
        ({"workers": 3, "threads": 2}, 2),
        ({"workers": 4, "devices": ["cuda:0", "cuda:1"]}, 2),
        ({"workers": 4, "device": "cuda"}, 1),
    ],
)
def test_workers_count_as_far_as_they_have_cores_or_devices_of_their_own(settings, n):
    assert n_at_once(NetworkConfig(**settings), n_cores=4) == n


def test_the_hash_is_that_of_the_network_that_was_taken(tmp_path, here):
    chosen, _ = for_the_rate(config_for(tmp_path, 1000))
    plain = config_for(tmp_path, None, weights="demo-fast")
    assert config_hash(chosen) == config_hash(plain) != config_hash(config_for(tmp_path, 1000))


def test_what_a_network_does_here_is_tried_by_a_process_of_its_own(tmp_path):
    rate = sustained_hz(NetworkConfig(weights=FAST_WEIGHTS, device="cpu"), 64)
    assert rate is not None
    assert 10 < rate < 1e5
    assert sustained_hz(NetworkConfig(weights=FAST_WEIGHTS, device="cpu"), 32) is None, "another size"
