"""What an interrupted training goes on from, and what it has reported so far."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from launch.training.recipe import Recipe
from operators.network.interface import Network
from stream.atomic import replacing


class TrainingReport(NamedTuple):
    """What is logged: `c` of the training patches and the sigma loss, means since the report before."""

    step: int
    learning_rate: float
    c: float
    sigma_loss: float


class Checkpoint:
    """Everything that a training needs to go on as if it had not been interrupted.

    Parameters
    ----------
    directory : Path
        Receives NAME.checkpoint, a safetensors file like the weights.
    recipe, network, optimiser, generator
        What is saved, and loaded in place.
    """

    def __init__(
        self,
        directory: Path,
        recipe: Recipe,
        network: Network,
        optimiser: torch.optim.Optimizer,
        generator: torch.Generator,
    ) -> None:
        self.path, self.recipe = directory / f"{recipe.name}.checkpoint", recipe
        self._network, self._optimiser, self._generator = network, optimiser, generator

    def save(self, reports: list[TrainingReport]) -> None:
        """Replace the checkpoint in one step."""
        tensors = {f"network.{name}": tensor for name, tensor in self._network.state_dict().items()}
        for index, moments in self._optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": tensor for name, tensor in moments.items()}
        tensors["generator"] = self._generator.get_state()
        metadata = {"recipe": self.recipe.model_dump_json(), "reports": json.dumps(reports)}
        with replacing(self.path) as partial:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial, metadata)

    def load(self) -> list[TrainingReport]:
        """Restore the state and return the reports so far; none where there is no checkpoint."""
        if not self.path.exists():
            return []
        with safe_open(self.path, framework="pt") as file:
            tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
        if metadata["recipe"] != self.recipe.model_dump_json():
            raise ValueError(
                f"{self.path} belongs to another recipe; finish that one, or delete it to start afresh"
            )
        reports = [TrainingReport(*report) for report in json.loads(metadata["reports"])]
        self._restore_generator(tensors.pop("generator"), reports[-1].step)
        parts: dict[str, dict[str, Any]] = {"network": {}, "optimiser": {}}
        for name, tensor in tensors.items():
            part, _, key = name.partition(".")
            parts[part][key] = tensor
        self._network.load_state_dict(parts["network"])
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in parts["optimiser"].items():
            index, _, name = key.partition(".")
            state.setdefault(int(index), {})[name] = tensor
        self._optimiser.load_state_dict(self._optimiser.state_dict() | {"state": state})
        return reports

    def _restore_generator(self, state: Tensor, step: int) -> None:
        """Go on with the samples that would have come; on another kind of device, with others."""
        if state.shape == self._generator.get_state().shape:
            self._generator.set_state(state)
        else:
            self._generator.manual_seed(self.recipe.seed + step)
