"""What a network is trained on: how far its patches are from the truth, and its error bars from the errors.

Separate from the training because fine-tuning during a scan uses the same losses. The global phase of a patch
is free, so each is aligned with its object first.
"""

import torch
from torch import Tensor

from operators.network_interface import Prediction


def align(patches: Tensor, objects: Tensor, weights: Tensor) -> Tensor:
    """Return each patch times the global phase that brings it closest to its object."""
    overlap = (weights * patches.conj() * objects).sum((-2, -1), keepdim=True)
    return patches * (overlap / (overlap.abs() + 1e-12))


def squared_error(patches: Tensor, objects: Tensor, weights: Tensor) -> Tensor:
    """Return the mean weighted error of aligned patches: complex, so that no phase needs unwrapping."""
    return (weights * (align(patches, objects, weights) - objects).abs().square()).sum((-2, -1)).mean()


def variation(objects: Tensor, weights: Tensor) -> Tensor:
    """Return the mean weighted variance of the objects: the error of the best constant ones."""
    mean = (weights * objects).sum((-2, -1), keepdim=True)
    return (weights * (objects - mean).abs().square()).sum((-2, -1)).mean()


def sigma_nll(prediction: Prediction, objects: Tensor, weights: Tensor) -> Tensor:
    """Return the negative log-likelihood of the wrapped phase error under a normal of the predicted width.

    The error counts as given: this loss trains the width only.
    """
    patches, log_sigma, _ = prediction
    error = (align(patches.detach(), objects, weights) * objects.conj()).angle()
    return (weights * (log_sigma + 0.5 * error.square() * torch.exp(-2 * log_sigma))).sum((-2, -1)).mean()
