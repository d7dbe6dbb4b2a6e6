"""Learn the sample while it is scanned: labels from refined ground, and old samples beside them.

Labels come from refinement. A loss on the patterns alone needs none, and makes the network worse: it walks
down the null space of a single pattern. Old samples are replayed from the simulator that the weights were
trained with, so that what was learned is not forgotten.
"""

import copy
import math
from typing import NamedTuple

import torch
from torch import Tensor

from launch.config.sections import FinetuneConfig
from launch.training.data import Samples, Simulator, oriented
from launch.training.descent import descend
from launch.training.recipe import Recipe
from operators.network.interface import Illumination, Network, illuminate, joined
from operators.network.losses import squared_error, variation

REPLAYED_TEXTURES = 100  # and probes: enough to learn none by heart in minutes, drawn in seconds
N_REHEARSED = 64  # old samples that forgetting is measured on, of as many textures
ORIENTATIONS = 8
BATCH_SIZE = 16  # samples per step, those replayed included
AVERAGED_STEPS = 25.0  # the learning rate does not fall, since the end is not known: the weights are averaged
# Added to the recipe's own seed, from which training draws.
_REPLAYED_SEED, _REHEARSED_SEED = 2**31, 2**31 + 2**30


class LabelledPatterns(NamedTuple):
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


class Tuner:
    """A copy of a network that learns on.

    Parameters
    ----------
    network : Network
        As trained; it stays as it is.
    recipe : Recipe
        That trained it: what is replayed.
    probe : (mode, y, x) complex64
        Of the scan.
    config : FinetuneConfig
    before : Network, optional
        What forgetting is counted from where learning began earlier; `network` itself unless given.

    Attributes
    ----------
    network : Network
        What has been learned so far.
    n_steps : int
    """

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        probe: Tensor,
        config: FinetuneConfig,
        before: Network | None = None,
    ) -> None:
        self.config, self.n_steps = config, 0
        # Labels are complex, and a CPU is slow at half precision, whatever the training had.
        self._recipe = recipe.model_copy(update={"loss": "complex", "bfloat16": False})
        # Statistics of the batch normalisation stay: a scan has too few frames to know better.
        self._before = copy.deepcopy(network if before is None else before).eval()
        self.network = copy.deepcopy(network).eval()
        self._learning = copy.deepcopy(network).eval()
        self._optimiser = torch.optim.Adam(self._learning.parameters(), lr=config.learning_rate)
        self._generator = torch.Generator().manual_seed(0)
        self._illuminations = illuminate(torch.stack([turned(probe, way) for way in range(ORIENTATIONS)]))
        self._simulator = _simulator(recipe, REPLAYED_TEXTURES, _REPLAYED_SEED)
        # Of textures that are never replayed: on those that are, less is seen to be forgotten.
        rehearsed = _simulator(recipe, N_REHEARSED, _REHEARSED_SEED).draw(N_REHEARSED, self._generator)
        objects, intensities, self._rehearsed_with = rehearsed
        self._rehearsed = LabelledPatterns(intensities, objects)
        self._error_before = self._rehearsal_error(self._before)

    def step(self, samples: LabelledPatterns) -> None:
        """Learn from one batch: some of `samples`, in one of eight orientations, and some old ones."""
        descend(self._recipe, self._learning, self._optimiser, self._batch(samples))
        self.n_steps += 1
        self._average()

    def error(self, network: Network, samples: LabelledPatterns) -> float:
        """Return the error `c` of a network on samples of the scan: 1 is that of the best constants."""
        return _error(network, samples, self._illuminations.of(slice(1)))

    def blended(self, share: float) -> Network:
        """Return a network with this share of what was learned: weights between those before and now.

        Between the two, what was known before comes back faster than what was learned goes (Wortsman et al.,
        CVPR 2022).
        """
        network = copy.deepcopy(self._before)
        with torch.no_grad():
            for mean, learned in zip(network.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(learned, share)
        return network

    def forgotten(self, network: Network) -> float:
        """Return by what share the error of `network` on old samples exceeds that before all learning."""
        return self._rehearsal_error(network) / self._error_before - 1

    def _rehearsal_error(self, network: Network) -> float:
        return _error(network, self._rehearsed, self._rehearsed_with)

    def _batch(self, samples: LabelledPatterns) -> Samples:
        n_old = round(self.config.replayed * BATCH_SIZE)
        n_new = BATCH_SIZE - n_old
        which = torch.randint(len(samples.objects), (n_new,), generator=self._generator)
        orientation = int(torch.randint(ORIENTATIONS, (), generator=self._generator))
        new = self._illuminations.of(torch.full((n_new,), orientation))
        intensities = turned(samples.intensities[which], orientation, is_corner_origin=True)
        objects = turned(samples.objects[which], orientation)
        if not n_old:  # some FFTs refuse an empty batch
            return objects, intensities, new
        old_objects, old_intensities, old = self._simulator.draw(n_old, self._generator)
        return torch.cat([objects, old_objects]), torch.cat([intensities, old_intensities]), joined(new, old)

    @torch.no_grad()
    def _average(self) -> None:
        share = max(1 / self.n_steps, 1 / AVERAGED_STEPS)
        for mean, newest in zip(self.network.parameters(), self._learning.parameters(), strict=True):
            mean.lerp_(newest, share)


def _simulator(recipe: Recipe, at_most: int, seed: int) -> Simulator:
    """Return what draws old samples, of at most this many textures and probes, other than the training's."""
    probe = recipe.probe.model_copy(update={"n_probes": min(recipe.probe.n_probes, at_most)})
    fewer = {"n_textures": min(recipe.n_textures, at_most), "probe": probe, "seed": recipe.seed + seed}
    return Simulator(recipe.model_copy(update=fewer))


def turned(x: Tensor, orientation: int, *, is_corner_origin: bool = False) -> Tensor:
    """Return `x` in one of the eight orientations of a square, over its last two axes."""
    flips = [torch.tensor(bool(orientation & bit)) for bit in (1, 2, 4)]
    return oriented(x, flips, is_corner_origin=is_corner_origin)


@torch.no_grad()
def _error(
    network: Network, samples: LabelledPatterns, illumination: Illumination, batch_size: int = 16
) -> float:
    total = 0.0
    weights = illumination.weights
    for start in range(0, len(samples.objects), batch_size):
        part = slice(start, start + batch_size)
        single = len(weights) == 1
        with_part = illumination if single else illumination.of(part)
        objects = samples.objects[part]
        patches = network(samples.intensities[part], with_part).patches
        total += float(squared_error(patches, objects, weights if single else weights[part])) * len(objects)
    return math.sqrt(total / len(samples.objects) / float(variation(samples.objects, weights)))
