"""The networks of the literature, which see the pattern alone: what the default one is measured against.

PtychoNet (Guan et al., BMVC 2019) is one U-Net with heads for amplitude and phase, PtychoNN (Cherukara et
al., Appl. Phys. Lett. 117, 044103 (2020)) one encoder with a decoder for each. Both map detector pixels to
object pixels and have to learn diffraction itself; the probe is fixed in their weights.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from operators.network.interface import Illumination, Network, Prediction
from operators.patches import UNIFORM_PHASE_SIGMA

SOFTPLUS_OF_ONE = math.log(math.e - 1)  # a head that says 0 means an amplitude of 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorNetConfig:
    """Shape of a network that looks at the pattern alone.

    Parameters
    ----------
    n_pixels : int
        Side of the patterns, pixels.
    widths : tuple of int
        Channels per level, finest first; each level halves the resolution.

    Raises
    ------
    ValueError
        If `n_pixels` cannot be halved at every level.
    """

    n_pixels: int = 64
    widths: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        coarsest = 2 ** len(self.widths)
        if self.n_pixels % coarsest:
            raise ValueError(
                f"n_pixels must be a multiple of {coarsest}, as {len(self.widths)} levels halve it; "
                f"got {self.n_pixels}"
            )


class DetectorNet(Network):
    """Base of the networks that look at the pattern alone: its input, its heads and what they mean.

    A third head, fed with detached features, says how far off the phase of each pixel is; the papers have
    none, and it cannot disturb the estimate.

    Parameters
    ----------
    config : DetectorNetConfig
    """

    def __init__(self, config: DetectorNetConfig) -> None:
        super().__init__(config.n_pixels)
        self.config = config
        finest = config.widths[0]
        self.amplitude_head = nn.Conv2d(finest, 1, 1)
        self.phase_head = nn.Conv2d(finest, 1, 1)
        self.sigma_head = nn.Sequential(
            nn.Conv2d(finest, finest, 3, padding=1), nn.ReLU(), nn.Conv2d(finest, 1, 1)
        )

    def features(self, patterns: Tensor) -> tuple[Tensor, Tensor]:
        """Return what amplitude and phase are made of, (frame, widths[0], y, x) each, of the input's dtype.

        Parameters
        ----------
        patterns : (frame, 1, ky, kx), of the dtype of the convolutions
            Logarithms of the intensities, zero frequency at the array centre.
        """
        raise NotImplementedError

    def forward(self, intensities: Tensor, illumination: Illumination) -> Prediction:
        """Return the object estimate and its uncertainty; ignores the illumination. See `Network.forward`."""
        scaled = 10 * self.n_pixels**2 * self.amplitudes(intensities).square()
        patterns = torch.fft.fftshift(torch.log1p(scaled), dim=(-2, -1))[:, None]
        of_amplitude, of_phase = self.features(patterns.to(self.dtype))
        amplitude = functional.softplus(self.amplitude_head(of_amplitude).float() + SOFTPLUS_OF_ONE)
        phase = math.pi * torch.tanh(self.phase_head(of_phase).float())
        log_sigma = self.sigma_head(of_phase.detach()).float()
        log_sigma = log_sigma.clamp(math.log(1e-3), math.log(UNIFORM_PHASE_SIGMA))
        return Prediction(torch.polar(amplitude, phase)[:, 0], log_sigma[:, 0], ())


class PtychoNet(DetectorNet):
    """U-Net of five Conv-BN-ReLU-MaxPool and five transposed blocks with skips, about eight million weights.

    Parameters
    ----------
    n_pixels, widths
        Of `DetectorNetConfig`.

    Notes
    -----
    Guan et al., BMVC 2019.
    """

    def __init__(self, n_pixels: int = 64, widths: tuple[int, ...] = (32, 64, 128, 256, 512)) -> None:
        super().__init__(DetectorNetConfig(n_pixels=n_pixels, widths=widths))
        widths = self.config.widths
        self.down = nn.ModuleList(_conv(i, o) for i, o in pairwise((1, *widths)))
        coarse_to_fine = list(pairwise((*widths[::-1], widths[0])))
        self.up = nn.ModuleList(_transposed(i, i) for i, _ in coarse_to_fine)
        self.join = nn.ModuleList(_conv(2 * i, o) for i, o in coarse_to_fine)

    def features(self, patterns: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last features twice, as one trunk carries both heads: see `DetectorNet.features`."""
        x, skips = patterns, []
        for block in self.down:
            skips.append(block(x))
            x = functional.max_pool2d(skips[-1], 2)
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat([up(x), skips.pop()], dim=1))
        return x, x

    def decoder(self) -> list[nn.Module]:
        """Return the blocks that lead to the estimate."""
        return [*self.up, *self.join]


class PtychoNN(DetectorNet):
    """One encoder without skips and two decoders, about 1.2 million weights.

    Parameters
    ----------
    n_pixels, widths
        Of `DetectorNetConfig`.

    Notes
    -----
    Cherukara et al., Appl. Phys. Lett. 117, 044103 (2020).
    """

    def __init__(self, n_pixels: int = 64, widths: tuple[int, ...] = (32, 64, 128)) -> None:
        super().__init__(DetectorNetConfig(n_pixels=n_pixels, widths=widths))
        widths = self.config.widths
        self.encoder = nn.Sequential(
            *(
                layer
                for i, o in pairwise((1, *widths))
                for layer in (_conv(i, o), _conv(o, o), nn.MaxPool2d(2))
            )
        )
        self.amplitude_decoder, self.phase_decoder = (
            nn.Sequential(
                *(
                    layer
                    for i, o in pairwise((widths[-1], *widths[::-1]))
                    for layer in (_conv(i, o), _conv(o, o), nn.Upsample(scale_factor=2, mode="bilinear"))
                )
            )
            for _ in range(2)
        )

    def features(self, patterns: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last features of either decoder: see `DetectorNet.features`."""
        code = self.encoder(patterns)
        return self.amplitude_decoder(code), self.phase_decoder(code)

    def decoder(self) -> list[nn.Module]:
        """Return the blocks that lead to the estimate."""
        return [self.amplitude_decoder, self.phase_decoder]


def _conv(n_inputs: int, n_outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_inputs, n_outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(n_outputs),
        nn.ReLU(inplace=True),
    )


def _transposed(n_inputs: int, n_outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(n_inputs, n_outputs, 3, stride=2, padding=1, output_padding=1, bias=False),
        nn.BatchNorm2d(n_outputs),
        nn.ReLU(inplace=True),
    )
