"""Pictures of a result: amplitude and phase of object and probe, with axes, units and the page's colours."""

import gc
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure, FigureBase
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from launch.results.colours import OF_MAP, PERCENTILES, drawn_phase, tables
from launch.results.reconstruction import Reconstruction
from operators.arrays import Array, Mask, abs2
from operators.metrics.gauge import flattened
from stream.atomic import replacing

WELL_LIT = 0.1  # of the peak illumination: what a picture shows
MOST_MODES = 4
SCALE_BARS_M = [factor * 10.0**power for power in range(-9, -2) for factor in (1, 2, 5)]
WIDE = 1.8  # times as wide as high: better above each other than side by side

_UNLIT = "0.85"
_DIM = 1e-3  # of a mode's peak intensity: its phase is noise


def write_png(path: Path, result: Reconstruction) -> None:
    """Writes amplitude and phase of the well-lit object as `draw_object` shows them."""
    figure = Figure(figsize=(11, 5.2), dpi=150, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    draw_object(figure, result)
    with replacing(path) as temporary:
        canvas.print_png(temporary)  # `savefig` would draw all of it once more before that, for the layout
    del figure, canvas
    gc.collect()  # it refers to itself, with its megabytes, and a run writes one after the other


def draw_object(figure: FigureBase, result: Reconstruction) -> None:
    """Draws amplitude and phase of the well-lit object; a position, in µm, is where the probe's middle was.

    The phase is shown without its mean and linear ramp, which a reconstruction leaves free.
    """
    window = _lit_window(result.photons)
    lit = result.photons[window] > WELL_LIT * result.photons.max()
    shown, _ = flattened(result.object[window], lit)
    shown = shown * np.exp(-1j * np.angle(shown[lit].sum()))
    pixel_m, half = result.geometry.object_pixel_m, result.geometry.n_pixels / 2
    corner = [start + part.start - half for start, part in zip(result.bounds.origin, window, strict=True)]
    height, width = shown.shape
    amplitude, phase = figure.subplots(*((2, 1) if width > WIDE * height else (1, 2)), squeeze=False).flat
    _draw_amplitude(amplitude, np.abs(shown), lit, pixel_m, corner, unit="transmission")
    _draw_phase(phase, np.angle(shown), lit, pixel_m, corner)
    for axes, title in ((amplitude, "amplitude"), (phase, "phase")):
        axes.set_title(title)
        _scale_bar(axes, width * pixel_m, thickness=0.018 * min(2.0, max(1.0, width / height)))


def draw_probe(figure: FigureBase, result: Reconstruction) -> None:
    """Draws amplitude and phase of the strongest modes; x and y in µm from the window's centre."""
    probe, pixel_m = result.probe, result.geometry.object_pixel_m
    powers, n = abs2(probe).sum(axis=(1, 2)), probe.shape[-1]
    modes = probe[:MOST_MODES]
    if len(modes) == 1:
        pairs = figure.subplots(1, 2, squeeze=False)
    else:
        pairs = figure.subplots(2, len(modes), squeeze=False).T
    for number, (mode, (amplitude, phase)) in enumerate(zip(modes, pairs, strict=True)):
        power = abs2(mode)
        mode = mode * np.exp(-1j * np.angle((mode * power).sum()))
        corner = [-n / 2, -n / 2]
        everywhere = np.ones(mode.shape, bool)
        _draw_amplitude(amplitude, np.abs(mode), everywhere, pixel_m, corner, unit="√(photons/pixel)", low=0)
        _draw_phase(phase, np.angle(mode), power > _DIM * power.max(), pixel_m, corner)
        phase.set_title("phase")
        amplitude.set_title(f"mode {number + 1}: {powers[number] / powers.sum():.1%} of the power")


@cache
def colour_map(name: str) -> ListedColormap:
    """Returns one of `launch.results.colours.tables` for matplotlib."""
    return ListedColormap(tables()[name] / 255, name=name)


def _draw_amplitude(
    axes: Any, values: Array, lit: Mask, pixel_m: float, corner: Any, *, unit: str, low: float | None = None
) -> None:
    fitted = np.percentile(values[lit], PERCENTILES)
    span = (float(fitted[0]) if low is None else low, float(fitted[1]) if low is None else values.max())
    _draw(axes, np.where(lit, values, np.nan), OF_MAP["amplitude"], span, pixel_m, corner, unit)


def _draw_phase(axes: Any, values: Array, lit: Mask, pixel_m: float, corner: Any) -> None:
    colours, low, high = drawn_phase(*np.percentile(values[lit], PERCENTILES))
    bar = _draw(axes, np.where(lit, values, np.nan), colours, (low, high), pixel_m, corner, "rad")
    if colours == "cyclic":
        bar.set_ticks([-np.pi, 0, np.pi], labels=["−π", "0", "π"])


def _draw(
    axes: Any,
    values: NDArray[Any],
    colours: str,
    span: tuple[float, float],
    pixel_m: float,
    corner: Any,
    unit: str,
) -> Any:
    """Draw one map whose pixel [0, 0] is at `corner`, (row, col) pixels, and return its colour bar."""
    height, width = values.shape
    top, left = corner
    edges = np.array([left, left + width, top + height, top]) * pixel_m * 1e6
    low, high = span
    image = axes.imshow(
        values,
        cmap=colour_map(colours),
        vmin=low,
        vmax=max(high, low + 1e-6 * max(abs(low), 1)),
        extent=edges,
        interpolation="nearest",
    )
    axes.set_facecolor(_UNLIT)
    axes.set(xlabel="x / µm", ylabel="y / µm")
    return axes.figure.colorbar(image, cax=axes.inset_axes((1.03, 0, 0.05, 1)), label=unit)


def _lit_window(photons: Array) -> tuple[slice, slice]:
    lit = photons > WELL_LIT * photons.max()
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _scale_bar(axes: Any, width_m: float, thickness: float) -> None:
    """Draw a bar of a round length in the lower left corner, outlined to be seen on any ground."""
    length_m = max((bar for bar in SCALE_BARS_M if bar < width_m / 4), default=width_m / 4)
    label = f"{length_m * 1e6:g} µm" if length_m >= 1e-6 else f"{length_m * 1e9:g} nm"
    share = length_m / width_m
    style = {"transform": axes.transAxes, "facecolor": "w", "edgecolor": "k", "lw": 1}
    axes.add_patch(Rectangle((0.04, 0.04), share, thickness, **style))
    outline = [withStroke(linewidth=3, foreground="k")]
    text = {"transform": axes.transAxes, "color": "w", "path_effects": outline, "weight": "bold"}
    axes.text(0.04 + share / 2, 0.05 + thickness, label, ha="center", va="bottom", **text)
