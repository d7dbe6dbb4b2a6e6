"""What a network is trained on: objects, probes and noisy patterns, drawn on the fly.

Nothing is seen twice and nothing lies on disk; the same recipe and generator give the same samples. Separate
from `launch.train`, whose loop only asks for the next batch.
"""

import itertools
import math
import time

import numpy as np
import torch
from torch import Tensor

from launch.recipe import Recipe
from launch.samples import draw_texture
from operators.network_interface import Illumination, illuminate

Generator = torch.Generator


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
        families = itertools.islice(itertools.cycle(recipe.families), recipe.n_textures)
        textures = np.stack([draw_texture(family, shape, rng) for family in families])
        probes = np.stack([recipe.probe.random(recipe.n_pixels, rng) for _ in range(recipe.probe.n_probes)])
        self.recipe = recipe
        self.textures = torch.from_numpy(textures).to(device)
        self.probes = torch.from_numpy(probes).to(device)
        """(probe, mode, y, x) complex64 of unit power, the strongest mode first."""
        self.illuminations = illuminate(self.probes[:, 0])
        """What the network is told of each probe, as `operators.network.Predictor` tells it."""

    def draw(self, n_frames: int, generator: Generator) -> tuple[Tensor, Tensor, Illumination]:
        """Return objects (frame, y, x), intensities as shares of the flux, and their illumination."""
        objects = self._objects(n_frames, generator)
        which = torch.randint(len(self.probes), (n_frames,), generator=generator, device=self.probes.device)
        low, high = (math.log(photons) for photons in self.recipe.photons_per_frame)
        photons = torch.exp(self._uniform((low, high), n_frames, generator))
        far_field = torch.fft.fft2(self.probes[which] * objects[:, None], norm="ortho")
        counts = torch.poisson(torch.view_as_real(far_field).square().sum((1, -1)) * photons, generator)
        illumination = Illumination(*(constant[which] for constant in self.illuminations))
        return objects, counts / photons, illumination

    def _objects(self, n_frames: int, generator: Generator) -> Tensor:
        """Return transmissions of random materials, some with a phase of their own."""
        material = self.recipe.material
        thickness = self._textures(n_frames, generator)
        delay = thickness
        if material.mixed:
            is_mixed = self._uniform((0, 1), n_frames, generator) < material.mixed
            delay = torch.where(is_mixed, self._textures(n_frames, generator), thickness)
        absorption = self._uniform(material.absorption, n_frames, generator)
        phase_shift = self._uniform(material.phase_shift_rad, n_frames, generator)
        return torch.polar(torch.exp(-absorption * thickness), -phase_shift * delay)

    def _uniform(self, bounds: tuple[float, float], n_frames: int, generator: Generator) -> Tensor:
        """Return one number per frame, (frame, 1, 1)."""
        low, high = bounds
        return low + (high - low) * torch.rand(
            n_frames, 1, 1, generator=generator, device=self.textures.device
        )

    def _textures(self, n_frames: int, generator: Generator) -> Tensor:
        """Return random textures, some of them blended of two."""
        first = self._crops(n_frames, generator)
        if not self.recipe.blended:
            return first
        second = self._crops(n_frames, generator)
        choices = torch.stack([torch.maximum(first, second), first * second, (first + second) / 2, first])
        uniform = torch.rand(n_frames, generator=generator, device=first.device)
        kind = torch.where(uniform < self.recipe.blended, 3 * uniform / self.recipe.blended, 3).long()
        return choices[kind, torch.arange(n_frames, device=first.device)]

    def _crops(self, n_frames: int, generator: Generator) -> Tensor:
        """Return random windows of random textures in one of eight orientations."""
        n_pixels = self.recipe.n_pixels
        windows = self.textures.unfold(1, n_pixels, 1).unfold(2, n_pixels, 1)  # a view

        def integers(end: int) -> Tensor:
            return torch.randint(end, (n_frames,), generator=generator, device=self.textures.device)

        crops = windows[*(integers(n_choices) for n_choices in windows.shape[:3])]
        for turn in (lambda x: x.flip(1), lambda x: x.flip(2), lambda x: x.transpose(1, 2)):
            crops = torch.where(integers(2)[:, None, None] == 1, turn(crops), crops)
        return crops


def pairs_per_cpu_s(recipe: Recipe, n_batches: int = 200) -> float:
    """Return how many pairs of object and pattern a `Simulator` draws in a second of one CPU.

    CPU time of this process, of all its threads, textures and probes being there: it holds on a busy machine.
    """
    simulator, generator = Simulator(recipe), Generator().manual_seed(recipe.seed)
    simulator.draw(recipe.batch_size, generator)
    start = time.process_time()
    for _ in range(n_batches):
        simulator.draw(recipe.batch_size, generator)
    return n_batches * recipe.batch_size / (time.process_time() - start)
