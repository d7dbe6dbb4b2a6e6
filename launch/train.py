"""Train a network on simulated scans: one loop, read top to bottom.

Objects, probes and photons are drawn on the fly, so nothing is seen twice and nothing lies on disk. A
training is given by its recipe alone: the budget is in steps, not in seconds, and on a CPU the same recipe
gives the same weights. Separate from `launch.evaluate`, which judges the result without torch. Called by
`ptychostream train`.
"""

import csv
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from launch.calibrate import calibrate_mosaic
from launch.evaluate import calibrate_sigma, evaluate, evaluation_probe
from launch.recipe import Recipe
from operators.losses import sigma_nll, squared_error, variation
from operators.network import NETWORKS
from operators.network_interface import Illumination, Network, channels_last, illuminate
from operators.objects import FAMILIES, texture
from operators.predict import Predictor
from stream.weights import ModelCard, save_network

Generator = torch.Generator


class Report(NamedTuple):
    """What is logged: `c` of the training patches and the sigma loss, means since the report before."""

    step: int
    learning_rate: float
    c: float
    sigma_loss: float


def train(
    recipe: Recipe,
    directory: Path,
    *,
    device: str = "cpu",
    on_report: Callable[[Report], None] = lambda report: None,
) -> ModelCard:
    """Train, calibrate and evaluate a network; write weights, card, log and checkpoints to a directory.

    A training that was interrupted goes on from the checkpoint in the directory.

    Parameters
    ----------
    recipe : Recipe
    directory : Path
        Receives NAME.safetensors, NAME.json, NAME.csv and, until the end, NAME.checkpoint.
    device : str
        Where torch works. Only "cpu" with a fixed number of threads repeats to the last bit.
    on_report : callable
        Gets a `Report` every `recipe.report_every` steps, after the checkpoint.
    """
    directory.mkdir(parents=True, exist_ok=True)
    simulator = Simulator(recipe, device)
    network = channels_last(new_network(recipe).to(device)).train()
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=recipe.weight_decay)
    generator = Generator(device).manual_seed(recipe.seed)
    checkpoint = Checkpoint(directory / f"{recipe.name}.checkpoint", recipe, network, optimiser, generator)
    reports = checkpoint.load()
    sums = torch.zeros(3, device=device)
    for step in range(reports[-1].step if reports else 0, recipe.n_steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(recipe, step)
        objects, intensities, illumination = simulator.draw(recipe.batch_size, generator)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=recipe.bfloat16):
            prediction = network(intensities, illumination)
        weights = illumination.probe.abs().square()
        patch_loss = squared_error(prediction.patches, objects, weights)
        draft_loss = sum(squared_error(draft, objects, weights) for draft in prediction.drafts)
        sigma_loss = sigma_nll(prediction, objects, weights)
        optimiser.zero_grad()
        (patch_loss + recipe.draft_weight * draft_loss + recipe.sigma_weight * sigma_loss).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.gradient_clip)
        optimiser.step()
        sums += torch.stack([patch_loss, variation(objects, weights), sigma_loss]).detach()
        if (step + 1) % recipe.report_every == 0 or step + 1 == recipe.n_steps:
            n_steps = step - (reports[-1].step if reports else 0) + 1
            error, variance, nll = sums.tolist()  # the loop's only synchronisation with the device
            reports.append(
                Report(step + 1, learning_rate(recipe, step), math.sqrt(error / variance), nll / n_steps)
            )
            sums.zero_()
            checkpoint.save(reports)
            write_log(directory / f"{recipe.name}.csv", reports)
            on_report(reports[-1])
    card = finish(recipe, network, directory, device)
    checkpoint.delete()
    return card


class Simulator:
    """Draws what a network is trained on: objects, their noisy patterns, and the probes that made them.

    Parameters
    ----------
    recipe : Recipe
        Its textures and probes are made here, from `recipe.seed`.
    device : str
        Where the batches are made.
    """

    def __init__(self, recipe: Recipe, device: str = "cpu") -> None:
        rng = np.random.default_rng(recipe.seed)
        shape = (recipe.texture_px, recipe.texture_px)
        families = [FAMILIES[i % len(FAMILIES)] for i in range(recipe.n_textures)]
        textures = np.stack([texture(family, shape, rng) for family in families])
        probes = np.stack([recipe.probe.random(recipe.n_pixels, rng) for _ in range(recipe.probe.n_probes)])
        self.recipe = recipe
        self.textures = torch.from_numpy(textures).to(device)
        self.probes = illuminate(torch.from_numpy(probes).to(device))

    def draw(self, n_frames: int, generator: Generator) -> tuple[Tensor, Tensor, Illumination]:
        """Return objects (frame, y, x), intensities as shares of the flux, and their illumination."""
        device = self.textures.device
        objects = torch.exp(-self.recipe.material.complex * self._textures(n_frames, generator))
        which = torch.randint(len(self.probes.probe), (n_frames,), generator=generator, device=device)
        illumination = Illumination(*(constant[which] for constant in self.probes))
        low, high = (math.log(photons) for photons in self.recipe.photons_per_frame)
        uniform = torch.rand(n_frames, 1, 1, generator=generator, device=device)
        photons = torch.exp(low + (high - low) * uniform)
        far_field = torch.fft.fft2(illumination.probe * objects, norm="ortho")
        return objects, torch.poisson(far_field.abs().square() * photons, generator) / photons, illumination

    def _textures(self, n_frames: int, generator: Generator) -> Tensor:
        """Return random textures, some of them blended of two."""
        first, second = self._crops(n_frames, generator), self._crops(n_frames, generator)
        choices = torch.stack([torch.maximum(first, second), first * second, (first + second) / 2, first])
        uniform = torch.rand(n_frames, generator=generator, device=first.device)
        kind = torch.where(
            uniform < self.recipe.blended, 3 * uniform / max(self.recipe.blended, 1e-9), 3
        ).long()
        return choices[kind, torch.arange(n_frames, device=first.device)]

    def _crops(self, n_frames: int, generator: Generator) -> Tensor:
        """Return random windows of random textures in one of eight orientations."""
        n_textures, side, _ = self.textures.shape
        n_pixels, device = self.recipe.n_pixels, self.textures.device

        def integers(end: int) -> Tensor:
            return torch.randint(end, (n_frames, 1, 1), generator=generator, device=device)

        steps = torch.arange(n_pixels, device=device)
        rows, columns = (steps if axis else steps[:, None] for axis in (0, 1))
        rows = integers(side - n_pixels + 1) + torch.where(integers(2) == 1, rows.flip(0), rows)
        columns = integers(side - n_pixels + 1) + torch.where(integers(2) == 1, columns.flip(0), columns)
        crops = self.textures[integers(n_textures), rows, columns]
        return torch.where(integers(2) == 1, crops.transpose(1, 2), crops)


class Checkpoint:
    """Everything that a training needs to go on as if it had not been interrupted.

    Parameters
    ----------
    path : Path
        Of a safetensors file, like the weights.
    recipe, network, optimiser, generator
        What is saved, and loaded in place.
    """

    def __init__(
        self,
        path: Path,
        recipe: Recipe,
        network: Network,
        optimiser: torch.optim.Optimizer,
        generator: Generator,
    ) -> None:
        self.path, self.recipe = path, recipe
        self._network, self._optimiser, self._generator = network, optimiser, generator

    def save(self, reports: list[Report]) -> None:
        """Replace the checkpoint in one step."""
        tensors = {f"network.{name}": tensor for name, tensor in self._network.state_dict().items()}
        for index, moments in self._optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": tensor for name, tensor in moments.items()}
        tensors["generator"] = self._generator.get_state()
        metadata = {"recipe": self.recipe.model_dump_json(), "reports": json.dumps(reports)}
        partial = self.path.with_suffix(".partial")
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial, metadata)
        partial.replace(self.path)

    def load(self) -> list[Report]:
        """Restore the state and return the reports so far; none where there is no checkpoint."""
        if not self.path.exists():
            return []
        with safe_open(self.path, framework="pt") as file:
            tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
        if metadata["recipe"] != self.recipe.model_dump_json():
            raise ValueError(
                f"{self.path} belongs to another recipe; finish that one, or delete it to start afresh"
            )
        self._generator.set_state(tensors.pop("generator"))
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
        return [Report(*report) for report in json.loads(metadata["reports"])]

    def delete(self) -> None:
        """Remove the checkpoint: the training is complete."""
        self.path.unlink()


@contextmanager
def progress_bar(recipe: Recipe) -> Iterator[Callable[[Report], None]]:
    """Show a training on the terminal; yields what to give `train` as `on_report`."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task(recipe.name, total=recipe.n_steps)

        def show(report: Report) -> None:
            progress.update(task, completed=report.step, description=f"{recipe.name}  c {report.c:.3f}")

        yield show


def new_network(recipe: Recipe) -> Network:
    """Return the untrained network of a recipe; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return NETWORKS[recipe.network](**recipe.network_config)


def learning_rate(recipe: Recipe, step: int) -> float:
    """Return the rate at a step: a linear rise, then half a cosine down to zero."""
    progress = (step + 1) / recipe.n_steps
    return (
        recipe.learning_rate
        * min(1.0, progress / recipe.warm_up)
        * (0.5 + 0.5 * math.cos(math.pi * progress))
    )


def write_log(path: Path, reports: list[Report]) -> None:
    """Write all reports so far as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([Report._fields, *reports])


def finish(recipe: Recipe, network: Network, directory: Path, device: str) -> ModelCard:
    """Calibrate sigma and the error model of mosaics, measure on held-out objects, and save."""
    network.eval()
    probe = evaluation_probe(recipe)
    network.sigma_scale.fill_(calibrate_sigma(Predictor(network, probe, device=device), recipe))
    metrics = evaluate(Predictor(network, probe, device=device), recipe)
    card = ModelCard(
        name=recipe.name,
        network=recipe.network,
        config=recipe.network_config,
        recipe=recipe.model_dump(mode="json"),
        seed=recipe.seed,
        data=recipe.describe_data(),
        probe=recipe.probe.ranges(),
        photons_per_frame=recipe.photons_per_frame,
        metrics=metrics,
        error_model=asdict(calibrate_mosaic(network, recipe)),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return save_network(directory / f"{recipe.name}.safetensors", network, card)
