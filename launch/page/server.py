"""The live web page: one small server that follows the pipeline and shows any number of browsers its image.

A browser asks for each picture when it has drawn the last one, so a slow one skips versions and nothing
ever queues.
"""

import asyncio
import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import WSMsgType, web

from launch.config.sections import ViewerConfig
from launch.page.data_routes import DataRoutes
from launch.page.guard import guard
from launch.page.metrics.monitor import Monitor
from launch.page.metrics.routes import MonitorRoutes
from launch.page.picture import UNITS, Drawing
from launch.page.run_facts import RunFacts
from launch.page.scans.records import ScanRecords
from launch.page.status import RateMeter, Status, status_of
from launch.page.steering_feed import SteeringFeed
from launch.page.steering_routes import SteeringRoutes
from launch.page.versions import VersionHistory
from launch.results import colours
from stream.live.client import LiveReconstruction
from stream.live.image import LiveImage
from stream.plain_json import plain_json
from stream.record.account import shares
from stream.wire.codec import ProtocolError
from stream.wire.messages import ImageFigures, RunState
from stream.wire.sockets import Endpoint, EndpointError

log = logging.getLogger(__name__)

FILES = Path(__file__).parent / "web"
POLL_S = 0.1
IMAGE_INTERVAL_S = 0.1  # more often than anybody can look would only take time from the pipeline
STATE_INTERVAL_S = 0.25
TURN_S = 0.02
FAREWELL_S = 2.0  # for browsers to get the final image when the run ends
HEARTBEAT_S = 10.0  # a computer that was closed with the page open says no goodbye
RETRY_S = 2.0  # after a refusal, which does not go away by itself


class LiveFeed:
    """The newest image and state, kept by one thread and read by every connection.

    Parameters
    ----------
    live : Endpoint
        Where the pipeline publishes.
    policy : Endpoint or None
        Of the policy that steers; without one the page shows nothing of steering.
    may_steer : bool
        Whether who sees the page may also steer.
    facts : RunFacts
        Of the run beside the live image.

    Attributes
    ----------
    live : LiveReconstruction
        Open while the pipeline is followed.
    """

    def __init__(
        self,
        live: Endpoint,
        policy: Endpoint | None = None,
        *,
        may_steer: bool = False,
        facts: RunFacts | None = None,
    ) -> None:
        self.address, self._facts = live.address, facts or RunFacts()
        self.live = LiveReconstruction(
            live.address, insecure=live.insecure, key=live.key, peers=live.peers, follow=True
        )
        self._image: LiveImage | None = None
        self._refusal = ""
        self._rates = RateMeter()
        self._lock = threading.Lock()
        self._drawing: Drawing | None = None
        self.versions = VersionHistory(lambda: self._image)
        self.steering = SteeringFeed(policy) if policy else None
        # A page of another site may send what it likes, but cannot read this out of ours.
        self.token = secrets.token_urlsafe(24) if policy and may_steer else ""

    def follow(self, stopping: threading.Event) -> None:
        """Keeps the newest image until `stopping` is set; blocks."""
        with self.live:
            while not stopping.is_set():
                stopping.wait(self.look(POLL_S))

    def look(self, timeout_s: float = 0.0) -> float:
        """Takes the next image if there is one within `timeout_s`; returns how long to rest, seconds."""
        live = self.live
        try:
            image = live.poll(timeout_s)
        except ProtocolError as error:
            log.warning("%s", error)
            self._refusal = str(error)
            return RETRY_S
        if live.is_connected:
            self._refusal = ""
        self._image = image or self._image
        self._rates.add(time.monotonic(), self._image.scan if self._image else "", live.counts)
        return 0.0 if image is None else IMAGE_INTERVAL_S

    @property
    def image(self) -> LiveImage | None:
        """The newest image."""
        return self._image

    def packet(self, names: frozenset[str]) -> tuple[LiveImage | None, frozenset[str], bytes]:
        """Returns the newest image, the maps of it that were drawn, and their packet.

        Each map is drawn once for all connections. A final image has all of them: the viewer may be gone when
        somebody wants to see another one.
        """
        with self._lock:
            image = self._image
            if image is None:
                return None, names, b""
            if self._drawing is None or self._drawing.image is not image:
                self._drawing = Drawing(image)
            names = frozenset(UNITS) if image.is_final else names
            return image, names, self._drawing.packet(name for name in UNITS if name in names)

    def status(self) -> Status:
        """Returns how the scan stands."""
        return self._status(self._run_state())

    def _run_state(self) -> RunState | None:
        return self._facts.state() or self.live.state

    def _status(self, state: RunState | None) -> Status:
        if self._refusal:
            return Status(level="stale", text=self._refusal)
        return status_of(self._image, self.live.age_s, self.address, state)

    def state(self) -> bytes:
        """Returns what the page says beside the image, JSON."""
        image, run_state, counts = self._image, self._run_state(), self.live.counts
        status = self._status(run_state)
        state: dict[str, Any] = {"motors": None}
        if image is not None:
            state |= {name: getattr(image, name) for name in ImageFigures.__struct_fields__}
        state |= {
            "level": status.level,
            "text": status.text,
            "address": self.address,
            "counts": dict(counts),
            "shares": shares(counts) if counts else {},
            "rates": self._rates.rates(),
            **self._facts.as_json(run_state),
        }
        if self.steering is not None:
            state["steering"] = self.steering.state() | {"token": self.token}
        return msgspec.json.encode(state)


def run_viewer(
    config: ViewerConfig,
    live: Endpoint,
    policy: Endpoint | None = None,
    *,
    records: ScanRecords | None = None,
    facts: RunFacts | None = None,
    monitor: Monitor | None = None,
    on_ready: Callable[[str], None] | None = None,
    on_browsers: Callable[[int], None] = lambda n_browsers: None,
    stopping: threading.Event | None = None,
) -> None:
    """Serves the page until interrupted, or until `stopping` is set; blocks.

    Parameters
    ----------
    config : ViewerConfig
        Where the page is and who may see it.
    live, policy : Endpoint
        Where the pipeline publishes, and of the policy that steers, if one does.
    records : ScanRecords, optional
        Of the folder that the run saves to; without it the page shows nothing of the scans on disk.
    facts : RunFacts, optional
        Of the run beside the live image.
    monitor : Monitor, optional
        Of the run; without it there is neither /metrics nor /status.json.
    on_ready : callable, optional
        Called with the URL once a browser can open it.
    on_browsers : callable
        Called with the number of pages that are open when it changes.
    stopping : threading.Event, optional
        Ends the viewer from another thread.

    Raises
    ------
    EndpointError
        If host and port cannot be used.
    """
    stopping = stopping or threading.Event()
    feed = LiveFeed(live, policy, may_steer=config.may_steer, facts=facts)
    with _following(feed, monitor):
        page = Page(feed, config, records, monitor, on_browsers=on_browsers)
        asyncio.run(_serve(page, config, on_ready, stopping))


@contextlib.contextmanager
def _following(feed: LiveFeed, monitor: Monitor | None) -> Iterator[None]:
    stopping = threading.Event()
    followers = [feed.follow, feed.versions.follow]
    followers += [] if feed.steering is None else [feed.steering.follow]
    followers += [] if monitor is None else [monitor.tally.follow]
    threads = [
        threading.Thread(target=follow, args=(stopping,), name="live-feed", daemon=True)
        for follow in followers
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


async def _serve(
    page: "Page",
    config: ViewerConfig,
    on_ready: Callable[[str], None] | None,
    stopping: threading.Event,
) -> None:
    runner = web.AppRunner(page.app, access_log=None, shutdown_timeout=FAREWELL_S)
    await runner.setup()
    try:
        await _listen(runner, config)
        if on_ready:
            on_ready(_url(*runner.addresses[0][:2]))
        while not stopping.is_set():
            await asyncio.sleep(POLL_S)
        await page.farewell()
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, config: ViewerConfig) -> None:
    try:
        await web.TCPSite(runner, config.host, config.port).start()
    except OSError as error:
        raise EndpointError(
            f"cannot serve the page at {config.host}:{config.port}: {error.strerror}; another viewer may run "
            "there, port 0 takes a free one"
        ) from error


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Page:
    """The web application: the page at /, its files under /web, the image at /live.

    Who steers is answered in `launch.page.steering_routes`, what is asked for beside the live image in
    `launch.page.data_routes`, programs that watch the run in `launch.page.metrics.routes`.
    /colours has the colour maps: "tables", by name a list of red, green, blue, 0..255, entry after entry; and
    "of", the name that each map of a picture is drawn with.
    """

    def __init__(
        self,
        feed: LiveFeed,
        config: ViewerConfig,
        records: ScanRecords | None = None,
        monitor: Monitor | None = None,
        *,
        on_browsers: Callable[[int], None] = lambda n_browsers: None,
    ) -> None:
        self._feed, self._config, self._on_browsers = feed, config, on_browsers
        self._shown: dict[web.WebSocketResponse, tuple[LiveImage | None, frozenset[str]]] = {}
        self.app = web.Application(middlewares=[guard(config)], client_max_size=4096)
        self.app.router.add_get("/", self._index)
        self.app.router.add_get("/colours", self._colours)
        self.app.router.add_get("/live", self._live)
        self.app.router.add_static("/web", FILES)
        SteeringRoutes(config, feed.steering, feed.token).add_to(self.app)
        DataRoutes(records, feed.versions, self._held).add_to(self.app)
        if monitor is not None:
            MonitorRoutes(config, monitor, feed.status, lambda: len(self._shown)).add_to(self.app)

    async def farewell(self) -> None:
        """Waits a moment for browsers that do not show the newest image yet, and closes their connections."""
        deadline = time.monotonic() + FAREWELL_S
        while time.monotonic() < deadline and any(
            image is not self._feed.image for image, _ in self._shown.values()
        ):
            await asyncio.sleep(TURN_S)
        await asyncio.gather(*(socket.close() for socket in list(self._shown)))

    def _held(self, scan: str, version: int) -> LiveImage | None:
        newest = self._feed.image
        shown = (image for image, _ in self._shown.values() if image is not None)
        exact = (image for image in shown if (image.scan, image.version) == (scan, version))
        return next(exact, newest if newest is not None and newest.scan == scan else None)

    async def _index(self, request: web.Request) -> web.FileResponse:
        return web.FileResponse(FILES / "index.html")

    async def _colours(self, request: web.Request) -> web.Response:
        flat = {name: table.ravel().tolist() for name, table in colours.tables().items()}
        body = plain_json({"tables": flat, "of": colours.OF_MAP})
        return web.Response(body=body, content_type="application/json")

    async def _live(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(
            max_msg_size=4096, compress=False, timeout=FAREWELL_S, heartbeat=HEARTBEAT_S
        )
        await socket.prepare(request)
        self._shown[socket] = None, frozenset()
        self._on_browsers(len(self._shown))
        try:
            async for message in socket:
                if message.type == WSMsgType.TEXT:
                    await self._answer(socket, frozenset(message.data.split(",")) & UNITS.keys())
        finally:
            del self._shown[socket]
            self._on_browsers(len(self._shown))
        return socket

    async def _answer(self, socket: web.WebSocketResponse, names: frozenset[str]) -> None:
        """Sends the newest picture, if the browser does not show it, and in any case the state.

        A browser asks with the names of the maps that it shows, and with nothing for all.
        """
        names = names or frozenset(UNITS)
        deadline = time.monotonic() + STATE_INTERVAL_S
        while self._shows(socket, names) and time.monotonic() < deadline:
            await asyncio.sleep(TURN_S)
        with contextlib.suppress(ConnectionError):  # the browser left; the loop over its messages ends
            if not self._shows(socket, names):
                image, drawn, packet = await asyncio.to_thread(self._feed.packet, names)
                await socket.send_bytes(packet)
                self._shown[socket] = image, drawn
            await socket.send_str(self._feed.state().decode())

    def _shows(self, socket: web.WebSocketResponse, names: frozenset[str]) -> bool:
        image, drawn = self._shown[socket]
        return image is self._feed.image and (image is None or names <= drawn)
