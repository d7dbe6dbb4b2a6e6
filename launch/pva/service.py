"""The process of a run that serves the live image as PVs: a client like any other, so it delays nobody."""

import logging
import time
from typing import Protocol

from launch.config.run_file import ResolvedRun, client_of
from launch.config.sections import PvaConfig
from launch.page.status import status_of
from launch.pva.images import IMAGES, image_fields, no_image
from stream.live.client import LiveReconstruction
from stream.live.image import LiveImage
from stream.stages.link import Link
from stream.stages.stage import Service
from stream.wire.codec import ProtocolError
from stream.wire.pva import PvServer
from stream.wire.sockets import Endpoint

log = logging.getLogger(__name__)

TURN_S = 0.1
RETRY_S = 2.0  # after an answer that could not be understood
STATUS, FRAMES, VERSION = "Status", "Frames", "Version"


class Served(Protocol):
    """Where PVs are posted: `stream.wire.pva.PvServer`."""

    def post_image(self, name: str, fields: dict[str, object]) -> None:
        """Renews an NTNDArray."""

    def post_scalar(self, name: str, value: int | str) -> None:
        """Renews a number or a text."""


class LivePvs:
    """Renews the PVs of the live image, the images no more often than once in `interval_s`.

    Parameters
    ----------
    live : LiveReconstruction
    served : Served
    prefix : str
        Of the names of PVs.
    interval_s : float
    """

    def __init__(self, live: LiveReconstruction, served: Served, prefix: str, interval_s: float) -> None:
        self._live, self._served, self._prefix, self._interval_s = live, served, prefix, interval_s
        self._image: LiveImage | None = None
        self._due_at = float("-inf")
        for name in IMAGES:
            served.post_image(prefix + name, no_image())
        self._scalars: dict[str, int | str] = {}
        self._post_scalars({STATUS: "starting", FRAMES: 0, VERSION: 0})

    @property
    def scan(self) -> str:
        """The scan that is shown, "" before the first."""
        return self._image.scan if self._image else ""

    @property
    def frames_seen(self) -> int:
        """Frames in the image that is shown."""
        return self._image.frames_seen if self._image else 0

    def turn(self, now: float, timeout_s: float = 0.0) -> float:
        """Posts what is new, waits at most `timeout_s` for it; returns how long there is nothing to do."""
        if now < self._due_at:
            self._say()
            return self._due_at - now
        try:
            image = self._live.poll(timeout_s)
        except ProtocolError as error:
            log.warning("%s", error)
            self._due_at = now + RETRY_S
            return RETRY_S
        if image is not None:
            self._image, self._due_at = image, now + self._interval_s
            for name, fields in image_fields(image):
                self._served.post_image(self._prefix + name, fields)
        self._say()
        return 0.0

    def _say(self) -> None:
        image, live = self._image, self._live
        status = status_of(image, live.age_s, live.endpoint.address, live.state).text
        counts = {FRAMES: image.frames_seen, VERSION: image.version} if image else {}
        self._post_scalars({STATUS: status} | counts)

    def _post_scalars(self, scalars: dict[str, int | str]) -> None:
        for name, value in scalars.items():
            if self._scalars.get(name) != value:
                self._scalars[name] = value
                self._served.post_scalar(self._prefix + name, value)


class PvaService:
    """Serves PVs until the run ends; a `stream.stages.stage.Service`.

    Parameters
    ----------
    config : PvaConfig
    live : Endpoint
        Where the pipeline publishes.
    """

    def __init__(self, config: PvaConfig, live: Endpoint) -> None:
        self._config, self._live = config, live

    def run(self, link: Link) -> None:
        """Serves the PVs; returns when the run stops.

        Raises
        ------
        stream.wire.pva.PvaError
            If they cannot be served there.
        """
        section, where = self._config, self._live
        with (
            PvServer(section.host, insecure=section.insecure) as served,
            LiveReconstruction(
                where.address, insecure=where.insecure, key=where.key, peers=where.peers, follow=True
            ) as live,
        ):
            pvs = LivePvs(live, served, section.prefix, section.interval_s)
            link.ready()
            while not link.is_stopped:
                link.wait(min(pvs.turn(time.monotonic(), TURN_S), TURN_S))
                link.report(pvs.scan, {"shown": pvs.frames_seen}, time.monotonic())


def pvs(run: ResolvedRun) -> Service:
    """Returns the process that serves PVs."""
    return PvaService(run.config.pva, client_of(run, "stitcher", run.config.live))
