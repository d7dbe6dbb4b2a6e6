"""The `reconstruct` command: progress while it works, and what is written at its end."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from launch.offline.reconstruct import half_data_correlation, provenance_of, reconstruct
from launch.offline.recorded import RecordedScan, open_recorded
from launch.offline.task import ReconstructOptions
from launch.outputs import check_outputs
from launch.results.cxi import write_cxi, write_png
from launch.results.facts_table import facts_table
from launch.results.report import write_page, write_report
from launch.results.summary import write_summary
from operators.metrics.errors import FRC
from operators.optics.preprocess import Preprocess
from operators.reconstruct import Progress as OnProgress

HALF, ONE_SEVENTH = 0.5, 1 / 7  # customary thresholds of ring correlations


Choose = Callable[[RecordedScan], ReconstructOptions]


def reconstruct_file(
    source: str,
    choose: Choose,
    *,
    store: Path | None = None,
    output: Path | None = None,
    correlates_halves: bool = False,
    json_file: Path | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Reconstructs the scan called `source`, writes result, picture and report, and returns the figures.

    Parameters
    ----------
    source : str
        As for `launch.offline.recorded.open_recorded`.
    choose : callable
        Gets the scan and returns how to reconstruct it; see `options_for`.
    store : Path, optional
        Folder of the store.
    output : Path, optional
        CXI file; by default NAME-reconstruction.cxi in the current folder. Picture and report lie beside it.
    correlates_halves : bool
        Whether the two halves of the frames are reconstructed and correlated as well.
    json_file : Path, optional
        Gets the figures by name.
    overwrite : bool
        Whether files that exist are replaced.
    console : rich.console.Console, optional

    Raises
    ------
    ValueError
        If there is no such scan, or it lacks what the reconstruction needs.
    OSError
        If a file cannot be written, or exists and is not to be replaced; see `check_outputs`.
    """
    console = console or Console()
    with open_recorded(source, store) as scan:
        options = choose(scan)
        preprocess = scan.preprocess() if scan.preprocess else None
        output = output or Path(f"{scan.name}-reconstruction.cxi")
        picture, report = output.with_suffix(".png"), output.with_name(f"{output.stem}-report.png")
        page = report.with_suffix(".html")
        outputs: dict[str, Path | None] = {"--output": output, "the picture": picture, "the report": page}
        outputs |= {"the report's picture": report, "--json": json_file}
        check_outputs(outputs, inputs=[Path(source), store], overwrite=overwrite)
        started_s = time.perf_counter()
        with _shown(console, options.epochs) as progress:
            result = reconstruct(scan, options, preprocess=preprocess, progress=progress)
        figures = provenance_of(scan, options, result) | {"wall_s": time.perf_counter() - started_s}
        write_cxi(output, result, figures)
        write_png(picture, result)
        correlation = _halves_of(scan, options, preprocess, console) if correlates_halves else None
        if correlation is not None:
            figures["frc_half_cycles_per_px"] = correlation.crossing(HALF)
            figures["frc_one_seventh_cycles_per_px"] = correlation.crossing(ONE_SEVENTH)
        measured_m = scan.positions_m[np.isin(scan.frame_numbers, result.frame_numbers)]
        write_report(report, result, correlation, measured_m)
        write_page(page, result, figures, correlation, measured_m)
        figures |= {"result": str(output), "picture": str(picture)}
        figures |= {"report": str(page), "report_picture": str(report)}
    console.print(_table(figures))
    if json_file:
        write_summary(json_file, figures)
    return figures


def _halves_of(
    scan: RecordedScan, options: ReconstructOptions, preprocess: Preprocess | None, console: Console
) -> FRC:
    with _shown(console, 2 * options.epochs, "halves") as progress:
        return half_data_correlation(scan, options, preprocess=preprocess, progress=progress)


@contextmanager
def _shown(console: Console, n_epochs: float, what: str = "epoch") -> Iterator[OnProgress]:
    columns = TextColumn(f"{what:6}"), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn()
    error = TextColumn("{task.fields[error]}")
    with Progress(*columns, error, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=round(n_epochs), error="")
        yield lambda epoch, value: progress.update(task, completed=int(epoch), error=f"error {value:.4f}")


def _table(figures: dict[str, Any]) -> Table:
    rows = facts_table()
    rows.add_row("scan", escape(f"{figures['scan']}, {figures['frames']} frames"))
    rows.add_row("amplitude error", f"{figures['error']:.4f} after {figures['epochs']:g} epochs")
    if "frc_half_cycles_per_px" in figures:
        half, seventh = figures["frc_half_cycles_per_px"], figures["frc_one_seventh_cycles_per_px"]
        rows.add_row("halves agree", f"to {half:.3f} (0.5) and {seventh:.3f} (1/7) cycles/pixel")
    rows.add_row("took", f"{figures['wall_s']:.1f} s")
    for key in ("result", "picture", "report"):
        rows.add_row(key, escape(figures[key]))
    return rows
