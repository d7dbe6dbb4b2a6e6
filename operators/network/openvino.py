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
from operators.network.physics_net import N_INPUTS, PhysicsNet, UNet

Node = Any  # of an OpenVINO graph


def has_openvino() -> bool:
    """Return whether OpenVINO is installed; nothing is imported."""
    return importlib.util.find_spec("openvino") is not None


def has_fast_bfloat16() -> bool:
    """Return whether OpenVINO is installed and this processor multiplies bfloat16 by itself."""
    return has_openvino() and "BF16" in _openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def fast_dtype(network: Network) -> torch.dtype:
    """Return what to multiply in: bfloat16 where it is fast here and makes the image no worse, or float32.

    The image of a network of several stages is up to a fifth worse, that of one stage is not.
    """
    has_one_stage = isinstance(network, PhysicsNet) and len(network.stages) == 1
    return torch.bfloat16 if has_one_stage and has_fast_bfloat16() else torch.float32


def compile_layers(network: Network, dtype: torch.dtype = torch.float32) -> None:
    """Put graphs in place of the layers of a network, prepared for inference in single precision.

    Parameters
    ----------
    network : Network
        Any; those that no graphs are known for stay as they are.
    dtype : torch.dtype
        In which the graphs multiply: float32, or bfloat16: see `fast_dtype`.
    """
    if isinstance(network, PhysicsNet):
        network.graphs = [CompiledStage(network, stage, dtype) for stage in range(len(network.stages))]


class CompiledStage:
    """`PhysicsNet.layers` of one stage as a graph, on one thread.

    What a call returns is overwritten by the next one.

    Parameters
    ----------
    network : PhysicsNet
        Norms are folded into the convolutions.
    stage : int
    dtype : torch.dtype
        As for `compile_layers`.
    """

    def __init__(self, network: PhysicsNet, stage: int, dtype: torch.dtype = torch.float32) -> None:
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": 1,
            "INFERENCE_PRECISION_HINT": "bf16" if dtype == torch.bfloat16 else "f32",
            "ENABLE_CPU_PINNING": False,  # other stages share the cores
        }
        graph = _graph_of(network, stage)
        self._run = _openvino().Core().compile_model(graph, "CPU", settings).create_infer_request()

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return what a stage adds, and what is to be made of its features: see `PhysicsNet.layers`."""
        arrays = [values.contiguous().numpy() for values in inputs]
        for index, array in enumerate(arrays):
            self._run.set_input_tensor(index, _openvino().Tensor(array, shared_memory=True))
        self._run.infer()  # given the arrays, it would take as long to look at them as a frame takes
        residual, features = (torch.from_numpy(self._run.get_output_tensor(i).data) for i in range(2))
        return residual, features


def _graph_of(network: PhysicsNet, stage: int) -> Any:
    opset, n_folded, unet = _opset(), network.config.unshuffle, network.stages[stage]
    assert isinstance(unet, UNet)  # noqa: S101 -- for mypy: of a list of modules
    planes = opset.parameter([-1, N_INPUTS, -1, -1], np.float32)
    inputs, x = [planes], opset.space_to_depth(planes, "depth_first", n_folded)
    if stage > 0:
        inputs.append(opset.parameter([-1, network.config.widths[0], -1, -1], np.float32))
        x = opset.concat([x, inputs[1]], 1)
    residual, features = _unet(unet, x)
    if stage == len(network.stages) - 1:
        features = opset.depth_to_space(_layers(network.sigma_head, features), "depth_first", n_folded)
    residual = opset.depth_to_space(residual, "depth_first", n_folded)
    return _openvino().Model([residual, features], inputs)


def _unet(unet: UNet, x: Node) -> tuple[Node, Node]:
    skips = []
    for level, block in enumerate(unet.down):
        x = _layers(block, x if level == 0 else _halved(x))
        skips.append(x)
    for lift, block, skip in zip(unet.lift, unet.up, skips[-2::-1], strict=True):
        x = _layers(block, _opset().add(_doubled(_layer(lift, x)), skip))
    return _layer(unet.head, x), x


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
