"""What a network is trained on: objects, probes and noisy patterns, drawn on the fly.

Nothing is seen twice and nothing lies on disk; the same recipe and generator give the same samples.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from launch.training.parallel import cores_of_process
from launch.training.recipe import Recipe
from launch.training.samples import draw_textures
from launch.training.scan_labels import ScanLabels, labels_of
from operators.network.gaps import fill_gaps
from operators.network.interface import Illumination, illuminate, joined
from operators.optics.detector_effects import Detector, draw_detector, read_out

Generator = torch.Generator
# Pieces of a scan's object lie this close to a measured position: well lit, and seen nowhere else.
NEAR_PX = 4
WORTH_PROCESSES = 500  # textures: fewer are drawn sooner than processes start
TURNS = (0.5, 3.0)  # least and most waves that the values of a toned texture run through

Samples = tuple[Tensor, Tensor, Illumination]


def open_source(recipe: Recipe, directory: Path, device: str = "cpu") -> "Simulator | Mixture":
    """Return what a recipe's samples are drawn from; `directory` has the labels of a recorded scan."""
    n_processes = cores_of_process() if recipe.n_textures >= WORTH_PROCESSES else 1
    if recipe.scan is None:
        return Simulator(recipe, device, n_processes)
    scan = ScanSampler(recipe, labels_of(recipe, directory), device)
    return Mixture(Simulator(recipe, device, n_processes), scan, recipe.scan.share)


class Simulator:
    """Draws what a network is trained on: objects, their noisy patterns, and the probes that made them.

    Parameters
    ----------
    recipe : Recipe
        Its textures and probes are made here, from `recipe.seed`.
    device : str
        Where the batches are made.
    n_processes : int
        That draw the textures: see `launch.training.samples.draw_textures`.
    """

    def __init__(self, recipe: Recipe, device: str = "cpu", n_processes: int = 1) -> None:
        rng = np.random.default_rng(recipe.seed)
        shape = (recipe.texture_px, recipe.texture_px)
        drawn = draw_textures(recipe.families, recipe.n_textures, shape, recipe.warped, rng, n_processes)
        textures = np.stack(list(drawn))
        probes = np.stack([recipe.probe.random(recipe.n_pixels, rng) for _ in range(recipe.probe.n_probes)])
        self.recipe = recipe
        self.detectors = _detectors(recipe, rng, device)
        self.textures = torch.from_numpy(textures).to(device)
        self.probes = torch.from_numpy(probes).to(device)
        """(probe, mode, y, x) complex64 of unit power, the strongest mode first."""
        self.illuminations = illuminate(self.probes)
        """What the network is told of each probe."""

    def draw(self, n_frames: int, generator: Generator) -> Samples:
        """Return objects (frame, y, x), intensities as shares of the flux, and their illumination."""
        objects = self._objects(n_frames, generator)
        which = torch.randint(len(self.probes), (n_frames,), generator=generator, device=self.probes.device)
        photons = _draw_photons(self.recipe, n_frames, generator, objects.device)
        expected = _expected(objects, self.probes[which], photons)
        illumination = self.illuminations.of(which)._replace(photons=photons)
        counts, valid = self._counts(expected, generator)
        intensities = counts / photons
        if valid is not None:
            intensities = fill_gaps(intensities, valid, illumination)
        return objects, intensities, illumination

    def _counts(self, expected: Tensor, generator: Generator) -> tuple[Tensor, Tensor | None]:
        """Return what random detectors count of the expected photons, and where they do."""
        effects = self.recipe.effects
        if effects is None or self.detectors is None:
            return torch.poisson(expected, generator), None
        n_frames, device = len(expected), expected.device
        deviation = torch.randn(n_frames, 1, 1, generator=generator, device=device)
        which = torch.randint(len(self.detectors.gain), (n_frames,), generator=generator, device=device)
        detector = Detector(*(values[which] for values in self.detectors))
        photons = torch.poisson(expected * effects.flux(deviation) + detector.background, generator)
        return read_out(photons, detector), detector.valid

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
        return _uniform(bounds, n_frames, generator, self.textures.device)

    def _textures(self, n_frames: int, generator: Generator) -> Tensor:
        """Return random textures, some of them toned, some blended of two."""
        first = self._toned(self._crops(n_frames, generator), generator)
        if not self.recipe.blended:
            return first
        second = self._toned(self._crops(n_frames, generator), generator)
        choices = torch.stack([torch.maximum(first, second), first * second, (first + second) / 2, first])
        uniform = torch.rand(n_frames, generator=generator, device=first.device)
        kind = torch.where(uniform < self.recipe.blended, 3 * uniform / self.recipe.blended, 3).long()
        return choices[kind, torch.arange(n_frames, device=first.device)]

    def _toned(self, textures: Tensor, generator: Generator) -> Tensor:
        """Return textures, the values t of some replaced by (1 - cos(2 pi k t + phase)) / 2.

        Slopes become contour lines, and what lies on a level becomes spots: shapes that no family has, so
        that the network learns of its families less by heart.
        """
        if not self.recipe.toned:
            return textures
        n_frames = len(textures)
        is_toned = self._uniform((0, 1), n_frames, generator) < self.recipe.toned
        turns = self._uniform(TURNS, n_frames, generator) * textures
        waves = 0.5 - 0.5 * torch.cos(2 * math.pi * (turns + self._uniform((0, 1), n_frames, generator)))
        return torch.where(is_toned, waves, textures)

    def _crops(self, n_frames: int, generator: Generator) -> Tensor:
        """Return random windows of random textures in one of eight orientations."""
        n_pixels = self.recipe.n_pixels
        windows = self.textures.unfold(1, n_pixels, 1).unfold(2, n_pixels, 1)  # a view

        def integers(end: int) -> Tensor:
            return torch.randint(end, (n_frames,), generator=generator, device=self.textures.device)

        crops = windows[*(integers(n_choices) for n_choices in windows.shape[:3])]
        return oriented(crops, [integers(2) == 1 for _ in range(3)], is_corner_origin=False)


class ScanSampler:
    """Draws samples of a recorded scan: measured patterns, and simulated ones of pieces of its object.

    All come in eight orientations. A measured pattern takes its probe with it; a simulated one is made with
    the probe as it is, and photons from the recipe's range.

    Parameters
    ----------
    recipe : Recipe
        With a section `scan`.
    labels : ScanLabels
        The frames at the end of the scan, `recipe.scan.held_out`, are not used.
    device : str
        Where the batches are made.
    """

    def __init__(self, recipe: Recipe, labels: ScanLabels, device: str = "cpu") -> None:
        assert recipe.scan is not None  # noqa: S101 -- the caller chose by it
        n_used = labels.split(recipe.scan.held_out)
        self._recipe, self._measured_share = recipe, recipe.scan.measured
        probe = torch.from_numpy(labels.probe).to(device)
        self._flux = probe.abs().square().sum()
        self._probe = probe / self._flux.sqrt()
        self._illumination = illuminate(self._probe)
        self._valid = torch.from_numpy(labels.valid).to(device)
        patterns = torch.from_numpy(labels.patterns[:n_used]).to(device)
        self._intensities = fill_gaps(patterns / self._flux, self._valid, self._illumination)
        self._corners = torch.from_numpy(labels.corners[:n_used]).to(device)
        n_pixels = probe.shape[-1]
        object_ = torch.from_numpy(labels.object).to(device)
        self._windows = object_.unfold(0, n_pixels, 1).unfold(1, n_pixels, 1)

    def draw(self, n_frames: int, generator: Generator) -> Samples:
        """Return objects (frame, y, x), intensities as shares of the flux, and their illumination."""
        n_measured = round(n_frames * self._measured_share)
        shares = (self._measured, n_measured), (self._simulated, n_frames - n_measured)
        parts = [draw(n, generator) for draw, n in shares if n]
        objects, intensities, probes, photons = (torch.cat(values) for values in zip(*parts, strict=True))
        return objects, intensities, illuminate(probes, photons)

    def _measured(self, n_frames: int, generator: Generator) -> tuple[Tensor, ...]:
        """Return objects, intensities, probes and photons of measured frames."""
        which = self._integers(len(self._corners), n_frames, generator)
        objects = self._windows[self._corners[which, 0], self._corners[which, 1]]
        probes = self._probe.expand(n_frames, *self._probe.shape)
        flips = [self._integers(2, n_frames, generator) == 1 for _ in range(3)]
        turned = (oriented(values, flips, is_corner_origin=False) for values in (objects, probes))
        intensities = oriented(self._intensities[which], flips, is_corner_origin=True)
        objects, probes = turned
        return objects, intensities, probes, self._flux.expand(n_frames, 1, 1)

    def _simulated(self, n_frames: int, generator: Generator) -> tuple[Tensor, ...]:
        """Return objects, noisy intensities, probes and photons of pieces near measured frames."""
        near = self._corners[self._integers(len(self._corners), n_frames, generator)]
        rows, columns = (
            (near[:, axis] + self._integers(2 * NEAR_PX + 1, n_frames, generator) - NEAR_PX).clamp(
                0, self._windows.shape[axis] - 1
            )
            for axis in (0, 1)
        )
        flips = [self._integers(2, n_frames, generator) == 1 for _ in range(3)]
        objects = oriented(self._windows[rows, columns], flips, is_corner_origin=False)
        photons = _draw_photons(self._recipe, n_frames, generator, objects.device)
        counts = torch.poisson(_expected(objects, self._probe, photons), generator)
        intensities = fill_gaps(counts / photons, self._valid, self._illumination)
        return objects, intensities, self._probe.expand(n_frames, *self._probe.shape), photons

    def _integers(self, end: int, n_frames: int, generator: Generator) -> Tensor:
        return torch.randint(end, (n_frames,), generator=generator, device=self._probe.device)


class Mixture:
    """Draws a fixed share of every batch from one source and the rest from another.

    Parameters
    ----------
    first, second
        The sources.
    share : float
        Of the second.
    """

    def __init__(self, first: Simulator, second: ScanSampler, share: float) -> None:
        self._first, self._second, self._share = first, second, share

    def draw(self, n_frames: int, generator: Generator) -> Samples:
        """Return objects (frame, y, x), intensities as shares of the flux, and their illumination."""
        n_second = round(n_frames * self._share)
        if n_second == n_frames:
            return self._second.draw(n_frames, generator)
        objects, intensities, illumination = self._first.draw(n_frames - n_second, generator)
        more = self._second.draw(n_second, generator)
        both = joined(illumination, more[2])
        return torch.cat([objects, more[0]]), torch.cat([intensities, more[1]]), both


def _uniform(
    bounds: tuple[float, float], n_frames: int, generator: Generator, device: torch.device
) -> Tensor:
    low, high = bounds
    return low + (high - low) * torch.rand(n_frames, 1, 1, generator=generator, device=device)


def _draw_photons(recipe: Recipe, n_frames: int, generator: Generator, device: torch.device) -> Tensor:
    """Return photons per frame, (frame, 1, 1), each order of magnitude of the recipe's range as likely."""
    low, high = (math.log(photons) for photons in recipe.photons_per_frame)
    return torch.exp(_uniform((low, high), n_frames, generator, device))


def _expected(objects: Tensor, probes: Tensor, photons: Tensor) -> Tensor:
    """Return the patterns that probes of unit power, (frame or nothing, mode, y, x), make, in photons."""
    far_field = torch.fft.fft2(probes * objects[:, None], norm="ortho")
    return torch.view_as_real(far_field).square().sum((1, -1)) * photons


def oriented(values: Tensor, flips: Sequence[Tensor], *, is_corner_origin: bool) -> Tensor:
    """Return planes in other orientations of a square.

    Parameters
    ----------
    values : (frame, ..., y, x)
    flips : three of (frame,) or () bool
        Which planes, or all, are flipped along y, along x, and then transposed.
    is_corner_origin : bool
        Whether they are patterns, which are flipped about their corner, the zero frequency.
    """
    along_y, along_x, transposed = (flip.view(-1, *[1] * (values.ndim - 1)) for flip in flips)
    for axis, flip in ((-2, along_y), (-1, along_x)):
        flipped = values.flip(axis)
        flipped = flipped.roll(1, axis) if is_corner_origin else flipped
        values = torch.where(flip, flipped, values)
    return torch.where(transposed, values.transpose(-2, -1), values)


def _detectors(recipe: Recipe, rng: np.random.Generator, device: str) -> Detector | None:
    """Return the detectors of a training, each field stacked along a first axis; None without effects."""
    if recipe.effects is None:
        return None
    drawn = [
        draw_detector(recipe.effects.random(rng), recipe.n_pixels, rng)
        for _ in range(recipe.effects.n_detectors)
    ]
    return Detector(*(torch.from_numpy(np.stack(values)).to(device) for values in zip(*drawn, strict=True)))
