"""What happened in a run, with times: an append-only file of lines in the run's folder, part of its record.

    SAVE/runs/RUN/events.jsonl      {"time_s": ..., "level": ..., "source": ..., "text": ...}

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

FILE_NAME = "events.jsonl"
MOST_EVENTS = 200  # that a reader keeps: the newest

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
    """

    time_s: float
    level: EventLevel
    source: str
    text: str


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

    def add(self, source: str, level: EventLevel, text: str) -> None:
        """Notes what happened now; a full disk costs the note, not the run."""
        event = Event(time_s=self._clock(), level=level, source=source, text=text)
        with contextlib.suppress(OSError), self._file.open("ab") as file:
            file.write(msgspec.json.encode(event) + b"\n")


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
        with contextlib.suppress(FileNotFoundError), self._file.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # still being written
                self._offset += len(line)
                with contextlib.suppress(msgspec.MsgspecError):  # a line that a full disk cut
                    self._events.append(msgspec.json.decode(line, type=Event))
        return list(self._events)


def event_level(level: int) -> EventLevel:
    """Returns the level of an event for one of Python's logging."""
    return "error" if level >= logging.ERROR else "warning" if level >= logging.WARNING else "info"
