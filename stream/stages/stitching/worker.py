"""Stage: assembles the object from the scan positions and publishes it to whoever asks.

The network's mosaic where nothing better is known, the refined object where it is, with illumination, error
and origin of every pixel. Clients ask for what is newer than what they have (`Ask`) and get changed tiles,
so a slow client slows nobody and a late one gets everything.
"""

import time
from collections.abc import Callable, Sequence

import msgspec
from numpy.typing import NDArray

from stream.live.server import Door
from stream.record.scan import Scan
from stream.stages.config import LiveConfig
from stream.stages.inputs import ImageOrigin
from stream.stages.stitching.picture import STAGE, LivePicture
from stream.wire.codec import Buffer
from stream.wire.messages import ObjectUpdate, RunState
from stream.wire.sockets import Part


class Stitcher:
    """Worker and door keeper: one published picture per scan, in versions.

    Parameters
    ----------
    config : LiveConfig
    origin : ImageOrigin
        What the picture is made from, and what is stamped on every update.
    clock : callable
        Monotonic seconds.
    work_clock : callable
        Seconds of the processor that the stage has taken.
    state : callable
        Tells how the run stands, for clients; None where nobody knows.

    Raises
    ------
    ValueError
        If the known probe cannot be used.
    """

    name = STAGE
    batch_size = 64
    deadline_s = 0.0
    most_unread = 2  # each may be large

    def __init__(
        self,
        config: LiveConfig,
        origin: ImageOrigin,
        clock: Callable[[], float] = time.monotonic,
        *,
        work_clock: Callable[[], float] = time.thread_time,
        state: Callable[[], RunState | None] = lambda: None,
    ) -> None:
        self._state, self._work_clock = state, work_clock
        self.config, self.origin, self.door, self._clock = config, origin, config.endpoint(), clock
        first = "inference" if origin.uses_network else "refinement"
        self.inputs: tuple[str, ...] = ("subscriber", "positions", first)
        self.waits_for: tuple[str, ...] = ("refinement",) if origin.uses_refinement else ()
        self._picture: LivePicture | None = None  # who comes after the end of a scan gets its last
        self._answers = Door(origin.run_id, self._news_after, clock, self._tell, self._newest)
        if origin.optics.probe:
            origin.optics.load_probe()  # a wrong one is reported before the scan

    def open(self, scan: Scan) -> "LivePicture":
        """Begins a picture; after a restart all frames already stitched are stitched again first."""
        self._picture = LivePicture(self.config, self.origin, scan, self._clock, self._work_clock)
        return self._picture

    def exchange(self, requests: Sequence[Sequence[Buffer]]) -> list[list[Part]]:
        """Answers clients that have something new to get."""
        return self._answers.exchange(requests)

    def _news_after(self, scan: str, after: int) -> tuple[ObjectUpdate, list[NDArray]] | None:
        news = self._picture.news_after(scan, after) if self._picture else None
        return news and (msgspec.structs.replace(news[0], state=self._state()), news[1])

    def _newest(self) -> tuple[str, int] | None:
        return (self._picture.scan.name, self._picture.version) if self._picture else None

    def _tell(self) -> tuple[dict[str, int], RunState | None]:
        return self._picture.frame_counts() if self._picture else {}, self._state()
