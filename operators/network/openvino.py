"""The layers of the default network as OpenVINO graphs: the same numbers on a CPU in less time.

It copies the layers of `operators.network.physics_net` one by one; tests hold both to the same result.
"""

import functools
import importlib
import importlib.util
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from operators.network.interface import Network
from operators.network.physics_net import PhysicsNet, UNet

Node = Any  # of an OpenVINO graph


def has_openvino() -> bool:
    """Return whether OpenVINO is installed; nothing is imported."""
    return importlib.util.find_spec("openvino") is not None


def compile_layers(network: Network) -> None:
    """Replace the layers of a network, prepared for inference in single precision, by graphs, for good."""
    if isinstance(network, PhysicsNet):
        network.stages = nn.ModuleList(CompiledLayers(unet) for unet in network.stages)
        network.sigma_head = CompiledLayers(network.sigma_head)


class CompiledLayers(nn.Module):
    """Layers as a graph, on one thread.

    What a call returns is overwritten by the next one.

    Parameters
    ----------
    layers : nn.Module
        A U-Net, or layers one after the other; norms are folded into the convolutions.
    """

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": 1,
            "INFERENCE_PRECISION_HINT": "f32",  # processors that have bfloat16 would take it unasked
            "ENABLE_CPU_PINNING": False,  # other stages share the cores
        }
        graph = _graph_of(layers)
        self._run = _openvino().Core().compile_model(graph, "CPU", settings).create_infer_request()
        self._n_outputs = len(graph.outputs)

    def forward(self, x: Tensor) -> Any:
        """Return what the layers do, a tensor or a tuple of them."""
        found = self._run.infer([x.contiguous().numpy()], share_inputs=True, share_outputs=True)
        results = tuple(torch.from_numpy(found[i]) for i in range(self._n_outputs))
        return results if self._n_outputs > 1 else results[0]


def _graph_of(layers: nn.Module) -> Any:
    if isinstance(layers, UNet):
        return _graph_of_unet(layers)
    first = next(layer for layer in layers.children() if isinstance(layer, nn.Conv2d))
    inputs = _opset().parameter([-1, first.in_channels, -1, -1], np.float32)
    return _openvino().Model([_layers(layers, inputs)], [inputs])


def _graph_of_unet(unet: UNet) -> Any:
    opset = _opset()
    x = inputs = opset.parameter([-1, unet.n_inputs, -1, -1], np.float32)
    skips = []
    for level, block in enumerate(unet.down):
        x = _layers(block, x if level == 0 else _halved(x))
        skips.append(x)
    for lift, block, skip in zip(unet.lift, unet.up, skips[-2::-1], strict=True):
        x = _layers(block, opset.add(_doubled(_layer(lift, x)), skip))
    return _openvino().Model([_layer(unet.head, x), x], [inputs])


def _layers(block: nn.Module, x: Node) -> Node:
    return functools.reduce(lambda x, layer: _layer(layer, x), block.children(), x)


def _layer(layer: nn.Module, x: Node) -> Node:
    match layer:
        case nn.Identity():  # where a norm was
            return x
        case nn.ReLU():
            return _opset().relu(x)
        case nn.Conv2d():
            padding, one = list(layer.padding), [1, 1]
            x = _opset().convolution(x, _values(layer.weight), one, padding, padding, one)
            return x if layer.bias is None else _opset().add(x, _values(layer.bias)[None, :, None, None])
    raise TypeError(f"a U-Net has no layer {layer}")


def _halved(x: Node) -> Node:
    none = [0, 0]
    return _opset().max_pool(x, [2, 2], [1, 1], none, none, [2, 2]).output(0)


def _doubled(x: Node) -> Node:
    scales, axes = np.array([2, 2], np.float32), np.array([2, 3], np.int64)
    mode = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    return _opset().interpolate(x, scales, shape_calculation_mode="scales", axes=axes, **mode)


def _values(parameter: Tensor) -> np.ndarray:
    return parameter.detach().contiguous().numpy()


def _openvino() -> Any:
    # Its telemetry, which would tell its makers of every import, is taken for not installed.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return importlib.import_module("openvino")


def _opset() -> Any:
    _openvino()
    return importlib.import_module("openvino.opset13")
