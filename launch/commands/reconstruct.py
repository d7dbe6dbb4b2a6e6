"""The `reconstruct` command: progress while it works, and what is written at its end."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from launch.offline.given import Given, open_given
from launch.offline.reconstruct import half_data_correlation, provenance_of, reconstruct
from launch.offline.recorded import RecordedScan, default_store
from launch.offline.task import ReconstructOptions
from launch.offline.tile_places import HERE, TilePlaces
from launch.outputs import check_outputs
from launch.results.cxi import Reconstruction, write_cxi
from launch.results.facts_table import FactsTable, show_notes
from launch.results.pictures import write_png
from launch.results.product import write_product
from launch.results.report import write_page, write_report
from launch.results.resolution import resolution_figures, resolution_text
from launch.results.summary import motion_text, write_summary
from launch.signals import Asked, Interrupted, ends_on_signals
from operators.metrics.errors import FRC
from operators.optics.preprocess import Preprocess
from operators.reconstruct import Progress as OnProgress
from stream.files.sources import files_of

CHEAP_S = 60.0  # halves take about as long as all frames did
_CALLED = {  # files, by what people call them; others are called by their option
    "result": "--output",
    "picture": "the picture",
    "report": "the report",
    "report_picture": "the report's picture",
}

Choose = Callable[[RecordedScan], ReconstructOptions]


def reconstruct_file(
    source: str,
    choose: Choose,
    *,
    given: Given | None = None,
    store: Path | None = None,
    output: Path | None = None,
    product: Path | None = None,
    correlates_halves: bool | None = None,
    json_file: Path | None = None,
    overwrite: bool = False,
    console: Console | None = None,
    places: TilePlaces = HERE,
) -> dict[str, Any]:
    """Reconstructs the scan called `source`, writes result, picture and report, and returns the figures.

    Parameters
    ----------
    source : str
        As for `launch.offline.recorded.open_recorded`.
    choose : callable
        Gets the scan and returns how to reconstruct it; see `options_for`.
    given : Given, optional
        What is said of the scan beside what lies in it.
    store : Path, optional, the store's folder
    output : Path, optional
        CXI file; by default NAME-reconstruction.cxi in the current folder. Picture and report lie beside it.
    product : Path, optional
        Gets the result once more as a product of ptychodus (HDF5).
    correlates_halves : bool, optional
        Whether the two halves of the frames are reconstructed and correlated as well; by default if all of
        them took less than `CHEAP_S`.
    json_file : Path, optional, gets the figures by name
    overwrite : bool, whether files that exist are replaced
    console : rich.console.Console, optional
    places : TilePlaces
        Where tiles are refined.

    Raises
    ------
    ValueError
        If there is no such scan, or it lacks what the reconstruction needs.
    OSError
        If a file cannot be written, or exists and is not to be replaced; see `check_outputs`.
    KeyboardInterrupt
        If somebody asks to end: after the result of the epochs done is written, if there is one.
    """
    console, given = console or Console(), given or Given()
    with open_given(source, store, given) as scan:
        options = choose(scan)
        files = _files(output or Path(f"{scan.name}-reconstruction.cxi"), product)
        inputs = [Path(source), *files_of(Path(source)), store or default_store(), *given.files]
        check_outputs(_called(files) | {"--json": json_file}, inputs=inputs, overwrite=overwrite)
        show_notes(scan.notes, console)
        with ends_on_signals("finishing this epoch; Ctrl-C again stops at once") as asked:
            figures = _reconstruct(scan, options, files, console, correlates_halves, asked, places)
            _tell(figures, console, json_file)
    if asked.interruption is not None:
        raise asked.interruption
    return figures


def _tell(figures: dict[str, Any], console: Console, json_file: Path | None) -> None:
    _table(figures).show(console)
    if json_file:
        write_summary(json_file, figures)


def _files(output: Path, product: Path | None) -> dict[str, Path]:
    """Return what is written, by the figures that will name it."""
    report = output.with_name(f"{output.stem}-report.png")
    files = {"result": output, "picture": output.with_suffix(".png")}
    files |= {"report": report.with_suffix(".html"), "report_picture": report}
    return files | ({"product": product} if product else {})


def _called(files: dict[str, Path]) -> dict[str, Path | None]:
    return {_CALLED.get(name, f"--{name}"): path for name, path in files.items()}


def _reconstruct(
    scan: RecordedScan,
    options: ReconstructOptions,
    files: dict[str, Path],
    console: Console,
    correlates_halves: bool | None,
    asked: Asked,
    places: TilePlaces,
) -> dict[str, Any]:
    preprocess = scan.preprocess() if scan.preprocess else None
    result, figures = _result_of(scan, options, preprocess, console, asked, places)
    write_cxi(files["result"], result, figures)  # before the halves, which may be interrupted
    write_png(files["picture"], result)
    is_cheap = figures["wall_s"] < CHEAP_S and options.every == 1
    if asked.interruption is None and (is_cheap if correlates_halves is None else correlates_halves):
        asked.is_deferred = False  # what there is to keep is written
        is_asked_for = bool(correlates_halves)
        halves = _halves_of(scan, options, preprocess, console, places, is_asked_for=is_asked_for)
        if isinstance(halves, str):
            figures["resolution_unknown"] = halves
        else:
            result = replace(result, halves=halves)
            figures |= resolution_figures(halves, result.geometry.object_pixel_m)
            write_cxi(files["result"], result, figures)
    else:
        figures["resolution_unknown"] = "not measured: --frc reconstructs two halves and compares them"
    if "product" in files:
        write_product(files["product"], result, figures)
    measured_m = scan.positions_m[np.isin(scan.frame_numbers, result.frame_numbers)]
    write_report(files["report_picture"], result, measured_m)
    write_page(files["report"], result, figures, measured_m, scan.events)
    return figures | {name: str(path) for name, path in files.items()}


def _result_of(
    scan: RecordedScan,
    options: ReconstructOptions,
    preprocess: Preprocess | None,
    console: Console,
    asked: Asked,
    places: TilePlaces,
) -> tuple[Reconstruction, dict[str, Any]]:
    """Return the result and its figures; of fewer epochs, and saying so, if somebody asks to end."""
    started_s, reached = time.perf_counter(), 0.0
    with _shown(console, options.epochs) as shown:

        def progress(epoch: float, error: float) -> bool:
            nonlocal reached
            shown(epoch, error)
            reached = epoch
            asked.is_deferred = asked.interruption is None  # there is something to keep now
            return asked.interruption is not None

        try:
            result = reconstruct(scan, options, preprocess=preprocess, progress=progress, places=places)
        except Interrupted:
            console.print("ended before there was a result: nothing is written")
            raise
    figures = provenance_of(scan, options, result) | result.motion()
    figures["wall_s"] = time.perf_counter() - started_s
    if asked.interruption is not None and reached < options.epochs:
        figures |= {"epochs": reached, "interrupted": f"after {reached:.3g} of {options.epochs:g} epochs"}
    return result, figures


def _halves_of(
    scan: RecordedScan,
    options: ReconstructOptions,
    preprocess: Preprocess | None,
    console: Console,
    places: TilePlaces,
    *,
    is_asked_for: bool,
) -> FRC | str:
    """Return how the halves agree, or why that stays unknown; what was asked for raises instead."""
    with _shown(console, 2 * options.epochs, "halves") as progress:
        try:
            return half_data_correlation(
                scan, options, preprocess=preprocess, progress=progress, places=places
            )
        except ValueError as error:
            if is_asked_for:
                raise
            return str(error)
        except Interrupted:
            return "not measured: interrupted"


@contextmanager
def _shown(console: Console, n_epochs: float, what: str = "epoch") -> Iterator[OnProgress]:
    columns = TextColumn(f"{what:6}"), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn()
    error = TextColumn("{task.fields[error]}")
    with Progress(*columns, error, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=round(n_epochs), error="")
        yield lambda epoch, value: progress.update(task, completed=int(epoch), error=f"error {value:.4f}")


def _table(figures: dict[str, Any]) -> FactsTable:
    rows = FactsTable()
    rows.add_row("scan", escape(f"{figures['scan']}, {figures['frames']} frames"))
    rows.add_row("amplitude error", f"{figures['error']:.4f} after {figures['epochs']:g} epochs")
    if "travel_px" in figures:
        rows.add_row("while exposed", motion_text(figures))
    rows.add_row("resolution", escape(resolution_text(figures)))
    if "interrupted" in figures:
        rows.add_row("interrupted", f"[yellow]{figures['interrupted']}")
    rows.add_row("took", f"{figures['wall_s']:.1f} s")
    for key in ("result", "picture", "report", "product"):
        if key in figures:
            rows.add_row(key, Path(figures[key]))
    return rows
