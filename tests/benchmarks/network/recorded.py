"""What a network makes of a recorded scan that it was matched to: patches and ground that it has not seen.

All other figures of the network are of simulated scans. Trains for a quarter of an hour, unless the weights
of an earlier training lie in the folder, and leaves weights and a picture there.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from launch.training.evaluate import BRIGHT, LIT, EvaluationScan, Outcome, error_in_sigmas, outcome_of
from launch.training.recipe import Recipe, read_recipe
from launch.training.scan_labels import ScanLabels, labels_of
from launch.training.train import progress_bar, train
from operators.arrays import Array, Mask, Object, abs2
from operators.geometry import Bounds
from operators.metrics.errors import nrmse, phase_correlation_coefficient
from operators.metrics.gauge import remove_gauge
from operators.mosaic.error_bars import ErrorModel, coverage
from operators.mosaic.stitching import stitch
from operators.network.predictor import Predictor
from stream.files.weights import load_network
from tests.benchmarks.engines.recorded import SIEMENS
from tests.benchmarks.figures import Benchmark, Figures
from tests.benchmarks.network.scans import refined_to, refiner_of
from tests.benchmarks.network.threads import torch_threads

SCAN = str(SIEMENS / "siemens.cxi")
RECIPE = Path(__file__).parents[3] / "launch" / "recipes" / "train-siemens.yaml"
MOST_EPOCHS = 40


@torch_threads(2)
def recorded_figures(folder: Path, **changes: Any) -> dict[str, float]:
    """Return the figures by name; trains unless the weights lie in the folder.

    Errors are differences from the refined object that the labels come from. Only ground that no frame of the
    training has lit counts (`unseen_*`), or patches of frames kept aside (`patch_c`, and what their 68 and
    95 % bars hold). `flat_epochs` are the epochs that rPIE, which is told the same refined probe, needs from
    a flat start for the same error there.

    Parameters
    ----------
    folder : Path
    **changes
        To the recipe.
    """
    recipe = read_recipe(RECIPE).model_copy(update=changes)
    network, card = load_network(_weights(recipe, folder))
    recipe = Recipe.model_validate(card.recipe)
    assert recipe.scan is not None
    labels = labels_of(recipe, folder)
    n_trained = labels.split(recipe.scan.held_out)
    predictor, weights = Predictor(network, labels.probe, mask=labels.valid), abs2(labels.probe).sum(axis=0)
    scan = EvaluationScan(labels.object, labels.corners, labels.patterns)
    outcome = outcome_of(predictor, weights, scan)
    model = ErrorModel(**card.error_model)
    mosaic = stitch(outcome.patches, outcome.sigma, weights, labels.corners, model)
    picture = mosaic.picture(Bounds(0, 0, *labels.object.shape))
    lit = picture.photons > LIT * picture.photons.max()
    truth, found = labels.object, picture.object
    unseen = lit & (np.arange(lit.shape[0])[:, None] < _first_lit_row(labels, n_trained))
    c = nrmse(found, truth, unseen).c
    _draw(found, truth, picture.sigma, lit, unseen, folder / "siemens-network.png")
    return {
        "patch_c": card.metrics["scan_patch_c"],
        **_coverage(Outcome(scan, *(values[n_trained:] for values in outcome[1:])), weights),
        "unseen_pixels": float(unseen.sum()),
        "unseen_c": c,
        "unseen_phase_correlation": phase_correlation_coefficient(found, truth, unseen),
        "flat_epochs": _flat_epochs(labels, unseen, c),
    }


def _weights(recipe: Recipe, folder: Path) -> Path:
    weights = folder / f"{recipe.name}.safetensors"
    if weights.exists():
        return weights
    with progress_bar(recipe) as on_report:
        train(recipe, folder, from_scan=SCAN, on_report=on_report)
    return weights


def _first_lit_row(labels: ScanLabels, n_trained: int) -> int:
    """Return the first row of the object on which a frame of the training has put light.

    The star was scanned from the bottom to the top.
    """
    beam = abs2(labels.probe).sum(axis=0).max(axis=1)
    margin = int(np.flatnonzero(beam > BRIGHT * beam.max())[0])
    return int(labels.corners[:n_trained, 0].min()) + margin


def _coverage(outcome: Outcome, weights: Array) -> dict[str, float]:
    ratios = error_in_sigmas(outcome, weights)
    within = coverage(ratios, np.ones_like(ratios))
    return {"patch_coverage68": within.within68, "patch_coverage95": within.within95}


def _flat_epochs(labels: ScanLabels, where: Mask, c: float) -> float:
    """Return the epochs after which rPIE from a flat start is as good, infinite where they do not suffice."""
    truth = labels.object
    refiner = refiner_of(labels.patterns, labels.corners, labels.probe, labels.valid, levels=False)
    for n_epochs in range(1, MOST_EPOCHS + 1):
        snapshot = refined_to(refiner, n_epochs)
        object_ = snapshot.object[Bounds(0, 0, *truth.shape).slices_in(snapshot.bounds)]
        if nrmse(remove_gauge(object_, truth, weights=where.astype(float)), truth, where).c <= c:
            return float(n_epochs)
    return float("inf")


def _draw(found: Object, truth: Object, sigma: Array, lit: Mask, unseen: Mask, path: Path) -> None:
    common = np.vdot(truth[lit], found[lit])
    off = np.abs(np.angle(found * truth.conj() * np.conj(common)))
    zero = np.conj(truth[lit].mean())
    turned = found * np.conj(common) / abs(common)
    panels = (
        ("refined, 60 epochs", np.angle(truth * zero), "gray", (-1.0, 0.6)),
        ("one pass of the network", np.angle(turned * zero), "gray", (-1.0, 0.6)),
        ("difference of the phases / rad", off, "viridis", (0.0, 0.5)),
        ("error bar / rad", sigma, "viridis", (0.0, 0.5)),
    )
    rows, columns = (slice(edges[0], edges[-1] + 1) for edges in map(np.unique, np.nonzero(lit)))
    border = np.flatnonzero(unseen.any(axis=1))[-1] - rows.start
    figure = Figure(figsize=(14, 3.6), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, values, colours, limits) in zip(figure.subplots(1, 4), panels, strict=True):
        shown = np.where(lit, values, np.nan)[rows, columns]
        image = axes.imshow(shown, cmap=colours, vmin=limits[0], vmax=limits[1])
        axes.axhline(border, color="tab:red", lw=1)
        axes.set(title=title, xticks=[], yticks=[])
        figure.colorbar(image, ax=axes, shrink=0.8)
    figure.savefig(path)


def measure(folder: Path) -> Iterator[Figures]:
    """Yield the figures; weights and a picture lie in `folder`."""
    yield recorded_figures(folder)


BENCHMARK = Benchmark(measure=measure)
