"""What a detector did not measure, guessed: bad pixels, gaps between modules, a beam stop.

A network takes every pixel for a measurement: to it the darkness of a gap is one, and a wrong one.
"""

import math

import torch
from torch import Tensor

from operators.arrays import Mask, Patterns, Probe
from operators.network.interface import Illumination, illuminate, probe_tensor

NEARBY_PX = 0.7  # standard deviation of what counts as near; wider was worse for gaps of 3 and 5 pixels
_LEAST_LIGHT = 1e-3  # of the open beam's brightest pixel: with less around, the whole pattern's share counts


def fill_gaps(intensities: Tensor, valid: Tensor, illumination: Illumination) -> Tensor:
    """Return patterns whose gaps hold the open beam times the share of it that came through nearby.

    Parameters
    ----------
    intensities : (frame, ky, kx) float32, of any unit
        Corner-origin.
    valid : (ky, kx) or (frame, ky, kx) bool
        True where the detector measures.
    illumination : Illumination
        Of the one probe of all frames, or one per frame.
    """
    if not len(intensities):
        return intensities  # some FFTs refuse an empty batch
    open_beam = illumination.open_beam
    seen, visible = intensities * valid, open_beam * valid
    least = _LEAST_LIGHT * open_beam.amax((-2, -1), keepdim=True)
    share = seen.sum((-2, -1), keepdim=True) / visible.sum((-2, -1), keepdim=True)
    share_nearby = (_blurred(seen) + least * share) / (_blurred(visible) + least)
    return torch.where(valid, intensities, (share_nearby * open_beam).clamp(min=0))


def fill_patterns(patterns: Patterns, valid: Mask, probe: Probe) -> Patterns:
    """Return patterns whose gaps are filled by `fill_gaps`.

    Parameters
    ----------
    patterns : (frame, ky, kx) float32, photons
        On the host.
    valid : (ky, kx) bool
    probe : (mode, y, x) complex64
    """
    illumination = illuminate(probe_tensor(probe))
    return fill_gaps(torch.from_numpy(patterns), torch.from_numpy(valid), illumination).numpy()


def _blurred(planes: Tensor) -> Tensor:
    """Return planes convolved with a normal distribution; their edges meet, as those of a pattern do."""
    n = planes.shape[-1]
    falloff = torch.exp(-2 * (math.pi * NEARBY_PX * torch.fft.fftfreq(n, device=planes.device)).square())
    return torch.fft.ifft2(torch.fft.fft2(planes) * falloff * falloff[:, None]).real
