import sys

import numpy as np
import pytest
import torch

from operators.network.openvino import CompiledLayers, compile_layers, has_openvino
from operators.network.physics_net import PhysicsNet
from operators.network.predictor import Predictor, rounding_error
from tests.helpers.operators.networks import PROBE, some_network, some_patterns

pytestmark = pytest.mark.skipif(not has_openvino(), reason="comes with the extra `fast`")


@pytest.fixture
def ready() -> PhysicsNet:
    """A network as a predictor prepares it."""
    network = some_network()
    network.optimise_for_inference(torch.float32)
    return network


@torch.inference_mode()
@pytest.mark.parametrize("n_frames", [1, 3, 8])
@pytest.mark.parametrize("stage", [0, 1])
def test_a_graph_gives_what_the_layers_give(ready: PhysicsNet, stage: int, n_frames: int) -> None:
    unet = ready.stages[stage]
    inputs = torch.randn(n_frames, unet.n_inputs, 20, 20)
    for graph, layers in zip(CompiledLayers(unet)(inputs), unet(inputs), strict=True):
        assert layers.std() > 0
        torch.testing.assert_close(graph, layers, rtol=1e-4, atol=1e-5 * float(layers.abs().max()))


def test_nobody_is_told_that_openvino_is_used(ready: PhysicsNet) -> None:
    CompiledLayers(ready.stages[0])
    assert sys.modules["openvino"]
    assert sys.modules["openvino_telemetry"] is None


def test_all_layers_of_a_network_become_graphs(ready: PhysicsNet) -> None:
    compile_layers(ready)
    assert all(isinstance(layers, CompiledLayers) for layers in (*ready.stages, ready.sigma_head))


def test_a_predictor_on_one_thread_gives_the_same_with_openvino_and_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    forward, runs = CompiledLayers.forward, []

    def counted(graph: CompiledLayers, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        runs.append(graph)
        return forward(graph, x)

    monkeypatch.setattr(CompiledLayers, "forward", counted)
    network, patterns = some_network(), some_patterns()
    with_graphs = Predictor(network, PROBE, batch_size=4)
    assert rounding_error(network, with_graphs, PROBE) < 1e-4
    results = with_graphs.predict(patterns)
    assert len(set(runs)) == len(network.stages) + 1, "and what tells sigma"
    runs.clear()
    without = Predictor(network, PROBE, batch_size=4, openvino=False).predict(patterns)
    assert not runs
    for one, other in zip(results, without, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_a_layer_that_a_graph_does_not_know_is_named(ready: PhysicsNet) -> None:
    ready.stages[0].down[0][2] = torch.nn.GELU()
    with pytest.raises(TypeError, match="GELU"):
        CompiledLayers(ready.stages[0])
