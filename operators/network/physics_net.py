"""The default network: U-Nets that correct what the physics alone can say about a single pattern.

One pattern alone does not determine the object (a 93 %-wrong patch can fit it better than the truth does),
so the network supplies the prior. It is not asked to learn diffraction: it is given back-projections of the
pattern through the known probe and adds what they lack.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from operators.network.interface import Illumination, Network, Prediction, summed_modes, total_intensity
from operators.patches import UNIFORM_PHASE_SIGMA

Layers = Callable[..., tuple[Tensor, Tensor]]  # see `PhysicsNet.layers`

N_INPUTS = 8  # channels a stage sees of estimate, pattern and probe


@dataclass(frozen=True, slots=True, kw_only=True)
class PhysicsNetConfig:
    """Shape of a `PhysicsNet`.

    Parameters
    ----------
    n_pixels : int
        Side of the patterns, pixels.
    crop : int
        Side of the window around the probe in which the network works, pixels; outside it the probe is dark.
    widths : tuple of int
        Channels of the U-Net, finest level first; each level halves the resolution.
    unshuffle : int
        Side of the pixel blocks folded into channels before the finest level. 2 makes the U-Net four times
        cheaper at equal width and loses nothing, since the channels still hold every pixel.
    n_stages : int
        U-Nets, each of which corrects the estimate of the one before.
    n_steps : int
        Steps of error reduction that show each stage where the pattern contradicts the estimate.
    n_last_steps : int
        Steps of error reduction that the last estimate takes when the network is used, not in training: what
        the pattern is sure of holds for every sample, trained on or not.

    Raises
    ------
    ValueError
        If `crop` does not fit both the pattern and the levels of the U-Net.
    """

    n_pixels: int = 64
    crop: int = 40
    widths: tuple[int, ...] = (32, 64, 96)
    unshuffle: int = 2
    n_stages: int = 2
    n_steps: int = 1
    n_last_steps: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        coarsest = self.unshuffle * 2 ** (len(self.widths) - 1)
        if self.crop > self.n_pixels or (self.n_pixels - self.crop) % 2 or self.crop % coarsest:
            raise ValueError(
                f"crop must be at most n_pixels = {self.n_pixels}, differ from it by an even number and be a "
                f"multiple of {coarsest} (widths {self.widths}, unshuffle {self.unshuffle}); got {self.crop}"
            )


class PhysicsNet(Network):
    """Small U-Nets in a row that correct a back-projection of the pattern through the known probe.

    Each stage compares the estimate so far with the pattern and adds a complex residual. It sees, cropped to
    the probe: the estimate, where some steps of error reduction would move it, the gradient that remains, the
    modulus of the probe, the logarithm of the pattern, and the features of the stage before. A last head, fed
    with detached features and trained on the detached error, says how far off the phase of each pixel is; it
    cannot disturb the estimate. A probe of several modes has the modulus of all of them together.

    Parameters
    ----------
    **fields
        Of `PhysicsNetConfig`.
    """

    def __init__(self, **fields: Any) -> None:
        self.config = PhysicsNetConfig(**fields)
        super().__init__(self.config.n_pixels, self.config.crop)
        self._margin = (self.config.n_pixels - self.config.crop) // 2
        self.graphs: list[Layers] = []  # of the stages, in place of their layers once these are compiled
        finest, n_folded = self.config.widths[0], self.config.unshuffle**2
        n_features = [0] + [finest] * (self.config.n_stages - 1)
        self.stages = nn.ModuleList(
            UNet(N_INPUTS * n_folded + n, self.config.widths, 2 * n_folded) for n in n_features
        )
        self.sigma_head: nn.Module = nn.Sequential(
            nn.Conv2d(finest, finest, 1), nn.ReLU(), nn.Conv2d(finest, n_folded, 1)
        )

    def forward(self, intensities: Tensor, illumination: Illumination) -> Prediction:
        """Return the object estimate under the probe and its uncertainty: see `Network.forward`."""
        amplitudes = self.amplitudes(intensities)
        estimates = [first_estimate(amplitudes, illumination)]
        features: list[Tensor] = []
        for layers in self.graphs or [partial(self.layers, stage) for stage in range(len(self.stages))]:
            # Detached: each stage has a loss of its own, and the transforms need no second pass backwards.
            estimate = estimates[-1].detach()
            planes = compare(estimate, amplitudes, illumination, self.config.n_steps, self._margin)
            residual, *features = layers(planes, *features)
            residual = torch.complex(residual[:, 0], residual[:, 1])
            estimates.append(estimates[-1] + self._widened(residual))
        n_last_steps = 0 if self.training else self.config.n_last_steps
        patches = reduce_error_to_noise(estimates[-1], amplitudes, illumination, n_last_steps)
        log_sigma = self._widened(features[0][:, 0], math.log(UNIFORM_PHASE_SIGMA))
        log_sigma = log_sigma.clamp(math.log(1e-3), math.log(UNIFORM_PHASE_SIGMA))
        return Prediction(patches, log_sigma, tuple(estimates[1:-1]))

    def layers(self, stage: int, planes: Tensor, *features: Tensor) -> tuple[Tensor, Tensor]:
        """Return what a stage adds to the estimate, and what is to be made of its features.

        Parameters
        ----------
        stage : int
        planes : (frame, N_INPUTS, y, x) float32
            From `compare`, cropped.
        *features : (frame, channel, y, x)
            Of the stage before, folded.

        Returns
        -------
        residual : (frame, 2, y, x) float32
            Real and imaginary part.
        features : (frame, channel, y, x)
            For the next stage, folded; of the last one (frame, 1, y, x) float32, the logarithm of sigma.
        """
        inputs = torch.cat([self._fold(planes), *features], dim=1)
        residual, found = self.stages[stage](inputs)
        if stage == len(self.stages) - 1:
            found = self._unfold(self.sigma_head(found.detach()))
        return self._unfold(residual), found

    def decoder(self) -> list[nn.Module]:
        """Return the blocks that lead to the estimate, of every stage."""
        return [block for stage in self.modules() if isinstance(stage, UNet) for block in stage.up]

    def _fold(self, planes: Tensor) -> Tensor:
        """Return planes with their pixel blocks folded into channels, in the precision of the weights."""
        folded = functional.pixel_unshuffle(planes, self.config.unshuffle)
        return folded.to(self.dtype)

    def _unfold(self, folded: Tensor) -> Tensor:
        """Return float32 planes of the crop from channels folded there."""
        return functional.pixel_shuffle(folded.float(), self.config.unshuffle).contiguous()

    def _widened(self, planes: Tensor, outside: float = 0.0) -> Tensor:
        """Return planes of full size from those of the crop, `outside` around it."""
        return functional.pad(planes, (self._margin,) * 4, value=outside)


def first_estimate(amplitudes: Tensor, illumination: Illumination) -> Tensor:
    """Return one step of error reduction from a flat object, (frame, y, x) complex64.

    `amplitudes` are those of `reduce_error`.
    """
    return 1 + _step(illumination.preconditioners, _difference(illumination.open_far_fields, amplitudes))


def reduce_error(estimate: Tensor, amplitudes: Tensor, illumination: Illumination, n_steps: int) -> Tensor:
    """Return an estimate some steps of error reduction on, (frame, y, x) complex64.

    Parameters
    ----------
    estimate : (frame, y, x) complex64
    amplitudes : (frame, ky, kx) float32, corner-origin
        Square roots of the intensities, which are shares of the incident flux.
    illumination : Illumination
    n_steps : int

    Notes
    -----
    Fienup, Appl. Opt. 21, 2758 (1982), with the step of rPIE (Maiden, Johnson & Li, Optica 4, 736 (2017)) and
    one factor for the far fields of all modes (Thibault & Menzel, Nature 494, 68 (2013)).
    """
    for _ in range(n_steps):
        difference = _difference(_far_fields(estimate, illumination), amplitudes)
        estimate = estimate + _step(illumination.preconditioners, difference)
    return estimate


def reduce_error_to_noise(
    estimate: Tensor, amplitudes: Tensor, illumination: Illumination, n_steps: int
) -> Tensor:
    """Return an estimate some steps of error reduction on, each as long as noise lets it be.

    Arguments and result are those of `reduce_error`.

    Of what amplitudes and estimate differ by, in squares, photon noise makes a known part: 1/4 for each
    pixel in units of a photon, and no more than the photons that are expected there. The step is the rest's
    share: all where the pattern is sure, none where the estimate explains it as well as the truth would.
    """
    for _ in range(n_steps):
        far_fields = _far_fields(estimate, illumination)
        expected = total_intensity(far_fields)
        modulus = expected.sqrt()
        with torch.no_grad():
            noise = expected.minimum(0.25 / illumination.photons).mean((-2, -1), keepdim=True)
            misfit = (amplitudes - modulus).square().mean((-2, -1), keepdim=True)
            share = (1 - noise / (misfit + 1e-20)).clamp(min=0)
        difference = _difference_from(far_fields, modulus, amplitudes)
        estimate = estimate + share * _step(illumination.preconditioners, difference)
    return estimate


def compare(
    estimate: Tensor, amplitudes: Tensor, illumination: Illumination, n_steps: int, margin: int = 0
) -> Tensor:
    """Return what an estimate and its pattern tell about each other, (frame, channel, y, x) float32.

    Parameters
    ----------
    estimate : (frame, y, x) complex64
    amplitudes : (frame, ky, kx) float32, corner-origin
        Square roots of the intensities, which are shares of the incident flux.
    illumination : Illumination
    n_steps : int
        Of error reduction, starting at the estimate.
    margin : int
        Pixels left out at every edge of the result.
    """
    better = reduce_error(estimate, amplitudes, illumination, n_steps)
    difference = _difference(_far_fields(better, illumination), amplitudes)
    gradient = _step(illumination.gradient_steps, difference)
    pattern = torch.fft.fftshift(amplitudes, dim=(-2, -1)).square()
    modulus = illumination.weights.sqrt()
    modulus = modulus / modulus.amax((-2, -1), keepdim=True)
    n_frames, n_pixels, _ = estimate.shape
    inside = (..., slice(margin, n_pixels - margin), slice(margin, n_pixels - margin))
    planes = estimate.real.new_empty(n_frames, N_INPUTS, n_pixels - 2 * margin, n_pixels - 2 * margin)
    # The factors bring all channels to the same order of magnitude.
    waves = (1, estimate[inside]), (5, better[inside] - estimate[inside]), (10, gradient[inside])
    for channel, (factor, wave) in enumerate(waves):
        planes[:, 2 * channel : 2 * channel + 2] = factor * torch.view_as_real(wave).movedim(-1, 1)
    planes[:, 6] = modulus[inside]
    planes[:, 7] = torch.log1p(10 * n_pixels**2 * pattern[inside])
    return planes


class UNet(nn.Module):
    """A U-Net that also hands out the features its outputs are made of.

    On the way up features are brought to the width of the finer level before they are enlarged, and added to
    those that were there instead of put beside them: convolutions of the finer level are where the time goes,
    and this halves them.

    Parameters
    ----------
    n_inputs, n_outputs : int
        Channels.
    widths : tuple of int
        Channels per level, finest first; each level halves the resolution.
    """

    def __init__(self, n_inputs: int, widths: tuple[int, ...], n_outputs: int) -> None:
        super().__init__()
        self.n_inputs, into = n_inputs, (n_inputs, *widths[:-1])
        self.down = nn.ModuleList(
            nn.Sequential(*_layer(i, o), *_layer(o, o)) for i, o in zip(into, widths, strict=True)
        )
        fine, coarse = widths[-2::-1], widths[:0:-1]
        self.lift = nn.ModuleList(nn.Conv2d(i, o, 1, bias=False) for i, o in zip(coarse, fine, strict=True))
        self.up = nn.ModuleList(nn.Sequential(*_layer(width, width)) for width in fine)
        self.head = nn.Conv2d(widths[0], n_outputs, 1)
        nn.init.zeros_(self.head.weight)  # starts by leaving the estimate as it is

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (frame, n_outputs, y, x) outputs and (frame, widths[0], y, x) features.

        `x` is (frame, n_inputs, y, x); all are of the dtype of the weights.
        """
        x, skips = x.contiguous(memory_format=torch.channels_last), []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else functional.max_pool2d(x, 2))
            skips.append(x)
        for lift, block, skip in zip(self.lift, self.up, skips[-2::-1], strict=True):
            x = block(functional.interpolate(lift(x), scale_factor=2.0) + skip)
        return self.head(x), x


def _layer(n_inputs: int, n_outputs: int) -> list[nn.Module]:
    return [
        nn.Conv2d(n_inputs, n_outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(n_outputs),
        nn.ReLU(inplace=True),
    ]


def _far_fields(estimate: Tensor, illumination: Illumination) -> Tensor:
    """Return the far field of each mode, (frame, mode, ky, kx) complex64."""
    return torch.fft.fft2(illumination.modes * estimate[:, None], norm="ortho")


def _difference(far_fields: Tensor, amplitudes: Tensor) -> Tensor:
    """Return the exit waves to add, one for each mode, so that together they have the measured amplitudes."""
    return _difference_from(far_fields, total_intensity(far_fields).sqrt(), amplitudes)


def _difference_from(far_fields: Tensor, modulus: Tensor, amplitudes: Tensor) -> Tensor:
    """Return the same where the modulus of the far fields together is known already."""
    factor = amplitudes / (modulus + 1e-6) - 1
    return torch.fft.ifft2(far_fields * factor[:, None], norm="ortho")


def _step(steps: Tensor, difference: Tensor) -> Tensor:
    """Return by how much the modes together move the estimate, (frame, y, x) complex64."""
    return summed_modes(steps * difference)
