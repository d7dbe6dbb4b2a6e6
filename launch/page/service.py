"""The web page as a process of a run: the server in one thread, the ties to the supervisor in the other."""

import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from launch.config.sections import ViewerConfig
from launch.page import BROWSERS
from launch.page.metrics.monitor import Monitor
from launch.page.run_facts import RunFacts
from launch.page.scans.records import ScanRecords
from launch.page.server import run_viewer
from stream.stages.link import Link
from stream.wire.sockets import Endpoint

TURN_S = 0.2


class ViewerService:
    """Serves the page until the run ends; a `stream.stages.stage.Service`.

    Parameters
    ----------
    config : ViewerConfig
    live, policy : Endpoint
        Where the pipeline publishes, and of the policy that steers, if one does.
    records : ScanRecords, optional
        Of the folder that the run saves to.
    facts : RunFacts, optional
        Of the run beside the live image.
    monitor : Monitor, optional
        Of the run.
    """

    def __init__(
        self,
        config: ViewerConfig,
        live: Endpoint,
        policy: Endpoint | None = None,
        records: ScanRecords | None = None,
        facts: RunFacts | None = None,
        monitor: Monitor | None = None,
    ) -> None:
        self._serve = partial(run_viewer, config, live, policy, records=records, facts=facts, monitor=monitor)

    def run(self, link: Link) -> None:
        """Serves the page; returns when the run stops.

        Raises
        ------
        EndpointError
            If host and port cannot be used.
        """
        stopping, urls = threading.Event(), queue.SimpleQueue[str]()
        n_browsers = 0

        def on_browsers(n: int) -> None:
            nonlocal n_browsers
            n_browsers = n

        with ThreadPoolExecutor(1, thread_name_prefix="viewer") as pool:
            server = pool.submit(self._serve, on_ready=urls.put, on_browsers=on_browsers, stopping=stopping)
            server.add_done_callback(lambda _: urls.put(""))
            try:
                if url := urls.get():
                    link.ready(url)
                while not server.done() and not link.is_stopped:
                    link.wait(TURN_S)
                    link.report("", {BROWSERS: n_browsers}, time.monotonic())
            finally:
                stopping.set()
        server.result()
