"""What the first of two processes that take the frames of a detector knows of the second."""

import time
from collections.abc import Callable

from stream.stages.pulse import PulseReader
from stream.wire.sockets import Endpoint

LOOK_S = 0.002  # its loop goes round many times a second


class Second:
    """The second process (`stream.stages.ingest.assistant`), which may hold frames that nobody else has seen.

    Parameters
    ----------
    pulse : PulseReader
        On the clock of `clock`.
    relay : Endpoint
        Where it passes on what it does not deal with itself.
    clock, sleep : callable
        Monotonic seconds, and what waits.
    """

    def __init__(
        self,
        pulse: PulseReader,
        relay: Endpoint,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.relay = relay
        self._pulse, self._clock, self._sleep = pulse, clock, sleep

    def is_behind(self, moment: float) -> bool:
        """Says whether it may still hold frames that came to it up to `moment`; one that died does not."""
        return self._pulse.emptied_at <= moment and self._pulse.is_alive()

    def catch_up(self, timeout_s: float) -> None:
        """Returns when it has dealt with all that has come to it by now, at the latest after `timeout_s`."""
        began = self._clock()
        while self.is_behind(began) and self._clock() - began < timeout_s:
            self._sleep(LOOK_S)
