"""A detector behind areaDetector's PVA plugin: its PV is listened to, what it becomes are frames."""

import logging
import time
from collections.abc import Callable

from stream.detector.config import DetectorConfig
from stream.detector.protocol import DetectorMessage, DetectorMessageError
from stream.detector.pva.acquisitions import Acquisitions
from stream.detector.pva.ntndarray import check_is_grey, decode_array
from stream.wire.pva import Monitor, PvaError, Updates

log = logging.getLogger(__name__)

MESSAGES_PER_CALL, BYTES_PER_CALL = 256, 32 << 20
MOMENT_S = 5.0  # after which a PV that is not there is told of


class PvaFeed:
    """Feed: the frames of an NTNDArray.

    Parameters
    ----------
    updates : Updates
    acquisitions : Acquisitions
        Tells which series they are of.
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self, updates: Updates, acquisitions: Acquisitions, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._updates, self._acquisitions, self._clock = updates, acquisitions, clock
        self._error: DetectorMessageError | None = None
        self._began_at, self._is_told = clock(), False

    def resume(self, series_key: str, n_frames: int, n_whole: int) -> None:
        """Goes on with a series that a process before this one has recorded `n_frames` of."""
        self._acquisitions.resume(series_key, n_frames, self._clock())

    def receive(self) -> list[DetectorMessage]:
        """Returns what has come since, as much as a turn takes; see `Feed`."""
        messages: list[DetectorMessage] = self._raised()
        now, n_bytes = self._clock(), 0
        for _ in range(MESSAGES_PER_CALL):
            try:
                update = self._updates.receive()
                if update is None:
                    messages += self._acquisitions.look(now)
                    break
                exposure = decode_array(update[0])
                if exposure is not None:
                    if not self._acquisitions.is_open:
                        check_is_grey(update[0])
                    messages += self._acquisitions.take(exposure, now, is_old=update[1])
                    n_bytes += len(exposure.frame.data)
            except (DetectorMessageError, PvaError) as error:
                # What came before it is no worse for it.
                self._error = DetectorMessageError(str(error))
                break
            if n_bytes >= BYTES_PER_CALL:
                break
        if not self._is_told and (self._updates.is_connected or now - self._began_at >= MOMENT_S):
            self._is_told = True
            if not self._updates.is_connected:
                log.warning("there is no PV %s yet; it is waited for", self._updates.name)
        return messages or self._raised()

    def _raised(self) -> list[DetectorMessage]:
        if (error := self._error) is not None:
            self._error = None
            raise error
        return []

    def close(self) -> None:
        """Stops listening."""
        self._updates.close()


def pva_feed(config: DetectorConfig) -> PvaFeed:
    """Returns the feed of the PV that is configured.

    Raises
    ------
    PvaError
        If it would be searched for on other computers, and that is not allowed.
    ImportError
        If p4p is missing.
    """
    acquisitions = Acquisitions(config.pv, config.silence_s, config.first_number)
    return PvaFeed(Monitor(config.pv, config.queue, insecure=config.insecure), acquisitions)
