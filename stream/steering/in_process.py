"""An `Advisor` without a policy process: the policy thinks in a thread of the plan's own process."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from operators.arrays import Positions
from stream.live.client import LiveReconstruction
from stream.steering.policy import Policy
from stream.steering.policy_client import Advice, Questions
from stream.wire.messages import Box, Consult, Deed, Recommendation


class InProcess:
    """An `Advisor` that asks a policy in this process; the thinking is done in a thread of its own.

    Parameters
    ----------
    policy : Policy
    live : LiveReconstruction, optional
        The live image to follow, in that thread; without it somebody else shows images to the policy.
    """

    def __init__(
        self,
        policy: Policy,
        live: LiveReconstruction | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy, self._live, self._questions = policy, live, Questions(clock)
        self.heard = self._questions.heard
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="policy")
        self._answer: Future[tuple[Recommendation, Positions]] | None = None

    def ask(self, measured: Positions, n_points: int) -> None:
        """Ask for up to `n_points`, given all exposures triggered so far; an earlier question is void."""
        consult = self._questions.next(n_points)
        self._answer = self._thread.submit(self._think, consult, np.array(measured, np.float64))

    def poll(self) -> Advice | None:
        """Return the answer to the last question, once."""
        if self._answer is None or not self._answer.done():
            return None
        answer, self._answer = self._answer, None
        if (error := answer.exception()) is not None:
            self._questions.complaint = f"failed: {type(error).__name__}: {error}"[:200]
            return None
        return self._questions.judge(*answer.result())

    def complaint(self) -> str:
        """Return what was wrong with what came since the last question, "" if nothing came."""
        return self._questions.complaint

    def say(self, deed: Deed, region: Box | None = None, by: str = "") -> None:
        """Say something to the run, as a person does on the page; errors as of `ControlLog.say`."""
        self.heard.say(deed, region, by)

    def tell(self, source: str, reason: str, n_points: int, n_left: int) -> None:
        """Take note of nothing: who shares the process reads the run's own `decisions`."""

    def close(self) -> None:
        """End the conversation."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _think(self, consult: Consult, measured: Positions) -> tuple[Recommendation, Positions]:
        image = self._live.poll() if self._live else None
        if image is not None:
            self._policy.look(image)
        self._policy.restrict(consult.region)
        self._policy.count(measured)
        return self._policy.recommend(
            consult.n_points, run=consult.run, question=consult.question, after=consult.after
        )
