"""What a run shows while it goes on: one line that changes on a terminal, plain lines elsewhere.

Reads the scans' ledgers; no process is asked.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.text import Text

from stream.record.account import frame_counts, time_to_image_s
from stream.record.scan import Scan
from stream.record.snapshot import FILE_NAME as SNAPSHOT

TERMINAL_INTERVAL_S = 0.25
PLAIN_INTERVAL_S = 1.0


class ProgressLine:
    """Shows the newest scan of a run and what the stages have to tell; a context manager.

    Parameters
    ----------
    console : rich.console.Console
        A terminal gets one line that changes, anything else what is new, once a second.
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._shown_at, self._shown = float("-inf"), ""
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(Text("starting"), console=self._console, transient=True)
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._live.stop()

    def starting(self, waits_for: Sequence[str]) -> None:
        """Shows which stages are not ready yet, now and then."""
        self._say(lambda: f"starting: {', '.join(waits_for)}" if waits_for else "ready")

    def show(self, scans: Sequence[Scan]) -> None:
        """Shows how far the newest of `scans` is, now and then."""
        self._say(lambda: describe(scans[-1]) if scans else "waiting for the first frame")

    def _say(self, text: Callable[[], str]) -> None:
        now = self._clock()
        interval_s = TERMINAL_INTERVAL_S if self._live else PLAIN_INTERVAL_S
        if now - self._shown_at < interval_s:
            return
        self._shown_at = now
        line = text()
        if line == self._shown:
            return
        self._shown = line
        if self._live:
            self._live.update(Text(line, no_wrap=True))
        else:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def notice(self, stage: str, level: int, text: str) -> None:
        """Shows what a stage has to tell."""
        style = "red" if level >= logging.ERROR else "yellow"
        self._console.print(Text(f"{stage}: {text}", style), soft_wrap=True)


def describe(scan: Scan) -> str:
    """Returns one line: frames recorded of those expected, lost, pending, epoch, error, time to image."""
    counts = frame_counts(scan)
    parts = [f"{scan.name}  {counts['recorded']}/{counts['expected']} frames"]
    parts += [f"{counts['lost']} lost", f"{counts['pending']} pending"]
    if counts["no_position"]:
        parts.append(f"{counts['no_position']} without position")
    if epochs := scan.count("refinement", "epochs_milli"):
        parts.append(f"epoch {epochs / 1000:.1f}, error {_error(scan):.4f}")
    times_s = time_to_image_s(scan)
    if times_s.size:
        parts.append(f"image after {1e3 * np.median(times_s):.0f} ms")
    if scan.count("stitcher", "closed") and not scan.count("recorder", "closed"):
        parts.append("image complete, writing results")
    return "  ".join(parts)


def _error(scan: Scan) -> float:
    # Only this number: the object beside it in the file may be large.
    with np.load(scan.folder / SNAPSHOT, allow_pickle=False) as snapshot:
        return float(snapshot["error"])
