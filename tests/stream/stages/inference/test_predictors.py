import re
from pathlib import Path

import numpy as np
import pytest
import torch

from operators.network.ensemble import Ensemble, RoundRobin
from operators.network.interface import Network
from operators.network.openvino import fast_dtype
from operators.network.physics_net import PhysicsNet
from operators.network.predictor import Predictor
from operators.optics.probe import with_power, zone_plate_probe
from stream.files.weights import save_network
from stream.stages.config import NetworkConfig
from stream.stages.inference.predictors import (
    SideBySide,
    build_predictor,
    check_devices,
    torch_device,
    try_out,
)
from tests.helpers.operators.networks import untrained_card

SHAPE = {"n_pixels": 16, "crop": 16, "widths": [8, 8]}
PROBE = with_power(zone_plate_probe(16, 4, 4)[None], 1e4)
CARD = untrained_card(SHAPE)


def network(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    it = PhysicsNet(**SHAPE)
    torch.nn.init.normal_(it.stages[-1].head.weight, std=0.3)
    it.largest_intensity.fill_(1.0)
    return it.eval()


@pytest.fixture
def members(tmp_path: Path) -> tuple[Path, ...]:
    paths = tuple(tmp_path / f"{seed}.safetensors" for seed in (1, 2))
    for seed, path in enumerate(paths, 1):
        save_network(path, network(seed), CARD)
    return paths


@pytest.fixture
def patterns() -> np.ndarray:
    return np.random.default_rng(0).poisson(40.0, (6, 16, 16)).astype(np.float32)


def build(sigma_scale: float = 1.0, **settings):
    it = network()
    it.sigma_scale.fill_(sigma_scale)
    return build_predictor(it, PROBE, NetworkConfig(batch_size=4, **settings), device="cpu")


def test_the_network_alone_is_the_default() -> None:
    assert isinstance(build(), Predictor)


@pytest.mark.parametrize(("sigma_scale", "grows"), [(1e-4, True), (1.0, False)])
def test_dropout_keeps_the_estimate_and_widens_error_bars_that_are_shorter_than_its_spread(
    patterns: np.ndarray, sigma_scale: float, grows: bool
) -> None:
    alone = build(sigma_scale)
    thinned = build(sigma_scale, disagreement="dropout", dropout=0.5, dropout_samples=3)
    np.testing.assert_allclose(thinned.predict(patterns)[0], alone.predict(patterns)[0], atol=1e-5)
    growth = thinned.predict(patterns)[1] / alone.predict(patterns)[1]
    assert growth.min() > 1 - 1e-5
    assert (growth.max() > 1 + 1e-4) == grows


def test_an_ensemble_estimates_with_all_of_its_members(
    members: tuple[Path, ...], patterns: np.ndarray
) -> None:
    ensemble = build(disagreement="ensemble", members=members)
    assert isinstance(ensemble, Ensemble)
    alone = build()
    assert np.abs(ensemble.predict(patterns)[0] - alone.predict(patterns)[0]).max() > 1e-2


def test_members_that_take_turns_each_give_some_patches(
    members: tuple[Path, ...], patterns: np.ndarray
) -> None:
    turns = build(disagreement="round_robin", members=members)
    assert isinstance(turns, RoundRobin)
    turns.warm_up()
    patches = turns.predict(patterns)[0]
    candidates = [Predictor(network(seed), PROBE).predict(patterns)[0] for seed in range(3)]
    errors = np.array([np.abs(patches - candidate).max(axis=(1, 2)) for candidate in candidates])
    assert (errors.min(axis=0) < 1e-5).all()
    assert len(set(errors.argmin(axis=0))) > 1


def test_a_network_is_tried_out_in_a_sentence() -> None:
    said = try_out(network(), PROBE, batch_size=4, device="cpu", threads=1)
    match = re.fullmatch(r"([\d.e+-]+) ms per pattern on cpu, rounding changes patches by (\de-\d+)", said)
    assert match, said
    assert float(match[1]) > 0
    assert 0 < float(match[2]) < (1e-5 if fast_dtype(network()) == torch.float32 else 0.02)


@pytest.mark.parametrize("n_patterns", [1, 5])
def test_a_network_on_several_cores_gives_what_it_gives_on_one(patterns: np.ndarray, n_patterns: int) -> None:
    one, two = build(), build(threads=2)
    assert isinstance(two, SideBySide)
    two.warm_up()
    found, expected = two.predict(patterns[:n_patterns]), one.predict(patterns[:n_patterns])
    for values, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(values, wanted, atol=1e-4 * np.abs(wanted).max())


def test_auto_is_a_gpu_where_there_is_one() -> None:
    assert torch_device("cpu") == "cpu"
    assert torch_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("device", "complaint"),
    [("cuda", "PyTorch sees no CUDA device here, use cpu"), ("banana", "wanted cpu or cuda")],
)
def test_a_device_that_is_not_here_is_refused_in_words(monkeypatch, device, complaint):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"device '{device}': {complaint}"):
        torch_device(device)


def test_a_device_of_a_worker_that_is_not_here_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_devices(NetworkConfig(workers=4, devices=("cuda:1", "cpu", "cuda:0")))
    with pytest.raises(ValueError, match=r"network\.devices: cuda:2: PyTorch sees 2 CUDA devices here"):
        check_devices(NetworkConfig(workers=2, devices=("cpu", "cuda:2")))
