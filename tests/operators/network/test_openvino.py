import sys

import numpy as np
import pytest
import torch

from operators.network import openvino, predictor
from operators.network.literature_nets import PtychoNN
from operators.network.openvino import CompiledStage, compile_layers, has_fast_bfloat16, has_openvino
from operators.network.physics_net import N_INPUTS, PhysicsNet
from operators.network.predictor import Predictor, rounding_error
from tests.helpers.operators.networks import PROBE, some_network, some_patterns

pytestmark = pytest.mark.skipif(not has_openvino(), reason="comes with the extra `fast`")


@pytest.fixture
def ready() -> PhysicsNet:
    """A network as a predictor prepares it."""
    network = some_network()
    network.optimise_for_inference(torch.float32)
    return network


def inputs_of(network: PhysicsNet, stage: int, n_frames: int) -> list[torch.Tensor]:
    """Return planes, and features for a stage that has one before it."""
    planes = torch.randn(n_frames, N_INPUTS, 40, 40)
    return [planes, torch.randn(n_frames, network.config.widths[0], 20, 20)][: 1 + stage]


@torch.inference_mode()
@pytest.mark.parametrize("n_frames", [1, 3, 8])
@pytest.mark.parametrize("stage", [0, 1])
def test_a_graph_gives_what_the_layers_give(ready: PhysicsNet, stage: int, n_frames: int) -> None:
    inputs = inputs_of(ready, stage, n_frames)
    graph = CompiledStage(ready, stage)
    for found, expected in zip(graph(*inputs), ready.layers(stage, *inputs), strict=True):
        assert expected.std() > 0
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@torch.inference_mode()
@pytest.mark.parametrize("stage", [0, 1])
def test_a_graph_in_bfloat16_gives_nearly_the_same(ready: PhysicsNet, stage: int) -> None:
    if not has_fast_bfloat16():
        pytest.skip("this processor has no bfloat16")
    inputs = inputs_of(ready, stage, 8)
    graph = CompiledStage(ready, stage, torch.bfloat16)
    for found, expected in zip(graph(*inputs), ready.layers(stage, *inputs), strict=True):
        assert 0 < (found - expected).std() < 0.02 * expected.std()


def test_nobody_is_told_that_openvino_is_used(ready: PhysicsNet) -> None:
    CompiledStage(ready, 0)
    assert sys.modules["openvino"]
    assert sys.modules["openvino_telemetry"] is None


def test_other_networks_keep_their_layers() -> None:
    network = PtychoNN()
    compile_layers(network)
    assert not any(isinstance(it, CompiledStage) for it in vars(network).values())


def counted_runs(monkeypatch: pytest.MonkeyPatch) -> list[CompiledStage]:
    """Return a list to which every graph of a network on one thread is added that runs."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    call, runs = CompiledStage.__call__, []

    def counted(graph: CompiledStage, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        runs.append(graph)
        return call(graph, *inputs)

    monkeypatch.setattr(CompiledStage, "__call__", counted)
    return runs


def test_a_predictor_on_one_thread_gives_the_same_with_openvino_and_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = counted_runs(monkeypatch)
    network, patterns = some_network(), some_patterns()
    with_graphs = Predictor(network, PROBE, batch_size=4, dtype=torch.float32)
    assert rounding_error(network, with_graphs, PROBE) < 1e-4
    results = with_graphs.predict(patterns)
    assert len(set(runs)) == len(network.stages)
    runs.clear()
    without = Predictor(network, PROBE, batch_size=4, openvino=False).predict(patterns)
    assert not runs
    for one, other in zip(results, without, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("has_bfloat16", "n_stages", "asked_for"),
    [(True, 1, torch.bfloat16), (True, 2, torch.float32), (False, 1, torch.float32)],
)
def test_bfloat16_is_taken_where_the_processor_has_it_and_the_image_is_no_worse(
    monkeypatch: pytest.MonkeyPatch, has_bfloat16: bool, n_stages: int, asked_for: torch.dtype
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(openvino, "has_fast_bfloat16", lambda: has_bfloat16)
    dtypes: list[torch.dtype] = []
    monkeypatch.setattr(predictor, "compile_layers", lambda network, dtype: dtypes.append(dtype))
    network = PhysicsNet(widths=(8, 16), n_stages=n_stages).eval()
    network.largest_intensity.fill_(1.0)
    Predictor(network, PROBE)
    Predictor(network, PROBE, dtype=torch.float32)
    assert dtypes == [asked_for, torch.float32], "unless single precision is asked for"


def test_a_layer_that_a_graph_does_not_know_is_named(ready: PhysicsNet) -> None:
    ready.stages[0].down[0][2] = torch.nn.GELU()
    with pytest.raises(TypeError, match="GELU"):
        CompiledStage(ready, 0)
