"""What was refused and why: an error in words, and many at most once a second.

Every command needs the words, also `--help`: nothing large is imported here.
"""

import logging

from stream.wire.foreign import printable

INTERVAL_S = 1.0
MOST_CHARACTERS = 500  # of a reason: it may quote what came


class Complaints:
    """Counts what was refused or doubted; `say` writes how often, and the last reason, as a warning.

    Parameters
    ----------
    log : Logger
        Of the stage.
    what : str
        What is counted, plural: "frames refused".
    """

    def __init__(self, log: logging.Logger, what: str) -> None:
        self._log, self._what = log, what
        self._n, self._reason = 0, ""
        self._said_at = float("-inf")

    def add(self, reason: str, n: int = 1) -> None:
        """Counts `n` of them for the same reason."""
        self._n += n
        self._reason = printable(reason, MOST_CHARACTERS)

    def say(self, now: float, *, force: bool = False) -> None:
        """Writes what has come together if the last warning is a second old, or now with `force`."""
        if self._n and (force or now - self._said_at >= INTERVAL_S):
            self._log.warning("%d %s, the last: %s", self._n, self._what, self._reason)
            self._n, self._said_at = 0, now


def in_words(error: BaseException) -> str:
    """Returns what an error says to a person: of one of the system the file and the reason, no number."""
    if isinstance(error, OSError) and error.strerror:
        is_told = error.filename is None or str(error.filename) in error.strerror
        return error.strerror if is_told else f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__
