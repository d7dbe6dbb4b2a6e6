"""What happened in a run, with times: an append-only file of lines in the run's folder, part of its record.

    SAVE/runs/RUN/events.jsonl      {"time_s": ..., "level": ..., "source": ..., "text": ..., "scan": ...}
                  events.jsonl.1    older ones, where there are very many

The supervisor writes; the web page reads while it grows, and who reads the record, later.
"""

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from stream.record.handover import runs_of
from stream.record.scan import Scan, names_of_scans

FILE_NAME = "events.jsonl"
MOST_EVENTS = 200  # that a reader keeps: the newest
FILE_BYTES = 8 << 20  # of each of the two files

EventLevel = Literal["info", "warning", "error"]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened.

    Attributes
    ----------
    time_s : float
        Unix seconds.
    level : str
        info, warning or error.
    source : str
        The stage it happened to, or "scan".
    text : str
        A sentence for people.
    scan : str
        Which it happened to, or the newest at that time; "" before there is one.
    """

    time_s: float
    level: EventLevel
    source: str
    text: str
    scan: str = ""


class EventLog:
    """The one writer of a run's events.

    Parameters
    ----------
    folder : Path
        Of the run.
    clock : callable
        Unix seconds.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._file, self._clock = folder / FILE_NAME, clock

    def add(self, source: str, level: EventLevel, text: str, scan: str = "") -> Event:
        """Notes what happened now, and returns it; a full disk costs the note, not the run."""
        text = text.encode(errors="replace").decode()  # a path may hold what is no text
        event = Event(time_s=self._clock(), level=level, source=source, text=text, scan=scan)
        with contextlib.suppress(OSError):
            if self._file.exists() and self._file.stat().st_size >= FILE_BYTES:
                self._file.replace(_earlier(self._file))
            with self._file.open("ab") as file:
                file.write(msgspec.json.encode(event) + b"\n")
        return event


class EventReader:
    """Follows the events of a run while they are written.

    Parameters
    ----------
    folder : Path
        Of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._file, self._offset = folder / FILE_NAME, 0
        self._events: deque[Event] = deque(maxlen=MOST_EVENTS)

    def __call__(self) -> list[Event]:
        """Returns the newest events, the newest last; none where nothing is written down."""
        with contextlib.suppress(FileNotFoundError):
            if self._file.stat().st_size < self._offset:
                self._read(_earlier(self._file))
                self._offset = 0
            self._read(self._file)
        return list(self._events)

    def _read(self, path: Path) -> None:
        with path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # still being written
                self._offset += len(line)
                self._events.extend(_decoded(line))


def events_of(scan: Scan) -> list[Event]:
    """Returns what happened in its runs while `scan` was the newest, and what names it later."""
    runs, ids = scan.folder.parents[1] / "runs", filter(None, runs_of(scan))
    newest = [runs / id_ / FILE_NAME for id_ in ids]
    files = [file for path in newest for file in (_earlier(path), path) if file.is_file()]
    if not files:
        return []
    began_s, ended_s = scan.header.started_s, _next_began_s(scan)
    kept: deque[Event] = deque(maxlen=MOST_EVENTS)
    for file in files:
        with file.open("rb") as lines:
            events = (event for line in lines for event in _decoded(line) if event.time_s >= began_s)
            kept.extend(event for event in events if event.time_s < ended_s or scan.name in event.text)
    return list(kept)


def _earlier(file: Path) -> Path:
    return file.with_name(f"{file.name}.1")


def _next_began_s(scan: Scan) -> float:
    """Return when the next scan in the folder began, infinite if there is none."""
    scans = scan.folder.parent
    following = next(names_of_scans(scans, after=scan.name), None)
    return float("inf") if following is None else Scan(scans / following).header.started_s


def _decoded(line: bytes) -> list[Event]:
    """Return the event of a line, none of one that a full disk cut."""
    try:
        return [msgspec.json.decode(line, type=Event)]
    except msgspec.MsgspecError:
        return []


def event_level(level: int) -> EventLevel:
    """Returns the level of an event for one of Python's logging."""
    return "error" if level >= logging.ERROR else "warning" if level >= logging.WARNING else "info"
