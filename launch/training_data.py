"""What a network is trained on: objects, probes and noisy patterns, drawn on the fly.

Nothing is seen twice and nothing lies on disk; the same recipe and generator give the same samples. Separate
from `launch.train`, whose loop only asks for the next batch.
"""

import math

import numpy as np
import torch
from torch import Tensor

from launch.recipe import Recipe
from operators.network_interface import Illumination, illuminate
from operators.objects import FAMILIES, texture

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
