"""How a run stands, as its supervisor sees it several times a second, for the processes beside it.

One small file in the run's short-lived folder: the newest state replaces the one before. A file that is not
replaced any more says that nobody looks after the run.
"""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from stream.atomic import write_atomically
from stream.wire.messages import RunState

FILE_NAME = "state"
ENDING = "ending"  # there once the run is asked to end
SILENT_S = 3.0  # longest age of a state that is believed; it is written several times a second
READ_INTERVAL_S = 0.1


def write_state(folder: Path, state: RunState) -> None:
    """Leaves the newest state in `folder`; a full disk costs the state, not the run."""
    with contextlib.suppress(OSError):
        write_atomically(folder / FILE_NAME, msgspec.msgpack.encode(state))


def ask_to_end(folder: Path) -> None:
    """Tells the processes of the run that it ends: what can be done later as well is left."""
    with contextlib.suppress(OSError):
        (folder / ENDING).touch()


def is_asked_to_end(folder: Path) -> bool:
    """Says whether the run with the short-lived `folder` was asked to end."""
    return (folder / ENDING).exists()


class StateReader:
    """Reads the state of a run as often as it is asked, from the disk now and then.

    Parameters
    ----------
    folder : Path
        The run's short-lived folder.
    clock : callable
        Wall clock, seconds, as the times of files are.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._file, self._clock = folder / FILE_NAME, clock
        self._read_at = float("-inf")
        self._state: RunState | None = None

    def __call__(self) -> RunState | None:
        """Returns how the run stands, None before anybody looked after it."""
        now = self._clock()
        if not 0 <= now - self._read_at < READ_INTERVAL_S:
            self._read_at, self._state = now, self._read(now)
        return self._state

    def _read(self, now: float) -> RunState | None:
        try:
            age_s = now - self._file.stat().st_mtime
            state = msgspec.msgpack.decode(self._file.read_bytes(), type=RunState)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None
        if age_s <= SILENT_S:
            return state
        text = f"nobody has looked after the run for {age_s:.0f} s: its supervisor does not work"
        return msgspec.structs.replace(state, level="stale", text=text)
