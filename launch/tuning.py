"""Learn the sample while it is scanned: patterns with labels from refined ground, and old samples beside them.

Separate from the stage (`launch.finetune`) because this is the learning alone: no scan, no file, no clock.
Labels come from refinement. A loss on the patterns alone needs none, and makes the network worse: it walks
down the null space of a single pattern. Old samples are replayed from the simulator that the weights were
trained with, so that what was learned is not forgotten.
"""

import copy
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from launch.recipe import Recipe
from launch.train import Simulator, sigma_nll, squared_error, variation
from operators.network import Illumination, PhysicsNet, illuminate

REPLAYED_TEXTURES = 100  # enough that none is learned by heart in minutes, drawn in seconds
N_REHEARSED = 96  # old samples that forgetting is measured on
_SEED_OFFSET = 2**31  # training draws from the recipe's own seed


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningConfig:
    """How a network learns from a scan.

    Parameters
    ----------
    batch_size : int
        Samples per step, those replayed included.
    replayed : float
        Share of old samples in a batch, in [0, 1).
    learning_rate : float
        Of Adam.
    averaging : float
        Steps over which the weights are averaged: steps are full to the end, since the end is not known.
    seed : int
        Of the choice of samples.
    """

    batch_size: int = 16
    replayed: float = 0.5
    learning_rate: float = 1e-3
    averaging: float = 25.0
    seed: int = 0


class Samples(NamedTuple):
    """Patterns with labels.

    Attributes
    ----------
    intensities : (frame, ky, kx) float32, shares of the incident flux
        Corner-origin.
    objects : (frame, y, x) complex64
        What is under the probe; the global phase of each is free.
    """

    intensities: Tensor
    objects: Tensor

    def __getitem__(self, which: Tensor) -> "Samples":  # type: ignore[override]
        return Samples(self.intensities[which], self.objects[which])


class Tuner:
    """A copy of a network that learns on.

    Parameters
    ----------
    network : PhysicsNet
        As trained; it stays as it is.
    recipe : Recipe
        That trained it: what is replayed.
    probe : (y, x) complex64
        Of the scan.
    config : TuningConfig
    """

    def __init__(self, network: PhysicsNet, recipe: Recipe, probe: Tensor, config: TuningConfig) -> None:
        self.config = config
        # Statistics of the batch normalisation stay: a scan has too few frames to know better.
        self._learning = copy.deepcopy(network).eval()
        self.network = copy.deepcopy(network).eval()
        self._optimiser = torch.optim.Adam(self._learning.parameters(), lr=config.learning_rate)
        self._generator = torch.Generator().manual_seed(config.seed)
        self._illumination = illuminate(probe)
        fewer = {"n_textures": min(recipe.n_textures, REPLAYED_TEXTURES), "seed": recipe.seed + _SEED_OFFSET}
        self._simulator = Simulator(recipe.model_copy(update=fewer))
        self._rehearsed = self._simulator.draw(N_REHEARSED, self._generator)
        self._error_before = self._rehearsal_error(network)
        self.n_steps = 0

    def step(self, samples: Samples) -> None:
        """Learn from one batch: some of the samples, in random orientations, and some old ones."""
        n_old = round(self.config.replayed * self.config.batch_size)
        new = self._chosen(samples, self.config.batch_size - n_old)
        old = self._simulator.draw(n_old, self._generator)
        objects, intensities, illumination = (
            old if not len(new[0]) else tuple(map(_joined, new, old))  # type: ignore[arg-type]
        )
        prediction = self._learning(intensities, illumination)
        weights = illumination.probe.abs().square()
        recipe = self._simulator.recipe
        loss = squared_error(prediction.patches, objects, weights)
        loss = loss + recipe.draft_weight * sum(
            squared_error(draft, objects, weights) for draft in prediction.drafts
        )
        loss = loss + recipe.sigma_weight * sigma_nll(prediction, objects, weights)
        self._optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._learning.parameters(), recipe.gradient_clip)
        self._optimiser.step()
        self.n_steps += 1
        self._average()

    def error(self, network: PhysicsNet, samples: Samples) -> float:
        """Return the error `c` of a network on samples of the scan: 1 is that of the best constants."""
        return _error(network, *samples, self._illumination)

    def forgotten(self) -> float:
        """Return by what share the error on old samples has grown since the network came here."""
        return self._rehearsal_error(self.network) / self._error_before - 1

    def _rehearsal_error(self, network: PhysicsNet) -> float:
        objects, intensities, illumination = self._rehearsed
        return _error(network, intensities, objects, illumination)

    def _chosen(self, samples: Samples, n: int) -> tuple[Tensor, Tensor, Illumination]:
        which = torch.randint(len(samples.objects), (n,), generator=self._generator)
        orientation = int(torch.randint(8, (), generator=self._generator))
        intensities, objects = samples[which]
        illumination = Illumination(*(part.expand(n, -1, -1) for part in self._illumination))
        turned = Illumination(
            *(
                _turned(part, orientation, in_corner=name == "open_far_field")
                for name, part in zip(Illumination._fields, illumination, strict=True)
            )
        )
        return (
            _turned(objects, orientation),
            _turned(intensities, orientation, in_corner=True),
            turned,
        )

    @torch.no_grad()
    def _average(self) -> None:
        share = max(1 / self.n_steps, 1 / self.config.averaging)
        for mean, newest in zip(self.network.parameters(), self._learning.parameters(), strict=True):
            mean.lerp_(newest, share)
