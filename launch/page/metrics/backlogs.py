"""Whether the stages keep up with the detector: a backlog that grows says of one that it does not."""

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from stream.record.account import counted

SPAN_S = 10.0  # two of these are compared
SHARE = 0.1  # of what came to a stage: it may do so much less without being called slow
LEAST = 16  # frames: fewer may wait for their batch


class _Sample(NamedTuple):
    at: float
    through: Mapping[str, int]
    waiting: Mapping[str, int]


class Backlogs:
    """How many frames have waited for each stage of a run, over the last twenty seconds.

    A backlog grows when the least that has waited at any moment of the last ten seconds is more than the
    least in the ten seconds before: by a tenth of the frames that came to the stage in the last ten seconds,
    and by 16 frames at least. A stage that works in gulps, as refinement publishes, has an empty moment in
    each ten seconds, and grows none.
    """

    def __init__(self) -> None:
        self._seen: deque[_Sample] = deque()

    def add(self, now: float, through: Mapping[str, int], waiting: Mapping[str, int]) -> None:
        """Takes, at the time `now`, how many frames each stage is through with and how many wait for it."""
        self._seen.append(_Sample(now, through, waiting))
        while len(self._seen) > 2 and now - self._seen[1].at >= 2 * SPAN_S:
            self._seen.popleft()

    def growing(self) -> dict[str, str]:
        """Returns the stages whose backlog grows, each with how much in words; none in the first seconds."""
        if not self._seen:
            return {}
        newest = self._seen[-1]
        before = [sample for sample in self._seen if newest.at - sample.at >= SPAN_S]
        lately = [sample for sample in self._seen if newest.at - sample.at <= SPAN_S]
        if not before:
            return {}
        middle, slow = before[-1], dict[str, str]()
        for stage, n_waiting in newest.waiting.items():
            grown = _least(lately, stage) - _least(before, stage)
            n_through = newest.through.get(stage, 0) - middle.through.get(stage, 0)
            n_came = n_through + n_waiting - middle.waiting.get(stage, 0)
            if grown >= max(LEAST, SHARE * n_came):
                slow[stage] = f"{counted(n_waiting)} waiting, {n_through} of {n_came} done in {SPAN_S:g} s"
        return slow


def _least(samples: list[_Sample], stage: str) -> int:
    return min(sample.waiting.get(stage, 0) for sample in samples)
