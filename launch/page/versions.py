"""Earlier versions of the running scan's image, so that a person can go back and see it grow."""

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from launch.page.picture import Drawing
from stream.live.image import LiveImage

MOST_BYTES = 96 << 20
MOST_SIDE_PX = 512  # half of what the live picture has
INTERVAL_S = 1.0
SHARE = 0.1  # of a core, at most, that goes into keeping them


class Version(NamedTuple):
    """One version that is kept.

    Attributes
    ----------
    version, frames : int
    time_s : float
        Wall clock, for people: when the page had it.
    packet : bytes
        As `launch.page.picture` makes it.
    """

    version: int
    frames: int
    time_s: float
    packet: bytes


class VersionHistory:
    """Keeps versions of one scan, evenly over its length, within a bound of memory.

    Where the bound is reached every other version goes, and from then on only every other one is kept.

    Parameters
    ----------
    newest : callable
        Gives the newest image.
    most_bytes : int
    clock, wall_clock : callable
        Seconds: to keep a pace by, and to tell people.
    """

    def __init__(
        self,
        newest: Callable[[], LiveImage | None],
        *,
        most_bytes: int = MOST_BYTES,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._newest, self._most_bytes = newest, most_bytes
        self._clock, self._wall_clock = clock, wall_clock
        self._scan, self._stride, self._n_seen = "", 1, 0
        self._kept: list[Version] = []
        self._lock = threading.Lock()

    def follow(self, stopping: threading.Event) -> None:
        """Keeps versions until `stopping` is set; blocks."""
        wait_s = INTERVAL_S
        while not stopping.wait(wait_s):
            began = self._clock()
            self.look()
            wait_s = max(INTERVAL_S, (self._clock() - began) / SHARE)

    def look(self) -> None:
        """Keeps the newest image if it is another one than last time, and its turn."""
        image = self._newest()
        if image is None or not image.frames_seen:
            return
        if image.scan != self._scan:
            with self._lock:
                self._scan, self._stride, self._n_seen, self._kept = image.scan, 1, 0, []
        elif self._kept and image.version <= self._kept[-1].version:
            return
        self._n_seen += 1
        if (self._n_seen - 1) % self._stride:
            return
        packet = Drawing(image, MOST_SIDE_PX).packet()
        with self._lock:
            self._kept.append(Version(image.version, image.frames_seen, self._wall_clock(), packet))
            while self._bytes() > self._most_bytes and len(self._kept) > 1:
                self._kept = self._kept[::2]
                self._stride *= 2

    def listed(self) -> dict[str, Any]:
        """Returns what is kept, JSON can hold it."""
        with self._lock:
            versions = [
                {"version": kept.version, "frames": kept.frames, "time_s": kept.time_s} for kept in self._kept
            ]
            return {"scan": self._scan, "versions": versions, "most_bytes": self._most_bytes}

    def packet(self, scan: str, version: int) -> bytes | None:
        """Returns the picture of one version, None if it is not kept, or not any more."""
        with self._lock:
            if scan != self._scan:
                return None
            return next((kept.packet for kept in self._kept if kept.version == version), None)

    def _bytes(self) -> int:
        return sum(len(kept.packet) for kept in self._kept)
