"""What a run shows while it goes on: one line that changes on a terminal, plain lines elsewhere.

Reads the scans' ledgers, and says of the run what the page says; no process is asked.
"""

import logging
import re
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NamedTuple, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from launch.logs import JsonConsole, as_json
from launch.page.status import sentence_of
from stream.record.account import Accounts, Delay, shares_in_words, time_to_image_words
from stream.record.events import Event
from stream.record.scan import Scan
from stream.record.snapshot import read_error
from stream.wire.messages import RunState

TERMINAL_INTERVAL_S = 0.25
PLAIN_INTERVAL_S = 1.0
SAME_INTERVAL_S = 10.0  # between plain lines that differ in nothing but seconds that pass
RECORD_INTERVAL_S = 10.0  # between lines for programs that collect logs


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
        self._shown_at = self._printed_at = float("-inf")
        self._shown, self._said = "", ("", "")  # the last line, and the same without seconds
        self._shows: Shown | None = None
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
        self._say(lambda: ("", f"starting: {', '.join(waits_for)}" if waits_for else "ready"))

    def show(self, scans: Sequence[Scan], state: RunState) -> None:
        """Shows how far the newest of `scans` is and how the run stands, now and then."""
        self._say(lambda: (describe(self._shown_of(scans[-1])) if scans else "", sentence_of(state)))

    def _say(self, words: Callable[[], tuple[str, str]]) -> None:
        """Show figures and a sentence if it is time to."""
        now = self._clock()
        interval_s = TERMINAL_INTERVAL_S if self._live else PLAIN_INTERVAL_S
        if now - self._shown_at < interval_s:
            return
        self._shown_at = now
        figures, sentence = words()
        line = "  ".join(filter(None, [figures, sentence]))
        if self._live:
            self._live.update(Text(line, no_wrap=True))
            return
        said, self._said = self._said, (figures, re.sub(r"\d+ s\b", "", sentence))
        if line == self._shown or (said == self._said and now - self._printed_at < SAME_INTERVAL_S):
            return
        self._shown, self._printed_at = line, now
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _shown_of(self, scan: Scan) -> "Shown":
        if self._shows is None or self._shows.scan is not scan:
            self._shows = Shown.of(scan)
        return self._shows

    def notice(self, stage: str, level: int, text: str) -> None:
        """Shows what a stage has to tell."""
        style = "red" if level >= logging.ERROR else "yellow" if level >= logging.WARNING else ""
        self._console.print(Text(f"{stage}: {text}", style), soft_wrap=True)

    def event(self, event: Event) -> None:
        """Takes what happened: what a person is to be told of it comes as a notice."""


class ProgressRecords(ProgressLine):
    """The same as lines of JSON, for programs that collect logs.

    Parameters
    ----------
    console : JsonConsole
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, console: JsonConsole, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(console, clock)
        self._lines, self._told_at, self._held = console.lines, float("-inf"), ExitStack()

    def __enter__(self) -> Self:
        self._held.enter_context(as_json(self._lines))
        return self

    def __exit__(self, *exception: object) -> None:
        self._held.close()

    def show(self, scans: Sequence[Scan], state: RunState) -> None:
        """Tells how far the newest of `scans` is and how the run stands, now and then."""
        now = self._clock()
        if now - self._told_at < RECORD_INTERVAL_S:
            return
        self._told_at = now
        counts = self._shown_of(scans[-1]).accounts.frame_counts() if scans else {}
        scan, fields = scans[-1].name if scans else "", {"state": state.level, **counts}
        self._lines.say(sentence_of(state), scan=scan, fields=fields)

    def notice(self, stage: str, level: int, text: str) -> None:
        """Leaves out what a stage has to tell: it comes as an event."""

    def event(self, event: Event) -> None:
        """Tells what happened."""
        self._lines.say_event(event)


def progress_on(console: Console) -> ProgressLine:
    """Returns what shows the progress of a run on `console`, in its way."""
    return ProgressRecords(console) if isinstance(console, JsonConsole) else ProgressLine(console)


class Shown(NamedTuple):
    """A scan of which it is told again and again where its frames are and how long they took."""

    scan: Scan
    accounts: Accounts
    delay: Delay

    @classmethod
    def of(cls, scan: Scan) -> "Shown":
        """Returns what has to be remembered of this scan."""
        return cls(scan, Accounts(scan), Delay(scan))


def describe(shown: Shown) -> str:
    """Returns one line: where the frames expected are, epoch, error, time to image."""
    scan, delay = shown.scan, shown.delay
    parts = [scan.name, shares_in_words(shown.accounts.frame_counts())]
    if epochs := scan.count("refinement", "epochs_milli"):
        parts.append(f"epoch {epochs / 1000:.1f}, error {read_error(scan.folder):.4f}")
    if (times_ms := delay.recent_ms()) is not None:
        parts.append(time_to_image_words(times_ms))
    return "  ".join(parts)
