"""The live reconstruction in a terminal, for those who cannot open the web page."""

import time
from pathlib import Path

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from launch.page.status import RateMeter, Status, sentence_of, status_of
from stream.live.client import LiveReconstruction
from stream.live.image import LiveImage
from stream.record.account import shares_in_words, time_to_image_words
from stream.wire.messages import FinishedScan, RunLevel, RunState, StageLevel

POLL_S = 0.2
MOST_FINISHED = 3  # scans that a terminal names
PLAIN_INTERVAL_S = 1.0
_COUNTS = {
    "expected": "expected",
    "recorded": "recorded",
    "inferred": "inferred",
    "mosaicked": "in the image",
    "refined": "refined",
}
_STYLES: dict[RunLevel, str] = {
    "waiting": "dim",
    "live": "cyan",
    "stale": "bold yellow",
    "complete": "bold green",
    "incomplete": "bold red",
}
_STAGE_STYLES: dict[StageLevel, str] = {
    "ok": "dim",
    "busy": "cyan",
    "warning": "bold yellow",
    "error": "bold red",
    "done": "green",
}


def watch(
    address: str,
    *,
    insecure: bool = False,
    key: Path | None = None,
    peers: Path | None = None,
    timeout_s: float = 10.0,
    console: Console | None = None,
) -> int:
    """Shows the scan until its final image and returns 0.

    Parameters
    ----------
    address : str
        Where the pipeline publishes.
    insecure, key, peers, timeout_s
        As in `stream.client.LiveReconstruction`.
    console : rich.console.Console, optional
        A terminal gets a table that changes, anything else a line now and then.

    Raises
    ------
    TimeoutError
        If nobody answers for `timeout_s`.
    ProtocolError
        If the server refuses this client.
    """
    console = console or Console()
    with LiveReconstruction(address, insecure=insecure, key=key, peers=peers, timeout_s=timeout_s) as live:
        (_watch_on_terminal if console.is_terminal else _watch_in_lines)(live, console)
    return 0


def _watch_on_terminal(live: LiveReconstruction, console: Console) -> None:
    image, rates = None, RateMeter()
    with Live(console=console, auto_refresh=False) as screen:
        while image is None or not image.is_final:
            image = live.poll(POLL_S) or image
            rates.add(time.monotonic(), image.scan if image else "", live.counts)
            state = live.state
            status = status_of(image, live.age_s, live.endpoint.address, state)
            screen.update(describe(image, rates.rates(), status, state), refresh=True)
            live.check_silence()


def _watch_in_lines(live: LiveReconstruction, console: Console) -> None:
    image, shown_at, told = None, float("-inf"), set[str]()
    while image is None or not image.is_final:
        image = live.poll(POLL_S) or image
        for scan in live.state.finished if live.state is not None else ():
            if scan.name not in told:
                told.add(scan.name)
                console.print(finished(scan), highlight=False, markup=False, soft_wrap=True)
        if time.monotonic() - shown_at >= PLAIN_INTERVAL_S or (image is not None and image.is_final):
            shown_at = time.monotonic()
            status = status_of(image, live.age_s, live.endpoint.address, live.state)
            console.print(line(image, status, live.state), highlight=False, markup=False, soft_wrap=True)
        live.check_silence()


def describe(
    image: LiveImage | None, rates: dict[str, float], status: Status, state: RunState | None
) -> Group:
    """Returns what a terminal shows: how the scan stands, what the stages do, counts, rates and figures."""
    head = Text(status.text, _STYLES[status.level])
    rows = Table.grid(padding=(0, 2))
    if state is not None:
        for stage in state.stages:
            rows.add_row(Text(stage.name, "dim"), Text(stage.text, _STAGE_STYLES[stage.level]))
        for scan in state.finishing:
            rows.add_row(Text("finishing", "dim"), Text(f"{scan.name}: {scan.text}", "cyan"))
        for done in state.finished[-MOST_FINISHED:]:
            rows.add_row(Text("finished", "dim"), Text(finished(done), "green"))
    if image is None:
        return Group(head, rows)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("frames")
    for title in _COUNTS.values():
        table.add_column(title, justify="right", min_width=9)
    table.add_row("count", *(_number(image.counts.get(name)) for name in _COUNTS))
    table.add_row("per second", *(_number(rates.get(name)) for name in _COUNTS), style="dim")
    counted = Text(shares_in_words(image.counts))
    return Group(Text.assemble((image.scan, "bold"), "  ", head), counted, table, Text(figures(image)), rows)


def finished(scan: FinishedScan) -> str:
    """Returns that a scan is finished, and where its final image is."""
    return f"{scan.name} is finished: {scan.text}" + f"; {scan.result}" * bool(scan.result)


def line(image: LiveImage | None, status: Status, state: RunState | None) -> str:
    """Returns the same in one line of plain text."""
    finishing = sentence_of(state).removeprefix(state.text) if state is not None else ""
    if image is None:
        return status.text + finishing
    return f"{image.scan}  {shares_in_words(image.counts)}  {figures(image)}  {status.text}{finishing}"


def figures(image: LiveImage) -> str:
    """Returns version, size, motor positions, epoch, error, error bars and time to image, where there are."""
    n_rows, n_columns = image.shape
    parts = [f"version {image.version}", f"{n_rows} x {n_columns} px of {image.object_pixel_m * 1e9:.3g} nm"]
    if image.motors is not None:
        ends = image.motor_positions(np.array([(0, 0), (n_rows - 1, n_columns - 1)]) + image.origin_px)
        (y_low, x_low), (y_high, x_high) = np.sort(ends, axis=0).tolist()
        unit = image.motors.unit
        parts.append(f"y {y_low:.4g} to {y_high:.4g}, x {x_low:.4g} to {x_high:.4g} {unit}")
    if image.error is not None:
        parts.append(f"epoch {image.epoch:.1f}, amplitude error {image.error:.4f}")
    if image.coverage68 is not None and image.coverage95 is not None:
        parts.append(f"68 / 95 % error bars hold {image.coverage68:.0%} / {image.coverage95:.0%}")
    if len(image.models) > 1:
        parts.append("patches by " + ", ".join(f"{name}: {n}" for name, n in image.models.items()))
    if image.time_to_image_ms is not None:
        parts.append(time_to_image_words(image.time_to_image_ms))
    if image.alarm:
        parts.append(f"ALARM: {image.alarm}")
    return "  ".join(parts)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"
