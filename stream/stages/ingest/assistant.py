"""The second process that takes the frames of one detector, which deals its messages to all that connect.

It stores frames of scans that the first has begun, where that has made room. Everything else it passes on to
the first as it came: starts and ends, frames that are damaged, came before or are of a series that has no
scan yet. So all that is decided about a series is decided in one place, and this process can die at any
moment: lost is what it had received and not stored, and the first names it when the series is over.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from stream.detector.config import DetectorConfig
from stream.detector.dialects import DIALECTS
from stream.detector.doubts import MOST_OVERTAKEN
from stream.detector.protocol import DetectorMessageError, ImageMessage
from stream.record.scan import INGESTS, NewScans, Scan
from stream.stages.ingest.frame_writer import STAGE, FrameWriter
from stream.stages.stage import Inlet
from stream.wire.codec import Buffer
from stream.wire.sockets import Endpoint


class Assistant:
    """Source: stores frames beside the first subscriber.

    Parameters
    ----------
    config : DetectorConfig
    scans : Path
        Folder of scans.
    outlet : Endpoint
        Of the first subscriber, for what it is to deal with.
    clock : callable
        Monotonic seconds; stamps the arrival of frames.
    told : sequence of str
        As of `FrameWriter`.
    """

    def __init__(
        self,
        config: DetectorConfig,
        scans: Path,
        outlet: Endpoint,
        clock: Callable[[], float] = time.monotonic,
        *,
        told: Sequence[str] = (),
    ) -> None:
        self.inlet: Inlet | None = Inlet(
            config.pattern, (config.endpoint(),), config.queue, config.most_bytes
        )
        self.outlet = outlet
        self._channel, self._told, self._clock = config.channel, told, clock
        self._dialect, self._new = DIALECTS[config.format](), NewScans(scans)
        self._writers: dict[str, FrameWriter] = {}  # of the open scans, by unique id of the series
        self._passed_on: list[Sequence[Buffer]] = []
        self._n_recorded = self._n_passed_on = 0
        self._scan = ""

    def handle(self, messages: Sequence[Sequence[Buffer]]) -> None:
        """Takes messages in the order of arrival."""
        now = self._clock()
        self._look_for_scans()
        images: dict[str, list[tuple[ImageMessage, Sequence[Buffer]]]] = {}
        for parts in messages:
            image = self._image_in(parts)
            if image is None or image.key not in self._writers:
                self._passed_on.append(parts)
            else:
                images.setdefault(image.key, []).append((image, parts))
        for key, received in images.items():
            self._record(self._writers[key], received, now)

    def idle(self, now: float) -> None:
        """Lets go of scans that are over."""
        self._look_for_scans()

    def close(self) -> None:
        """Leaves all scans as they are: the first subscriber ends them."""

    def progress(self) -> tuple[str, dict[str, int]]:
        """Returns the name of the last scan, and how many frames were stored and messages passed on."""
        return self._scan, {"recorded": self._n_recorded, "passed_on": self._n_passed_on}

    def passed_on(self) -> list[Sequence[Buffer]]:
        """Returns the messages for the first subscriber that have come since it was asked last."""
        messages, self._passed_on = self._passed_on, []
        self._n_passed_on += len(messages)
        return messages

    def _image_in(self, parts: Sequence[Buffer]) -> ImageMessage | None:
        try:
            message = self._dialect.decode(parts)
        except DetectorMessageError:
            return None
        return message if isinstance(message, ImageMessage) else None

    def _look_for_scans(self) -> None:
        for key, writer in list(self._writers.items()):
            if writer.scan.count(STAGE, "closed"):
                del self._writers[key]
                writer.scan.close()
        for scan in self._new.look():
            is_shared = scan.header.n_subscribers > 1 and bool(scan.header.series_uid)
            if is_shared and not scan.count(STAGE, "closed"):
                writer = FrameWriter(scan, INGESTS[1], self._channel, self._told)
                self._writers[scan.header.series_uid] = writer
                self._scan = scan.name

    def _record(
        self, writer: FrameWriter, received: list[tuple[ImageMessage, Sequence[Buffer]]], now: float
    ) -> None:
        known = _numbers_known(writer.scan)
        near = [(image, parts) for image, parts in received if image.image_id in known]
        self._passed_on += [parts for image, parts in received if image.image_id not in known]
        while near:
            n_stored = writer.write([image for image, _ in near], now)
            self._n_recorded += n_stored
            if not n_stored:
                self._passed_on.append(near[0][1])
            near = near[n_stored or 1 :]


def _numbers_known(scan: Scan) -> range:
    """Return the numbers of frames that need not be doubted."""
    n_known = max(scan.count(STAGE, "announced"), scan.n_frames)
    return range(scan.count(STAGE, "joined"), n_known + MOST_OVERTAKEN)
