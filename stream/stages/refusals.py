"""What was refused and why: an error in words, many at most once a second, a scan that a stage leaves out."""

import contextlib
import logging

from stream.atomic import DiskFullError
from stream.record.scan import Numbers, Scan, State
from stream.stages.stage import ScanWork, UnusableScanError
from stream.wire.foreign import printable

log = logging.getLogger(__name__)

NO_USE = (MemoryError, UnusableScanError, DiskFullError)  # which end a stage's work on one scan, not the run
INTERVAL_S = 1.0
MOST_CHARACTERS = 500  # of a reason: it may quote what came


class Complaints:
    """Counts what was refused; `say` writes the number and the last reason to the log as a warning.

    Parameters
    ----------
    log : Logger
        Of the stage.
    what : str
        What is counted, plural: "frames".
    """

    def __init__(self, log: logging.Logger, what: str) -> None:
        self._log, self._what = log, what
        self._n, self._reason = 0, ""
        self._said_at = float("-inf")

    def add(self, reason: str, n: int = 1) -> None:
        """Counts `n` refusals for the same reason."""
        self._n += n
        self._reason = printable(reason, MOST_CHARACTERS)

    def say(self, now: float, *, force: bool = False) -> None:
        """Writes what has come together if the last warning is a second old, or now with `force`."""
        if self._n and (force or now - self._said_at >= INTERVAL_S):
            self._log.warning("%d %s refused, the last: %s", self._n, self._what, self._reason)
            self._n, self._said_at = 0, now


def in_words(error: BaseException) -> str:
    """Returns what an error says to a person: of one of the system the file and the reason, no number."""
    if isinstance(error, OSError) and error.strerror:
        is_told = error.filename is None or str(error.filename) in error.strerror
        return error.strerror if is_told else f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


class LeftOut(ScanWork):
    """A scan of which a stage can make nothing: another series of the run may be usable.

    Frames are NO_ROOM where the disk is full, otherwise BAD. What is recorded is not touched.
    """

    def __init__(self, stage: str, scan: Scan, error: Exception) -> None:
        self._stage, self._scan = stage, scan
        self._is_said = False
        self._state, self._reason = State.BAD, str(error)
        if isinstance(error, MemoryError):  # the object is as large as its positions make it
            reason = self._reason or "too large for the memory"
            self._reason = f"{reason}; check positions.unit and positions.field_m"
        if isinstance(error, DiskFullError):
            self._state = State.NO_ROOM
            self._reason = (
                f"{in_words(error)}; `ptychostream reconstruct {scan.folder}` takes all that is recorded"
            )

    def handle(self, numbers: Numbers) -> None:
        """Marks the frames, and says why once; where there is no room even for the mark they stay pending."""
        if not self._is_said:
            log.error("%s cannot use the frames of %s: %s", self._stage, self._scan.name, self._reason)
            self._is_said = True
        with contextlib.suppress(DiskFullError):
            self._scan.mark(self._stage, numbers, self._state)
