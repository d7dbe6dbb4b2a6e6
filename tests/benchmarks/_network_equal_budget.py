"""PtychoNet and the default network, trained from nothing on the same data with the same processor time.

The published error of PtychoNet is of other data; here both learn by the loop of `ptychostream train` from
the families and the photons of the shipped weights, with one probe, since PtychoNet is not told of it, each
with the loss, the optimiser and the learning rate of its own recipe. At 32 x 32 pixels some minutes of one
thread are worth comparing; neither is trained to its end. Batches are of 16: of the 64 in its recipe,
PtychoNet would see a few hundred.
"""

import contextlib
import tempfile
import time
from pathlib import Path
from typing import Any

from launch.training.checkpoint import TrainingReport
from launch.training.recipe import DEMO_RECIPE, Recipe, read_recipe
from launch.training.train import train
from stream.files.weights import ModelCard

N_PIXELS = 32
CPU_S = 180.0  # of each training
TIMED_STEPS = 20  # that tell how many the budget is worth
RECIPES = {"ptychonet": "train-ptychonet.yaml", "physics": "train-cpu.yaml"}
CONFIGS: dict[str, dict[str, Any]] = {
    "ptychonet": {"n_pixels": N_PIXELS, "widths": [32, 64, 128, 256, 512]},
    "physics": {
        "n_pixels": N_PIXELS,
        "crop": 24,
        "widths": [32, 64, 96],
        "unshuffle": 2,
        "n_stages": 2,
        "n_last_steps": 3,
    },
}
LEARNING = (
    "network",
    "loss",
    "optimiser",
    "learning_rate",
    "weight_decay",
    "draft_weight",
    "sigma_weight",
)


class _EnoughError(Exception):
    """Ends a training whose steps were only timed."""


def equal_budget(shipped: Recipe, cpu_s: float = CPU_S) -> dict[str, float]:
    """Return the errors of patches of held-out objects after `cpu_s` of training each, by name.

    `equal_budget_c_constant` and `equal_budget_loose_constant` are a constant object's. Drawing the textures
    and judging the result are not part of the budget.
    """
    figures = {"equal_budget_cpu_s": cpu_s, "equal_budget_c_constant": 1.0}
    for name in RECIPES:
        card, spent_s, n_samples = trained_for(recipe_of(name, shipped), cpu_s)
        figures |= {
            f"equal_budget_c_{name}": card.metrics["patch_c"],
            f"equal_budget_loose_{name}": card.metrics["patch_loose"],
            f"equal_budget_samples_{name}": float(n_samples),
            f"equal_budget_spent_s_{name}": spent_s,
            "equal_budget_loose_constant": card.metrics["constant_loose"],
        }
    return figures


def recipe_of(name: str, shipped: Recipe) -> Recipe:
    """Return what a network learns from: the data of the shipped weights on half as many pixels."""
    own = read_recipe(DEMO_RECIPE.parent / RECIPES[name])
    probe = shipped.probe
    one_probe = {
        "pupil_radius_px": probe.pupil_radius_px * N_PIXELS / shipped.n_pixels,
        "pupil_spread": 0.0,
        "disc_radius_px": probe.disc_radius_px * N_PIXELS / shipped.n_pixels,
        "disc_spread": 0.0,
        "roughness_rad": 0.0,
        "n_probes": 1,
    }
    changes = {key: getattr(own, key) for key in LEARNING} | {
        "name": f"equal-{name}",
        "network_config": CONFIGS[name],
        "probe": probe.model_copy(update=one_probe),
        "photons_per_frame": tuple(photons / 4 for photons in shipped.photons_per_frame),  # as many a pixel
        "n_textures": 400,
        "batch_size": 16,
        "texture_px": 128,
        "schedule": "cosine",
        "warm_up_steps": 50,
    }
    recipe = shipped.model_copy(update=changes)
    return recipe.evaluated_with(
        photons_per_frame=shipped.evaluation.photons_per_frame / 4,
        step_px=shipped.evaluation.step_px / 2,
        n_positions=8,
        objects_per_family=4,
    )


def trained_for(recipe: Recipe, cpu_s: float) -> tuple[ModelCard, float, int]:
    """Return the card after a training of about so many processor seconds, how many it took, and samples."""
    with tempfile.TemporaryDirectory(prefix="equal-budget-") as folder:
        n_steps = max(1, round(cpu_s / seconds_per_step(recipe, Path(folder) / "timed")))
        recipe = recipe.model_copy(update={"n_steps": n_steps, "report_every": max(1, n_steps // 20)})
        times: list[float] = []
        card = train(recipe, Path(folder), on_report=lambda report: times.append(time.process_time()))
    assert card is not None
    n_timed = n_steps - recipe.report_every  # the first report comes after the textures
    spent_s = (times[-1] - times[0]) * n_steps / n_timed if n_timed else 0.0
    return card, spent_s, n_steps * recipe.batch_size


def seconds_per_step(recipe: Recipe, folder: Path) -> float:
    """Return the processor time of a step of training, checkpoints left out; the first steps do not count."""
    times: list[float] = []

    def on_report(report: TrainingReport) -> None:
        times.append(time.process_time())
        if len(times) == 2:
            raise _EnoughError

    some = recipe.model_copy(
        update={"n_steps": 2 * TIMED_STEPS, "report_every": TIMED_STEPS, "n_textures": len(recipe.families)}
    )
    with contextlib.suppress(_EnoughError):
        train(some, folder, on_report=on_report)
    return (times[1] - times[0]) / TIMED_STEPS
