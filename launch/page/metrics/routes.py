"""What programs ask that watch a run: /metrics in the words of Prometheus, /status.json in those of a script.

Both say the same. It is gathered by one thread beside the loop that serves the live image, so that questions
take at most one core, and a disk that hangs keeps nobody else waiting.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web

from launch.config.sections import ViewerConfig
from launch.page.guard import bearer
from launch.page.metrics.monitor import Monitor
from launch.page.metrics.status_json import status_json
from launch.page.status import Status

Answer = tuple[bytes, str]  # with its content type
MOST_WAITING = 16  # questions; further ones are refused


class MonitorRoutes:
    """Answers programs that watch the run.

    Parameters
    ----------
    config : ViewerConfig
        Who may ask.
    monitor : Monitor
    status : callable
        Returns how the scan stands, as the page says it.
    n_browsers : callable
        Returns how many browsers show the page.
    """

    def __init__(
        self,
        config: ViewerConfig,
        monitor: Monitor,
        status: Callable[[], Status],
        n_browsers: Callable[[], int],
    ) -> None:
        self._check, self._monitor, self._status, self._n_browsers = (
            bearer(config),
            monitor,
            status,
            n_browsers,
        )
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="page-metrics")
        self._n_waiting = 0

    def add_to(self, app: web.Application) -> None:
        """Adds the routes to `app`, and what ends with it."""
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/status.json", self._json)
        app.on_cleanup.append(self._close)

    async def _close(self, app: web.Application) -> None:
        self._reader.shutdown(cancel_futures=True)

    async def _metrics(self, request: web.Request) -> web.Response:
        def answer() -> Answer:
            from launch.page.metrics.exposition import exposition  # brings Prometheus' library

            return exposition(self._monitor.report(self._status(), self._n_browsers()), accept)

        accept = request.headers.get("Accept", "")
        return await self._answered(request, answer)

    async def _json(self, request: web.Request) -> web.Response:
        def answer() -> Answer:
            report = self._monitor.report(self._status(), self._n_browsers())
            return status_json(report), "application/json"

        return await self._answered(request, answer)

    async def _answered(self, request: web.Request, answer: Callable[[], Answer]) -> web.Response:
        self._check(request)
        if self._n_waiting >= MOST_WAITING:
            raise web.HTTPServiceUnavailable(text="too many questions at once: ask again in a moment")
        self._n_waiting += 1
        try:
            body, kind = await asyncio.get_running_loop().run_in_executor(self._reader, answer)
        finally:
            self._n_waiting -= 1
        return web.Response(body=body, headers={"Content-Type": kind})
