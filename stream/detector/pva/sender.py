"""A simulated detector whose frames are the values of a PV, as areaDetector's PVA plugin publishes them."""

import time
from collections.abc import Callable
from typing import Any

from stream.detector.protocol import DetectorMessage, ImageMessage, StartMessage
from stream.detector.pva.ntndarray import encode_array
from stream.wire.pva import PvServer

FIRST_NUMBER = 1  # areaDetector counts from one on
SETTLE_S = 0.2  # from the connection of a reader until it listens
LOOK_S = 0.02


class PvaSender:
    """Sender: an NTNDArray that is renewed with each frame; its counter is set back before each series.

    Nobody waits for a reader: what it has no room for, it does not get.

    Parameters
    ----------
    server : PvServer
        Closed at the end.
    name : str
        Of the PV.
    codec : {"bslz4", "lz4", "blosc", ""}
    clock, wall_clock, sleep : callable
        Monotonic seconds, seconds since 1970, and what waits.
    """

    def __init__(
        self,
        server: PvServer,
        name: str,
        codec: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._server, self._name, self._codec = server, name, codec
        self._clock, self._wall_clock, self._sleep = clock, wall_clock, sleep
        self._began_s: float | None = None
        self._heard_at: float | None = None
        self._server.post_image(name, {})

    @property
    def where(self) -> str:
        """The PV, for people."""
        return f"PV {self._name}"

    def prepare(self, message: DetectorMessage) -> dict[str, Any] | None:
        """Returns the fields of the array of an image, None for what areaDetector does not tell.

        Raises
        ------
        ValueError
            If a frame is no counts of up to 32 bits.
        """
        if isinstance(message, StartMessage) or self._began_s is None:
            self._began_s = self._wall_clock()
        if not isinstance(message, ImageMessage):
            return None
        stamp_s = self._began_s + message.exposed_s
        frame = message.frame().decode()
        return encode_array(frame, message.image_id + FIRST_NUMBER, stamp_s, self._codec)

    def is_heard(self, timeout_s: float) -> bool:
        """Says whether somebody has listened for a moment."""
        ends_at = self._clock() + timeout_s
        while True:
            now = self._clock()
            if not self._server.is_read(self._name):
                self._heard_at = None
            elif self._heard_at is None:
                self._heard_at = now
            elif now - self._heard_at >= SETTLE_S:
                return True
            if now >= ends_at:
                return False
            self._sleep(LOOK_S)

    def send(self, prepared: dict[str, Any] | None, timeout_s: float) -> bool:
        """Renews the PV; that never waits."""
        if prepared is not None:
            self._server.post_image(self._name, prepared)
        return True

    def close(self) -> None:
        """Takes the PV away, after a moment in which its readers get the last frame."""
        self._sleep(SETTLE_S)
        self._server.close()
