"""The pictures of operators/README.md: what the shipped network makes of patterns and scans it has not seen.

`python -m tests.benchmarks._network_pictures FOLDER` draws them again, in a minute.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from launch.config.stages import DEMO_WEIGHTS
from launch.training.evaluate import EVALUATION_SEED, EvaluationScan, evaluation_probe, simulate_scans
from launch.training.recipe import Recipe
from operators.arrays import Patches, Probe, abs2
from operators.geometry import Bounds
from operators.metrics.errors import align_phase
from operators.mosaic.error_bars import ErrorModel
from operators.mosaic.mosaic import stitch
from operators.network.interface import illuminate
from operators.network.physics_net import first_estimate
from operators.network.predictor import Predictor
from operators.patches import extract_patches
from stream.files.weights import load_network
from tests.benchmarks._network_arena import SEEDED_EPOCHS, Arena

FAMILIES = {"siemens": "a family it was trained on", "filaments": "a family it has never seen"}
SHOWN_PX = 128  # side of the piece of a scan that is shown
ERROR_RAD = 0.3  # where the scale of errors ends


def draw(folder: Path) -> None:
    """Writes network-patches.png and network-mosaics.png."""
    torch.set_num_threads(1)
    network, card = load_network(DEMO_WEIGHTS)
    recipe, model = Recipe.model_validate(card.recipe), ErrorModel(**card.error_model)
    probe = evaluation_probe(recipe)
    predictor = Predictor(network, probe)
    one_each = recipe.evaluated_with(objects_per_family=1)
    scans = [next(simulate_scans(one_each, [family], EVALUATION_SEED)) for family in FAMILIES]
    _write(_patches(scans, probe, predictor), folder / "network-patches.png")
    _write(_mosaics(scans, probe, predictor, model), folder / "network-mosaics.png")


def _patches(scans: list[EvaluationScan], probe: Probe, predictor: Predictor) -> Figure:
    """One pattern of each scan, what physics alone makes of it, and the network."""
    figure, axes = _grid(len(scans), 6)
    for row, scan, title in zip(axes, scans, FAMILIES.values(), strict=True):
        frame = [len(scan.corners) // 2]
        pattern, truth = scan.patterns[frame], extract_patches(scan.object, scan.corners[frame], 64)
        patch, sigma = predictor.predict(pattern)
        row[0].imshow(np.log1p(np.fft.fftshift(pattern[0])), cmap="magma")
        lit = abs2(probe[0]) > 0.05 * abs2(probe[0]).max()
        guess = _back_projection(pattern, probe)
        for place, values in zip(row[1:4], (guess, patch, truth), strict=True):
            _show_phase(place, align_phase(values[0], truth[0], abs2(probe[0])), truth[0][lit], lit)
        off = np.angle(align_phase(patch[0], truth[0], abs2(probe[0])) * truth[0].conj())
        for place, values in zip(row[4:], (np.abs(off), sigma[0]), strict=True):
            _show_error(place, values, lit)
        row[0].set_ylabel(title)
    _name(axes[0], "pattern (log)", "back-projection", "network", "truth", "error of the phase", "error bar")
    return figure


def _mosaics(scans: list[EvaluationScan], probe: Probe, predictor: Predictor, model: ErrorModel) -> Figure:
    """Each scan after one pass of the network, and after some epochs from there and from a flat start."""
    figure, axes = _grid(len(scans), 6)
    for row, scan, title in zip(axes, scans, FAMILIES.values(), strict=True):
        arena = Arena(scan, probe)
        mosaic = stitch(
            *predictor.predict(scan.patterns), arena.illumination, scan.corners, error_model=model
        )
        picture = mosaic.picture(Bounds(0, 0, *scan.object.shape))
        flat, seeded = arena.flat("rpie", SEEDED_EPOCHS), arena.seeded(mosaic)
        inside = tuple(slice((n - SHOWN_PX) // 2, (n + SHOWN_PX) // 2) for n in scan.object.shape)
        truth = scan.object[inside]
        everywhere = np.ones(truth.shape, bool)
        for place, values in zip(
            row, (flat.object, picture.object, seeded.object, scan.object), strict=False
        ):
            _show_phase(place, align_phase(values[inside], truth), truth, everywhere)
            place.set_xlabel(f"c = {arena.error(values).c:.2f}" if values is not scan.object else "")
        off = np.angle(align_phase(picture.object[inside], truth) * truth.conj())
        for place, values in zip(row[4:], (np.abs(off), picture.sigma[inside]), strict=True):
            _show_error(place, values, everywhere)
        row[0].set_ylabel(title)
    seeded_name = f"network + {SEEDED_EPOCHS} epochs"
    titles = f"rPIE, {SEEDED_EPOCHS} epochs", "network, one pass", seeded_name, "truth"
    _name(axes[0], *titles, "error of one pass", "error bar of one pass")
    return figure


def _back_projection(pattern: Any, probe: Probe) -> Patches:
    illumination = illuminate(torch.from_numpy(probe))
    shares = torch.from_numpy(pattern) / float(abs2(probe).sum())
    return first_estimate(shares.sqrt(), illumination).numpy()


def _grid(n_rows: int, n_columns: int) -> tuple[Figure, Any]:
    figure = Figure(figsize=(2.1 * n_columns, 2.3 * n_rows), dpi=110, layout="constrained")
    axes = figure.subplots(n_rows, n_columns)
    for place in axes.flat:
        place.set(xticks=[], yticks=[])
    return figure, axes


def _name(row: Any, *titles: str) -> None:
    for place, title in zip(row, titles, strict=True):
        place.set_title(title, fontsize=10)


def _show_phase(place: Axes, values: np.ndarray, truth: np.ndarray, where: np.ndarray) -> None:
    low, high = np.angle(truth).min(), np.angle(truth).max()
    place.imshow(np.where(where, np.angle(values), np.nan), cmap="gray", vmin=low, vmax=high)


def _show_error(place: Axes, values: np.ndarray, where: np.ndarray) -> None:
    image = place.imshow(np.where(where, values, np.nan), cmap="viridis", vmin=0, vmax=ERROR_RAD)
    place.figure.colorbar(image, ax=place, label="rad", shrink=0.8)


def _write(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure).print_png(path)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
