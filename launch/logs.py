"""What a run tells, in the places where it is looked for.

    SAVE/logs/RUN.log            a line for whatever happened, for a person: the file to read first
    SAVE/runs/RUN/events.jsonl   the same as records (stream.record.events), for page, summary and report
    standard output, --log-json   the same and all else that the command says, for programs that collect logs

Each line has time, level, scan and stage. Files are bounded, and a full disk costs lines, never the run.
"""

import io
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self, TextIO, cast

from rich.console import Console

from launch.child_process import BoundedFile
from stream.plain_json import plain_json
from stream.record.events import Event, EventLevel, EventLog, event_level
from stream.record.scan import order_of

LOG_BYTES, LOG_FILES = 8 << 20, 3  # of a run's log: so large is a file, and so many are kept
RUN = "run"  # what lines come from that are of no stage
_NO_WRAP = 10_000  # columns

OnEvent = Callable[[Event], object]


class RunLog:
    """The log of one run; a context manager.

    Parameters
    ----------
    run_folder : Path
        Where its events lie.
    file : Path
        For people; older lines move to FILE.1 and on.
    tell : callable
        Gets each event as well.
    clock : callable
        Unix seconds.
    """

    def __init__(
        self,
        run_folder: Path,
        file: Path,
        tell: OnEvent = lambda event: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._events, self._tell, self._scan = EventLog(run_folder, clock), tell, ""
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
        self._file = BoundedFile(file, LOG_BYTES, LOG_FILES - 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, KeyboardInterrupt):
            self.add(RUN, "info", "ends" + ", as it was asked to" * (error is not None))
        else:
            self.add(RUN, "error", f"ends by {type(error).__name__}: {error}")
        self._file.close()

    def begin(self, config_hash: str, save: Path) -> None:
        """Notes that the run begins."""
        try:
            program = f"ptychostream {version('ptychostream')}"
        except PackageNotFoundError:  # it runs from a checkout
            program = "ptychostream"
        where = f"configuration {config_hash}, process {os.getpid()}, saving to {save}"
        self.add(RUN, "info", f"begins: {program}, {where}")

    def add(self, source: str, level: EventLevel, text: str, scan: str = "") -> None:
        """Notes what happened now to `source`, in the newest scan unless another is named."""
        if scan and (not self._scan or order_of(scan) > order_of(self._scan)):
            self._scan = scan
        event = self._events.add(source, level, text, scan or self._scan)
        for line in lines_of(event):
            self._file.handle(logging.makeLogRecord({"msg": line}))
        self._tell(event)


def lines_of(event: Event) -> list[str]:
    """Returns an event for people, each of its lines with time, level, scan and stage."""
    when = datetime.fromtimestamp(event.time_s).astimezone().isoformat(" ", "milliseconds")
    head = f"{when} {event.level.upper():<7} {event.scan or '-'} {event.source}:"
    return [f"{head} {line}" for line in event.text.splitlines() or [""]]


class JsonLines(io.TextIOBase):
    """A text file in which each line is a JSON object; what is printed to it becomes the message of one.

    Parameters
    ----------
    file : text file
        Gets the lines.
    clock : callable
        Unix seconds.
    """

    def __init__(self, file: TextIO, clock: Callable[[], float] = time.time) -> None:
        self._to, self._clock, self._begun = file, clock, ""

    def say_event(self, event: Event) -> None:
        """Writes what happened in a run."""
        self._put(event.time_s, event.level, event.source, event.scan, event.text, {})

    def say(
        self,
        message: str,
        *,
        stage: str = RUN,
        level: EventLevel = "info",
        scan: str = "",
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes one line."""
        self._put(self._clock(), level, stage, scan, message, fields or {})

    def write(self, text: str) -> int:
        """Takes what is printed."""
        *lines, self._begun = f"{self._begun}{text}".split("\n")
        for line in filter(str.strip, lines):
            self.say(line.strip())
        return len(text)

    def flush(self) -> None:
        """Sees to it that whole lines are with who reads them."""
        self._to.flush()

    def _put(
        self, time_s: float, level: str, stage: str, scan: str, message: str, fields: Mapping[str, Any]
    ) -> None:
        when = datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"time": when, "level": level, "stage": stage, "scan": scan, "message": message}
        self._to.write(plain_json(line | {"fields": dict(fields)}).decode() + "\n")
        self._to.flush()


class JsonConsole(Console):
    """A console whose lines are JSON objects (`--log-json`).

    Parameters
    ----------
    file : text file
        Gets the lines.

    Attributes
    ----------
    lines : JsonLines
        For who has more to tell than a message.
    """

    def __init__(self, file: TextIO) -> None:
        self.lines = JsonLines(file)
        super().__init__(
            file=cast(TextIO, self.lines),
            width=_NO_WRAP,
            color_system=None,
            force_terminal=False,
            highlight=False,
        )


@contextmanager
def as_json(lines: JsonLines) -> Iterator[None]:
    """Writes what this process logs to `lines`, as long as the context is open."""
    handler, root = _JsonHandler(lines), logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


class _JsonHandler(logging.Handler):
    def __init__(self, lines: JsonLines) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Passes one record on."""
        self._lines.say(record.getMessage(), level=event_level(record.levelno))
