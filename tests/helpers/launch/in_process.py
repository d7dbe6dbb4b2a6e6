"""An `Advisor` whose policy is asked at once, in the plan's own process."""

import time

import numpy as np

from operators.arrays import Positions
from stream.steering.policy import Policy
from stream.steering.policy_client import Advice, Questions
from stream.wire.messages import Box, Deed, Recommendation


class InProcess:
    """Answers each question when it is asked; nothing of it needs a socket or a thread."""

    def __init__(self, policy: Policy) -> None:
        self._policy, self._questions = policy, Questions(time.monotonic)
        self.heard = self._questions.heard
        self._answer: tuple[Recommendation, Positions] | None = None

    def ask(self, measured: Positions, n_points: int) -> None:
        consult = self._questions.next(n_points)
        self._policy.restrict(consult.region)
        self._policy.count(np.array(measured, np.float64))
        self._answer = self._policy.recommend(
            consult.n_points, run=consult.run, question=consult.question, after=consult.after
        )

    def poll(self) -> Advice | None:
        """Return the answer to the last question, once."""
        answer, self._answer = self._answer, None
        return None if answer is None else self._questions.judge(*answer)

    def complaint(self) -> str:
        return self._questions.complaint

    def say(self, deed: Deed, region: Box | None = None, by: str = "") -> None:
        """Say something to the run, as a person does on the page."""
        self.heard.say(deed, region, by)

    def tell(self, source: str, reason: str, n_points: int, n_left: int) -> None:
        """Take note of nothing: who shares the process reads the run's own `decisions`."""

    def close(self) -> None:
        """End the conversation: there is nothing to end."""
