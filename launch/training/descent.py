"""One step of a training: what is descended, and the step down."""

import torch
from torch import Tensor, nn

from launch.training.data import Samples
from launch.training.recipe import Recipe
from operators.network.interface import Illumination, Prediction
from operators.network.losses import LOSSES, sigma_nll, squared_error, variation


def descend(recipe: Recipe, network: nn.Module, optimiser: torch.optim.Optimizer, batch: Samples) -> Tensor:
    """Take one step down the loss of a batch; returns its figures, those of `losses`."""
    objects, intensities, illumination = batch
    with torch.autocast(objects.device.type, torch.bfloat16, enabled=recipe.bfloat16):
        prediction = network(intensities, illumination)
    loss, figures = losses(recipe, prediction, objects, illumination)
    optimiser.zero_grad()
    loss.backward()
    if recipe.gradient_clip is not None:
        torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.gradient_clip)
    optimiser.step()
    return figures


def losses(
    recipe: Recipe, prediction: Prediction, objects: Tensor, illumination: Illumination
) -> tuple[Tensor, Tensor]:
    """Return what the training descends, and its figures for the report.

    The figures are those of `TrainingReport.c`, squared error and variation, and the sigma loss, detached.
    """
    weights, loss = illumination.weights, LOSSES[recipe.loss]
    patch_loss = loss(prediction.patches, objects, weights)
    draft_loss = sum(loss(draft, objects, weights) for draft in prediction.drafts)
    sigma_loss = sigma_nll(prediction, objects, weights)
    error = squared_error(prediction.patches.detach(), objects, weights)
    figures = torch.stack([error, variation(objects, weights), sigma_loss.detach()])
    return patch_loss + recipe.draft_weight * draft_loss + recipe.sigma_weight * sigma_loss, figures
