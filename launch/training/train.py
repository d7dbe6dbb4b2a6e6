"""Train a network on simulated scans: one loop, read top to bottom.

Objects, probes and photons are drawn on the fly, so nothing is seen twice and nothing lies on disk. A
training is given by its recipe alone: the budget is in steps, not in seconds, and on a CPU the same recipe
gives the same weights.
"""

import csv
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from launch.config.config import SHIPPED_WEIGHTS
from launch.outputs import check_outputs
from launch.training.calibrate import calibrate_mosaic, calibrate_sigma
from launch.training.checkpoint import Checkpoint, TrainingReport
from launch.training.data import open_source
from launch.training.descent import descend
from launch.training.evaluate import judge
from launch.training.parallel import Processes, check_shares, is_first_process, join_processes
from launch.training.recipe import Recipe
from launch.training.scan_labels import held_out_error, labels_of, with_scan
from operators.network.interface import Network, channels_last
from operators.network.predictor import Predictor
from operators.network.registry import NETWORKS
from stream.atomic import replacing
from stream.files.weights import ModelCard, load_network, save_network
from stream.stages.inference.predictors import torch_device

Generator = torch.Generator
OPTIMISERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


def train(
    recipe: Recipe,
    directory: Path,
    *,
    device: str = "cpu",
    from_scan: str | None = None,
    on_report: Callable[[TrainingReport], None] = lambda report: None,
    recipe_file: Path | None = None,
    overwrite: bool = False,
) -> ModelCard | None:
    """Train, calibrate and evaluate a network; write weights, card, log and checkpoints to a directory.

    A training that was interrupted goes on from the checkpoint in the directory. Under `torchrun` each
    process works on its share of every batch; the first writes the files, and only there a card is returned.

    Parameters
    ----------
    recipe : Recipe
    directory : Path
        Receives NAME.safetensors, NAME.json, NAME.csv and, until the end, NAME.checkpoint.
    device : str
        Where torch works; "cuda" gives each process a GPU of its own. Only "cpu" with a fixed number of
        threads repeats to the last bit.
    from_scan : str, optional
        Recorded scan to learn from, as for `launch.training.scan_labels.with_scan`.
    on_report : callable
        Gets a `TrainingReport` every `recipe.report_every` steps, after the checkpoint.
    recipe_file : Path, optional
        Where the recipe was read, which no output may replace.
    overwrite : bool
        Whether finished weights of this name may be replaced.

    Raises
    ------
    ValueError
        If there is no such device here, or the processes cannot share a batch evenly.
    OSError
        If a file cannot be written, or exists and is not to be replaced; see `check_outputs`.
    """
    torch_device(device)
    check_shares(recipe.batch_size)
    inputs = [recipe_file, recipe.probe.path, initial_weights(recipe, directory)]
    check_outputs(outputs_of(recipe, directory, from_scan), inputs=inputs, overwrite=overwrite)
    directory.mkdir(parents=True, exist_ok=True)
    with join_processes(device) as processes:
        if from_scan is not None:
            with processes.first_ahead():
                recipe = with_scan(recipe, from_scan, directory)
        network, parent = start_network(recipe, directory, processes.device)
        checkpoint = optimise(recipe, network, directory, processes, on_report)
    if not processes.is_first:
        return None
    card = finish(recipe, network, parent, directory, processes.device)
    checkpoint.path.unlink()
    return card


def optimise(
    recipe: Recipe,
    network: Network,
    directory: Path,
    processes: Processes,
    on_report: Callable[[TrainingReport], None],
) -> Checkpoint:
    """Take the steps of a recipe that are left and return the last checkpoint; arguments as for `train`.

    What the processes share ends with this function, before they part: see `join_processes`.
    """
    source = open_source(recipe, directory, processes.device)
    parallel = processes.parallel(network)
    optimiser = OPTIMISERS[recipe.optimiser](network.parameters(), weight_decay=recipe.weight_decay)
    generator = Generator(processes.device).manual_seed(recipe.seed)
    checkpoint = Checkpoint(directory, recipe, network, optimiser, generator)
    reports = checkpoint.load()
    sums = torch.zeros(3, device=processes.device)
    for step in range(reports[-1].step if reports else 0, recipe.n_steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(recipe, step)
        batch = processes.share(*source.draw(recipe.batch_size, generator))
        sums += descend(recipe, parallel, optimiser, batch)
        if (step + 1) % recipe.report_every == 0 or step + 1 == recipe.n_steps:
            n_losses = processes.size * (step + 1 - (reports[-1].step if reports else 0))
            reports.append(new_report(recipe, step, processes.total(sums) / n_losses))
            sums.zero_()
            if processes.is_first:
                checkpoint.save(reports)
                write_log(directory / f"{recipe.name}.csv", reports)
                on_report(reports[-1])
    return checkpoint


def outputs_of(recipe: Recipe, directory: Path, from_scan: str | None) -> dict[str, Path]:
    """Return the files that a training writes, without those that go on with its checkpoint."""
    outputs = {"weights": f"{recipe.name}.safetensors", "card": f"{recipe.name}.json"}
    if not (directory / f"{recipe.name}.checkpoint").exists():
        outputs |= {"log": f"{recipe.name}.csv"}
        outputs |= {"probe": f"{recipe.name}-probe.npy"} if from_scan is not None else {}
    return {what: directory / name for what, name in outputs.items()}


@contextmanager
def told_where_to_go_on(recipe: Recipe, directory: Path) -> Iterator[None]:
    """Says what is kept of a training that somebody ends."""
    try:
        yield
    except KeyboardInterrupt:
        checkpoint = directory / f"{recipe.name}.checkpoint"
        if checkpoint.exists():
            print(f"ended; the same command goes on from {checkpoint}")
        else:
            print(f"ended before step {recipe.report_every}, the first that is kept")
        raise


@contextmanager
def progress_bar(recipe: Recipe) -> Iterator[Callable[[TrainingReport], None]]:
    """Show a training on the terminal; yields what to give `train` as `on_report`."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not is_first_process()) as progress:
        task = progress.add_task(recipe.name, total=recipe.n_steps)

        def show(report: TrainingReport) -> None:
            progress.update(task, completed=report.step, description=f"{recipe.name}  c {report.c:.3f}")

        yield show


def initial_weights(recipe: Recipe, directory: Path) -> Path | None:
    """Return the file that a training begins with, None where it begins with random weights."""
    given = recipe.initial_weights
    return given and SHIPPED_WEIGHTS.get(str(given), directory / given)


def start_network(recipe: Recipe, directory: Path, device: str) -> tuple[Network, str]:
    """Return the network to train, and the version of the weights that it begins with, "" for random ones.

    The weights may come from a network that works in another window, its layers are the same, or from one of
    more stages: of those the first are taken.

    Raises
    ------
    ValueError
        If the weights to begin with are those of other layers.
    """
    parent = ""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = NETWORKS[recipe.network](**recipe.network_config)
    path = initial_weights(recipe, directory)
    if path is not None:
        initial, card = load_network(path)
        parent, layers = card.model_id, network.state_dict()
        given = {
            name: values
            for name, values in initial.state_dict().items()
            if name in layers or not name.startswith("stages.")
        }
        try:
            network.load_state_dict(given)
        except RuntimeError as error:
            raise ValueError(
                f"initial_weights: {path} holds {card.network} {card.config}, whose weights do not fit what "
                f"the recipe wants, {recipe.network} {recipe.network_config}: {error}"
            ) from error
    return channels_last(network.to(device)).train(), parent


def learning_rate(recipe: Recipe, step: int) -> float:
    """Return the rate at a step, counted from 0: a linear rise, then the fall that the schedule says."""
    done = step + 1
    if recipe.schedule == "cosine":
        left = 0.5 + 0.5 * math.cos(math.pi * done / recipe.n_steps)
    elif recipe.schedule == "steps":
        left = recipe.decay_factor ** (step // recipe.decay_steps)
    else:
        left = min(1.0, (recipe.n_steps - done) / recipe.decay_steps)
    return recipe.learning_rate * min(1.0, done / recipe.warm_up_steps) * left


def new_report(recipe: Recipe, step: int, means: Tensor) -> TrainingReport:
    """Return the report after a step from the mean figures of `losses`; here the CPU waits for the device."""
    square, variance, sigma_loss = means.tolist()
    return TrainingReport(step + 1, learning_rate(recipe, step), math.sqrt(square / variance), sigma_loss)


def write_log(path: Path, reports: list[TrainingReport]) -> None:
    """Write all reports so far as CSV."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([TrainingReport._fields, *reports])


def finish(recipe: Recipe, network: Network, parent: str, directory: Path, device: str) -> ModelCard:
    """Calibrate sigma and the error model of mosaics, measure on held-out objects, and save."""
    network.eval()
    calibrate_sigma(network, recipe, device)
    error_model, transmission = calibrate_mosaic(network, recipe)
    metrics = judge(network, recipe, device)
    if recipe.scan is not None:
        labels = labels_of(recipe, directory)
        metrics |= held_out_error(
            Predictor(network, labels.probe, device=device, mask=labels.valid),
            labels,
            recipe.scan.held_out,
        )
    card = ModelCard(
        name=recipe.name,
        network=recipe.network,
        config=recipe.network_config,
        recipe=recipe.model_dump(mode="json"),
        seed=recipe.seed,
        data=recipe.describe_data(),
        probe=recipe.probe.ranges(),
        photons_per_frame=recipe.photons_per_frame,
        metrics=metrics,
        parent=parent,
        error_model=asdict(error_model),
        transmission=transmission,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return save_network(directory / f"{recipe.name}.safetensors", network, card)
