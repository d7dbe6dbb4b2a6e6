"""A report about a reconstruction: object, probe, convergence, positions and, if known, agreement of halves.

A page of HTML carries its pictures inside, opens anywhere without a network and is set for a projector; a
PNG has the same on one sheet.
"""

import base64
import html
import io
import string
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from launch.results.pictures import draw_object, draw_probe
from launch.results.reconstruction import Reconstruction
from launch.results.resolution import resolution_figures, resolution_text
from operators.arrays import Positions
from operators.metrics.errors import FRC
from stream.atomic import replacing
from stream.record.events import Event

TEMPLATE = Path(__file__).with_name("report.html")
DPI = 110
PROJECTED: dict[Any, Any] = {"font.size": 15, "lines.linewidth": 2.5}
MOVED = 1e-3  # object pixels: less is rounding


def write_report(path: Path, result: Reconstruction, measured_m: Positions | None = None) -> None:
    """Writes the sheet as PNG.

    Parameters
    ----------
    path : Path
    result : Reconstruction
    measured_m : (frame, 2) float64, metres, optional
        Positions of the result's frames before they were refined.
    """
    figure = Figure(figsize=(14, 15), dpi=DPI, layout="constrained")
    above, middle, below = np.asarray(figure.subfigures(3, 1, height_ratios=(5, 5, 3.6)))
    draw_object(above, result)
    draw_probe(middle, result)
    errors, where, *rest = below.subplots(1, 2 if result.halves is None else 3)
    _plot_errors(errors, result.error_history)
    _plot_positions(where, result, measured_m)
    if result.halves is not None:
        _plot_correlation(rest[0], result.halves, result.geometry.object_pixel_m)
    with replacing(path) as temporary:
        temporary.write_bytes(_png(figure))


def write_page(
    path: Path,
    result: Reconstruction,
    provenance: Mapping[str, Any],
    measured_m: Positions | None = None,
    events: Sequence[Event] = (),
) -> None:
    """Writes the page as HTML; the file appears when it is complete.

    Parameters
    ----------
    path : Path
    result : Reconstruction
    provenance : mapping
        Plain values for the table; `scan` is the title, `frames`, `epochs` and `error` the line below it.
    measured_m
        As for `write_report`.
    events : sequence of Event
        What happened while the scan was recorded.
    """
    pictures: list[tuple[str, float, Callable[[Figure], object]]] = [
        ("Object", 6.6, lambda figure: draw_object(figure, result)),
        ("Probe", 7.4, lambda figure: draw_probe(figure, result)),
        ("Convergence", 5.4, lambda figure: _plot_errors(figure.subplots(), result.error_history)),
    ]
    if (halves := result.halves) is not None:
        pixel_m = result.geometry.object_pixel_m
        pictures.append(
            ("Resolution", 5.4, lambda figure: _plot_correlation(figure.subplots(), halves, pixel_m))
        )
    pictures.append(("Positions", 7.0, lambda figure: _plot_positions(figure.subplots(), result, measured_m)))
    page = string.Template(TEMPLATE.read_text()).substitute(
        title=html.escape(str(provenance["scan"])),
        summary=html.escape(
            f"{provenance['frames']} frames, {provenance['epochs']:g} epochs, "
            f"amplitude error {provenance['error']:.4f}, pixel {1e9 * result.geometry.object_pixel_m:.3g} nm"
        ),
        sections="\n".join([*(_section(*picture) for picture in pictures), *_what_happened(events)]),
        rows="\n".join(_row(name.replace("_", " "), _shown(value)) for name, value in provenance.items()),
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _section(title: str, height: float, draw: Callable[[Figure], object]) -> str:
    with rc_context(PROJECTED):
        figure = Figure(figsize=(14, height), dpi=DPI, layout="constrained")
        draw(figure)
        picture = base64.b64encode(_png(figure)).decode()
    return f'<section><h2>{title}</h2><img alt="{title}" src="data:image/png;base64,{picture}"></section>'


def _what_happened(events: Sequence[Event]) -> list[str]:
    """Return the section with all events, the oldest first; none where nothing is on record."""
    rows = [
        _row(
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.time_s)),
            f"{event.source}: {event.text}",
            event.level,
        )
        for event in events
    ]
    return ["\n".join(["<section><h2>Events</h2>", "<table>", *rows, "</table></section>"])] if rows else []


def _row(name: str, text: str, kind: str = "") -> str:
    marked = f' class="{kind}"' if kind else ""
    return f"<tr{marked}><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>"


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _plot_errors(axes: Any, errors: Any) -> None:
    axes.semilogy(np.arange(1, len(errors) + 1), errors)
    axes.set(xlabel="epoch", ylabel="amplitude error", title=f"{errors[-1]:.4f} at the end")
    axes.grid(alpha=0.3)


def _plot_positions(axes: Any, result: Reconstruction, measured_m: Positions | None) -> None:
    y, x = 1e6 * result.positions_m.T
    axes.plot(x, y, lw=0.3, color="0.7")
    title = f"{len(x)} positions"
    if measured_m is not None:
        moves_px = result.geometry.to_pixels(result.positions_m - measured_m)
        distance_px = np.sqrt((moves_px**2).sum(axis=1).mean())
        if distance_px > MOVED:
            axes.scatter(*(1e6 * measured_m[:, ::-1].T), s=14, marker="x", color="0.5", label="as measured")
            title += f", moved by {distance_px:.2f} pixels rms"
    points = axes.scatter(x, y, c=result.frame_numbers, s=8, label="as refined")
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, frameon=False)
    axes.figure.colorbar(points, ax=axes, label="frame")
    axes.set(xlabel="x / µm", ylabel="y / µm", title=title, aspect="equal")
    low, high = axes.get_ylim()
    margin = max(0.0, np.ptp(axes.get_xlim()) / 4 - (high - low)) / 2  # a scan of one row is no line
    axes.set_ylim(high + margin, low - margin)


def _plot_correlation(axes: Any, halves: FRC, pixel_m: float) -> None:
    figures = resolution_figures(halves, pixel_m)
    axes.plot(halves.frequency, halves.correlation, label="agreement of halves")
    axes.plot(halves.frequency, halves.half_bit, color="0.4", ls="--", label="half a bit per pixel")
    axes.axvline(figures["frc_half_bit_cycles_per_px"], color="0.4", lw=0.8)
    axes.set(
        xlabel="spatial frequency / cycles per pixel",
        ylabel="ring correlation",
        xlim=(0, 0.5),
        ylim=(None, 1.03),
    )
    axes.set_title(resolution_text(figures).replace(": ", ":\n"))
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
