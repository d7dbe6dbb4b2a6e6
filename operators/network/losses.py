"""What a network is trained on: how far its patches are from the truth, and its error bars from the errors.

The global phase of a patch is free, so each is aligned with its object first.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from operators.network.interface import Prediction

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From patches, objects and weights, as `align` takes them, to a number, () float32."""


def align(patches: Tensor, objects: Tensor, weights: Tensor) -> Tensor:
    """Return each patch times the global phase that brings it closest to its object, as complex64.

    Parameters
    ----------
    patches, objects : (frame, y, x) complex64
    weights : (1 or frame, y, x) float32
        Illumination |P|^2 of sum 1 in each window.
    """
    overlap = (weights * patches.conj() * objects).sum((-2, -1), keepdim=True)
    return patches * (overlap / (overlap.abs() + 1e-12))


def squared_error(patches: Tensor, objects: Tensor, weights: Tensor) -> Tensor:
    """Return the mean weighted squared error of aligned patches, () float32; arguments as for `align`.

    The difference is complex, so that no phase needs unwrapping.
    """
    return (weights * (align(patches, objects, weights) - objects).abs().square()).sum((-2, -1)).mean()


def amplitude_phase_error(patches: Tensor, objects: Tensor, weights: Tensor) -> Tensor:
    """Return the mean weighted squared errors of amplitude and of unwrapped phase, rad, added, () float32.

    The loss of PtychoNet (Guan et al., BMVC 2019). Arguments as for `align`; the global phase is taken out as
    the mean of the phase error.
    """
    amplitude_error = patches.abs() - objects.abs()
    phase_error = unwrap(patches.angle()) - unwrap(objects.angle())
    mean = (weights * phase_error).sum((-2, -1), keepdim=True) / weights.sum((-2, -1), keepdim=True)
    squares = amplitude_error.square() + (phase_error - mean).square()
    return (weights * squares).sum((-2, -1)).mean()


def unwrap(phase: Tensor) -> Tensor:
    """Return a phase without its jumps of 2 pi, along columns and then along rows as `numpy.unwrap`.

    Parameters
    ----------
    phase : (frame, y, x) float32, rad

    Returns
    -------
    (frame, y, x) float32, rad
        The phase plus whole turns: the gradient passes as it is.
    """
    for axis, before in ((-2, (0, 0, 1, 0)), (-1, (1, 0))):
        turns = torch.round(phase.detach().diff(dim=axis) / (2 * math.pi)).cumsum(axis)
        phase = phase - 2 * math.pi * functional.pad(turns, before)
    return phase


def variation(objects: Tensor, weights: Tensor) -> Tensor:
    """Return the mean weighted variance of the objects, () float32: the error of the best constant ones.

    Arguments as for `align`.
    """
    mean = (weights * objects).sum((-2, -1), keepdim=True)
    return (weights * (objects - mean).abs().square()).sum((-2, -1)).mean()


def sigma_nll(prediction: Prediction, objects: Tensor, weights: Tensor) -> Tensor:
    """Return the negative log-likelihood of the wrapped phase error under a normal of the predicted width.

    A number, () float32, without its constant. The error counts as given: this loss trains the width only.

    Parameters
    ----------
    prediction : Prediction
    objects : (frame, y, x) complex64
    weights : (1 or frame, y, x) float32
        As for `align`.
    """
    patches, log_sigma, _ = prediction
    error = (align(patches.detach(), objects, weights) * objects.conj()).angle()
    return (weights * (log_sigma + 0.5 * error.square() * torch.exp(-2 * log_sigma))).sum((-2, -1)).mean()


LOSSES: dict[str, Loss] = {"complex": squared_error, "amplitude_phase": amplitude_phase_error}
"""By the name that a recipe uses."""
