"""What has been waited for so long that somebody should hear of it."""

from dataclasses import dataclass

PATIENCE_S = 2.0


@dataclass(slots=True)
class Waiting:
    """Says once what is not there, when that has been so for some seconds."""

    _since: float | None = None
    _is_said: bool = False

    def look(self, now: float, for_what: str) -> str:
        """Returns what is waited for, when it is to be said; "" otherwise. `for_what` is "" for nothing."""
        if not for_what:
            self.is_over()
        elif self._since is None:
            self._since = now
        elif not self._is_said and now - self._since >= PATIENCE_S:
            self._is_said = True
            return for_what
        return ""

    def is_over(self) -> None:
        """Takes note that something came."""
        self._since, self._is_said = None, False

    def is_told(self) -> None:
        """Takes note that it was said elsewhere."""
        self._since, self._is_said = 0.0, True
