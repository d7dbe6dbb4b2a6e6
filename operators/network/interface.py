"""What every network takes and gives, whatever is inside it.

Training, evaluation and the inference stage run any network through it. The probe is an input, not part of
the weights: a new probe within the trained range needs no new network.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from operators.arrays import Patches, Patterns, Probe
from operators.patches import widened

NORMS = nn.BatchNorm2d, nn.SyncBatchNorm  # the second in trainings on several GPUs


class Illumination(NamedTuple):
    """What the network needs of a probe, computed once per probe.

    Attributes
    ----------
    modes : (1 or frame, mode, y, x) complex64
        Of the probe, mutually incoherent, together of unit power.
    open_far_fields : (1 or frame, mode, ky, kx) complex64
        The far fields without a sample, corner-origin.
    preconditioners : (1 or frame, mode, y, x) complex64
        Regularised division by the probe, the step of rPIE.
    gradient_steps : (1 or frame, mode, y, x) complex64
        The step of ePIE.
    photons : (1 or frame, 1, 1) float32
        Of a frame without a sample: how sure its pattern is.
    """

    modes: Tensor
    open_far_fields: Tensor
    preconditioners: Tensor
    gradient_steps: Tensor
    photons: Tensor

    @property
    def weights(self) -> Tensor:
        """Where the probe is bright, (1 or frame, y, x) float32 of sum 1."""
        return total_intensity(self.modes)

    @property
    def open_beam(self) -> Tensor:
        """Pattern without a sample, (1 or frame, ky, kx) float32 of sum 1, corner-origin."""
        return total_intensity(self.open_far_fields)

    def of(self, frames: slice | Tensor) -> "Illumination":
        """Return the illumination of some frames, a slice or (n,) indices, where each has one of its own."""
        return Illumination(*(constant[frames] for constant in self))


class Prediction(NamedTuple):
    """An object estimate and its error bar.

    Attributes
    ----------
    patches : (frame, y, x) complex64
        The global phase of each is arbitrary.
    log_sigma : (frame, y, x) float32
        Logarithm of the standard deviation of the phase in rad, before calibration.
    drafts : tuple of (frame, y, x) complex64
        The estimates of the stages before the last.
    """

    patches: Tensor
    log_sigma: Tensor
    drafts: tuple[Tensor, ...]


class Network(nn.Module):
    """Base of the networks that see an object patch in a single diffraction pattern.

    Parameters
    ----------
    n_pixels : int
        Side of the patterns, pixels.
    crop : int, optional
        Side of the middle of a window of which the network says anything; all of it unless given.
    """

    largest_intensity: Tensor  # seen in training; inputs are clamped to it
    sigma_scale: Tensor  # fitted after training, both
    sigma_exponent: Tensor

    def __init__(self, n_pixels: int, crop: int | None = None) -> None:
        super().__init__()
        self.n_pixels, self.crop = n_pixels, crop or n_pixels
        self.dtype = torch.float32  # of the convolutions
        # Buffers, because they travel with the weights.
        self.register_buffer("largest_intensity", torch.zeros(()))
        self.register_buffer("sigma_scale", torch.ones(()))
        self.register_buffer("sigma_exponent", torch.zeros(()))

    def forward(self, intensities: Tensor, illumination: Illumination) -> Prediction:
        """Return the object estimate under the probe and its uncertainty.

        Parameters
        ----------
        intensities : (frame, ky, kx) float32, shares of the incident flux
            Corner-origin. Normalised by the transmitted flux they would lose the absolute amplitude.
        illumination : Illumination
            Of the one probe of all frames, or one per frame.
        """
        raise NotImplementedError

    def sigma_factor(self, photons: float) -> float:
        """Return what makes of a predicted width the standard deviation of the phase, at `photons` a frame.

        A pattern hardly tells how noisy it is, and a width that is true for many photons is too small for
        few: the factor is a power law in the photons, fitted after training (`launch.training.calibrate`).
        """
        return self.sigma_scale.item() * photons ** self.sigma_exponent.item()

    def optimise_for_inference(self, dtype: torch.dtype) -> None:
        """Fold the batch normalisation into the convolutions and turn these into `dtype`, for good."""
        for block in self.modules():
            if isinstance(block, nn.Sequential):
                _fold_norms(block)
        for part in self.children():  # the buffers of this module itself stay as they are
            part.to(dtype)
        self.dtype = dtype

    def decoder(self) -> list[nn.Module]:
        """Return the blocks between what the network sees and its estimate: those that dropout thins."""
        raise NotImplementedError

    def amplitudes(self, intensities: Tensor) -> Tensor:
        """Return the square roots of intensities, clamped to the range that training has shown.

        Both are (frame, ky, kx) float32; the intensities are those of `forward`. In training they widen the
        range.
        """
        if self.training:
            self.largest_intensity.copy_(torch.maximum(self.largest_intensity, intensities.max()))
        return intensities.clamp(min=0).minimum(self.largest_intensity).sqrt()


def illuminate(probe: Tensor, photons: Tensor | float | None = None) -> Illumination:
    """Return the probe-dependent constants of the back-projections.

    Parameters
    ----------
    probe : (mode, y, x) or (frame, mode, y, x) complex64
        Of any power.
    photons : float or (frame, 1, 1) float32, optional
        Of a frame without a sample; the power of the probe unless given.
    """
    probe = probe if probe.ndim == 4 else probe[None]
    power = probe.abs().square().sum((-3, -2, -1))[:, None, None]
    modes = probe / power.sqrt()[:, None]
    flux = power if photons is None else torch.zeros_like(power) + photons
    intensity = total_intensity(modes)[:, None]
    peak = intensity.amax((-2, -1), keepdim=True)
    return Illumination(
        modes,
        torch.fft.fft2(modes, norm="ortho"),
        modes.conj() / (intensity + 0.1 * peak),
        modes.conj() / peak,
        flux,
    )


def probe_tensor(probe: Probe) -> Tensor:
    """Return a probe (mode, y, x) of any layout in memory as `illuminate` takes it, complex64, on the CPU."""
    return torch.from_numpy(np.ascontiguousarray(probe, np.complex64))


def joined(first: Illumination, second: Illumination) -> Illumination:
    """Return the illumination of the frames of both; the side of fewer modes gets dark ones."""
    n_modes = max(first.modes.shape[1], second.modes.shape[1])
    sides = []
    for *waves, photons in (first, second):
        n_dark = n_modes - waves[0].shape[1]
        sides.append([*(functional.pad(wave, (0, 0, 0, 0, 0, n_dark)) for wave in waves), photons])
    return Illumination(*(torch.cat(pair) for pair in zip(*sides, strict=True)))


def total_intensity(waves: Tensor) -> Tensor:
    """Return the summed intensities of incoherent waves (..., mode, y, x) complex64, (..., y, x) float32."""
    return summed_modes(waves.real.square() + waves.imag.square())  # abs() takes four times as long


def summed_modes(values: Tensor) -> Tensor:
    """Return values (..., mode, y, x) summed over modes; one is only looked at, which costs nothing."""
    return values.squeeze(-3) if values.shape[-3] == 1 else values.sum(-3)


def channels_last(network: Network) -> Network:
    """Return the network with its weights laid out channels last: convolutions run up to 3 times faster."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _fold_norms(block: nn.Sequential) -> None:
    for i in range(len(block) - 1):
        convolution, norm = block[i], block[i + 1]
        if isinstance(convolution, nn.Conv2d | nn.ConvTranspose2d) and isinstance(norm, NORMS):
            is_transposed = isinstance(convolution, nn.ConvTranspose2d)
            block[i] = fuse_conv_bn_eval(convolution, norm, is_transposed)
            block[i + 1] = nn.Identity()


Results = Callable[[], tuple[Patches, np.ndarray]]


class Predicting(Protocol):
    """What the inference stage asks of a network, or of several.

    Attributes
    ----------
    crop : int
        Side of the middle of a window, of which alone it says anything.
    """

    crop: int

    def predict(self, patterns: Patterns) -> tuple[Patches, np.ndarray]:
        """Return patches and sigma of patterns: see `operators.network.predictor.Predictor.predict`."""
        return widened(*self.submit(patterns)(), patterns.shape[-1])

    def submit(self, patterns: Patterns) -> Results:
        """Return what gives them, cut to `crop`, once they are there: see `Predictor.submit`."""

    def warm_up(self) -> None:
        """Do once what must not delay the first frames."""
