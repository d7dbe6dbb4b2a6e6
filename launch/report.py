"""One page about a reconstruction: object, probe, convergence, positions and, if known, agreement of halves.

Separate from `launch.results`, whose picture shows the object alone. Called by `launch.offline`.
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from launch.results import Reconstruction, show_object
from operators.metrics import FRC

MOST_MODES = 4
THRESHOLDS = {"0.5": 0.5, "1/7": 1 / 7}


def write_report(path: Path, result: Reconstruction, correlation: FRC | None = None) -> None:
    """Writes the page as PNG.

    Parameters
    ----------
    path : Path
    result : Reconstruction
    correlation : FRC, optional
        Of two halves of the frames.
    """
    figure = Figure(figsize=(14, 11), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    above, middle, below = np.asarray(figure.subfigures(3, 1, height_ratios=(5, 2.6, 3.4)))
    show_object(above, result)
    modes = result.probe[:MOST_MODES]
    _show_probe(np.atleast_1d(middle.subplots(1, len(modes))), modes, result.probe)
    errors, where, *rest = below.subplots(1, 2 if correlation is None else 3)
    _plot_errors(errors, result.error_history)
    _plot_positions(where, result)
    if correlation is not None:
        _plot_correlation(rest[0], correlation)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _show_probe(all_axes: Any, modes: Any, probe: Any) -> None:
    powers = (np.abs(probe) ** 2).sum(axis=(1, 2))
    for number, (axes, mode) in enumerate(zip(all_axes, modes, strict=True)):
        axes.imshow(np.abs(mode), cmap="magma", interpolation="nearest")
        axes.set_title(f"probe mode {number + 1}: {powers[number] / powers.sum():.1%} of the power")
        axes.set_axis_off()


def _plot_errors(axes: Any, errors: Any) -> None:
    axes.semilogy(np.arange(1, len(errors) + 1), errors)
    axes.set(xlabel="epoch", ylabel="amplitude error", title=f"last {errors[-1]:.4f}")
    axes.grid(alpha=0.3)


def _plot_positions(axes: Any, result: Reconstruction) -> None:
    y, x = 1e6 * result.positions_m.T
    axes.plot(x, y, lw=0.3, color="0.7")
    points = axes.scatter(x, y, c=result.frame_numbers, s=4)
    axes.figure.colorbar(points, ax=axes, label="frame")
    axes.set(xlabel="x / µm", ylabel="y / µm", title=f"{len(x)} positions", aspect="equal")
    axes.invert_yaxis()


def _plot_correlation(axes: Any, correlation: FRC) -> None:
    axes.plot(correlation.frequency, correlation.correlation)
    for name, threshold in THRESHOLDS.items():
        crossing = correlation.crossing(threshold)
        axes.axhline(threshold, color="0.6", lw=0.8, ls="--")
        axes.text(0.5, threshold, f"{name} at {crossing:.3f}", ha="right", va="bottom")
    axes.set(xlabel="cycles/pixel", ylabel="correlation", title="agreement of halves", xlim=(0, 0.5))
