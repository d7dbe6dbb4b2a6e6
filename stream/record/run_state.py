"""How a run stands, as its supervisor sees it several times a second, for the processes beside it.

One small file in the run's short-lived folder: the newest state replaces the one before. A file that is not
replaced any more says that nobody looks after the run. Beside the state that clients are told, it has what
only this computer is told: the processes.
"""

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from stream.atomic import write_atomically
from stream.wire.messages import RunState

FILE_NAME = "state"
ENDING = "ending"  # there once the run is asked to end
SILENT_S = 3.0  # longest age of a state that is believed; it is written several times a second
READ_INTERVAL_S = 0.1


class ProcessState(msgspec.Struct, frozen=True, kw_only=True):
    """One process of a run, as its supervisor saw it last.

    Attributes
    ----------
    name : str
        Of its stage, or "supervisor".
    pid : int
        On this computer, 0 when there is none.
    is_running : bool
    n_restarts : int
        How often it died and was started again.
    heard_s : float
        When it last said anything, Unix seconds, 0 before its first word.
    counts : dict of str to int
        Of its last report.
    """

    name: str
    pid: int
    is_running: bool
    n_restarts: int = 0
    heard_s: float = 0.0
    counts: Mapping[str, int] = {}


class _Seen(msgspec.Struct, frozen=True):
    """What is in the file."""

    state: RunState
    processes: tuple[ProcessState, ...]


def write_state(folder: Path, state: RunState, processes: Sequence[ProcessState] = ()) -> None:
    """Leaves the newest state in `folder`, of the supervisor's `processes` and of itself.

    A full disk costs the state, not the run.
    """
    own = ProcessState(name="supervisor", pid=os.getpid(), is_running=True, heard_s=time.time())
    with contextlib.suppress(OSError):
        write_atomically(folder / FILE_NAME, msgspec.msgpack.encode(_Seen(state, (*processes, own))))


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
        self._seen: _Seen | None = None

    def __call__(self) -> RunState | None:
        """Returns how the run stands, None before anybody looked after it."""
        seen = self._newest()
        return seen.state if seen else None

    def processes(self) -> tuple[ProcessState, ...]:
        """Returns the processes of the run as they were seen last, none before anybody looked after it."""
        seen = self._newest()
        return seen.processes if seen else ()

    def _newest(self) -> _Seen | None:
        now = self._clock()
        if not 0 <= now - self._read_at < READ_INTERVAL_S:
            self._read_at, self._seen = now, self._read(now)
        return self._seen

    def _read(self, now: float) -> _Seen | None:
        try:
            age_s = now - self._file.stat().st_mtime
            seen = msgspec.msgpack.decode(self._file.read_bytes(), type=_Seen)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None
        if age_s <= SILENT_S:
            return seen
        text = f"nobody has looked after the run for {age_s:.0f} s: its supervisor does not work"
        stale = msgspec.structs.replace(seen.state, level="stale", text=text)
        return msgspec.structs.replace(seen, state=stale)
