"""The policy as a process of a run: it follows the live image and answers plans.

Separate from `stream.policy`, which decides. A plan asks with `Consult` and gets one `Recommendation`; a plan
that does not ask costs nothing, and one that gets no answer goes on with its planned pattern. Made by
`launch.policy_process`.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from stream.client import SILENCE_S, LiveReconstruction
from stream.link import Link
from stream.messages import Consult, Hello, Recommendation, Reject, Welcome
from stream.policy import Policy
from stream.sockets import Endpoint, Socket
from stream.wire import Buffer, ProtocolError, decode, encode, refusal

log = logging.getLogger(__name__)

TURN_S = 0.02


class PolicyDoor:
    """Answers plans from one policy.

    Parameters
    ----------
    policy : Policy
    run_id : str
        Of the pipeline, told to every plan.
    silence_s : callable
        How long the pipeline has not been heard, seconds; then it recommends nothing.
    """

    def __init__(self, policy: Policy, run_id: str, silence_s: Callable[[], float]) -> None:
        self._policy, self._run_id, self._silence_s = policy, run_id, silence_s
        self._run = ""

    def exchange(self, requests: Sequence[Sequence[Buffer]]) -> list[list[Buffer]]:
        """Takes [plan, message, ...] parts and returns those to send."""
        return [[bytes(request[0]), *self._answer(request[1:])] for request in requests]

    def _answer(self, parts: Sequence[Buffer]) -> list[Buffer]:
        try:
            message, arrays = decode(parts)
            if isinstance(message, Hello):
                reason = refusal(message)
                return encode(Reject(reason=reason) if reason else Welcome(run_id=self._run_id))
            if not isinstance(message, Consult) or [array.shape[1:] for array in arrays] != [(2,)]:
                raise ProtocolError(f"wanted Consult with positions (point, 2), got {type(message).__name__}")
            return self._recommend(message, arrays)
        except ValueError as error:
            return encode(Reject(reason=str(error)[:2000]))

    def _recommend(self, consult: Consult, arrays: Sequence[NDArray[Any]]) -> list[Buffer]:
        if consult.run != self._run:
            self._run = consult.run
            self._policy.forget()
        self._policy.count(arrays[0])
        silence_s = self._silence_s()
        if silence_s > SILENCE_S:
            reason = f"blind: the pipeline has been silent for {silence_s:.1f} s"
            return encode(
                Recommendation(
                    run=consult.run,
                    question=consult.question,
                    sequence=consult.after + 1,
                    reasons=(reason,),
                ),
                [self._policy.config.axes.positions([])],
            )
        recommendation, points = self._policy.recommend(
            consult.n_points, run=consult.run, question=consult.question, after=consult.after
        )
        return encode(recommendation, [points])


class PolicyService:
    """Follows the live image and answers plans until the run ends; a `launch.stage_process.Service`.

    Parameters
    ----------
    policy : Policy
    live : callable
        Connects to the live image.
    door : Endpoint
        Where plans ask.
    run_id : str
    """

    name = "policy"

    def __init__(
        self, policy: Policy, live: Callable[[], LiveReconstruction], door: Endpoint, run_id: str = ""
    ) -> None:
        self._policy, self._live, self._door, self._run_id = policy, live, door, run_id

    def run(self, link: Link) -> None:
        """Answers plans; returns when the run stops."""
        with self._live() as live, Socket("ROUTER", self._door) as socket:
            door = PolicyDoor(self._policy, self._run_id, lambda: live.silence_s)
            link.ready(socket.address)
            while not link.is_stopped:
                self._follow(live)
                link.wait(TURN_S, [socket])
                for reply in door.exchange(_waiting(socket)):
                    socket.send(reply)
                link.report("", {"measured": self._policy.n_measured}, time.monotonic())

    def _follow(self, live: LiveReconstruction) -> None:
        try:
            image = live.poll()
        except ProtocolError as error:
            log.warning("the live image: %s", error)
            return
        if image is not None:
            self._policy.look(image)


def _waiting(socket: Socket) -> list[list[Buffer]]:
    requests = []
    while (parts := socket.receive()) is not None:
        requests.append(parts)
    return requests
