"""How the steering stands, kept for the web page by one thread, and the page's words passed on."""

import logging
import queue
import threading
from concurrent.futures import Future
from typing import Any

import msgspec
import numpy as np

from stream.steering.control_client import SteeringClient, SteeringReport
from stream.steering.controls import sentence
from stream.steering.policy_client import PolicyClient
from stream.wire.codec import ProtocolError
from stream.wire.messages import Box, Deed
from stream.wire.sockets import Endpoint

log = logging.getLogger(__name__)

LOOK_S = 0.25
TIMEOUT_S = 1.0
MOST_POINTS = 2000  # that a page draws


class Words(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a browser sends: a deed, and for a region its corners, absolute object pixels (row, col)."""

    deed: Deed
    corners: tuple[tuple[float, float], tuple[float, float]] | None = None


class SteeringFeed:
    """The newest report of a policy; one thread talks to it.

    Parameters
    ----------
    endpoint : Endpoint
        Where the policy listens.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._client = SteeringClient(
            endpoint.address,
            insecure=endpoint.insecure,
            key=endpoint.key,
            peers=endpoint.peers,
            timeout_s=TIMEOUT_S,
        )
        self._words: queue.SimpleQueue[tuple[Words | None, str, Box | None, Future[None]]] = (
            queue.SimpleQueue()
        )
        self._report: SteeringReport | None = None
        self._trouble = "the policy has not answered yet"

    def follow(self, stopping: threading.Event) -> None:
        """Keeps the newest report until `stopping` is set; blocks."""
        with self._client:
            while not stopping.is_set():
                self._look()
                self._pass_on(LOOK_S)

    def plan(self) -> PolicyClient:
        """Returns a plan's side of a new conversation with the policy."""
        to = self._endpoint
        return PolicyClient(to.address, insecure=to.insecure, key=to.key, peers=to.peers)

    @property
    def steered(self) -> str:
        """The run that is being steered, "" where none is."""
        steering = self._report and self._report.steering
        return steering.run if steering and steering.plan == "running" else ""

    @property
    def unit(self) -> str | None:
        """The unit of motor positions, None before the policy has said it."""
        return self._report.steering.unit if self._report else None

    def say(self, words: Words, by: str, region: Box | None = None) -> "Future[None]":
        """Passes something on to the policy; the result is an error where it was refused.

        A region is given by the corners of `words` or, in motor positions, by `region`.
        """
        future: Future[None] = Future()
        self._words.put((words, by, region, future))
        return future

    def look(self) -> "Future[None]":
        """Asks the policy how it stands now; done when it has answered, or has not."""
        future: Future[None] = Future()
        self._words.put((None, "", None, future))
        return future

    def state(self, *, with_points: bool = False) -> dict[str, Any]:
        """Returns what the page shows, JSON can hold all of it; pixels are absolute object pixels (y, x).

        With the points recommended last in motor positions, (y, x), if wanted.
        """
        report = self._report
        if report is None:
            return {"trouble": self._trouble}
        steering = report.steering
        facts = msgspec.to_builtins(steering)
        facts |= {
            "trouble": self._trouble,
            "points_px": np.round(report.pixels(report.points[:MOST_POINTS]), 1).tolist(),
            "region_px": steering.region and _corners(report, steering.region),
            "limits_px": _corners(report, steering.limits),
            "said": [sentence(control) for control in steering.controls],
        }
        return facts | {"points": report.points[:MOST_POINTS].tolist()} if with_points else facts

    def _look(self) -> None:
        try:
            self._report, self._trouble = self._client.report(), ""
        except (TimeoutError, ProtocolError) as error:
            if not self._trouble:
                log.warning("the policy: %s", error)
            self._trouble = f"the policy does not answer: {error}"

    def _pass_on(self, timeout_s: float) -> None:
        try:
            words, by, region, future = self._words.get(timeout=timeout_s)
        except queue.Empty:
            return
        if words is None:
            self._look()
            future.set_result(None)
            return
        try:
            if words.corners is not None and self._report is not None:
                region = self._report.box_of(np.array(words.corners))
            self._report, self._trouble = self._client.say(words.deed, region, by), ""
            future.set_result(None)
        except (TimeoutError, ProtocolError, ValueError) as error:
            future.set_exception(error)


def _corners(report: SteeringReport, box: Box) -> list[list[float]]:
    """Return [[top, left], [bottom, right]] of a box of motor positions."""
    pixels = report.pixels(np.array(box).T)
    return [pixels.min(axis=0).tolist(), pixels.max(axis=0).tolist()]
