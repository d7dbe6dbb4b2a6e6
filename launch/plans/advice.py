"""What a steered plan does between two batches: ask, decide, obey persons, and write it all down.

Nothing here blocks the RunEngine's loop.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import bluesky.plan_stubs as bps
import numpy as np
from bluesky.utils import MsgGenerator

from launch.plans.exposures import Exposures
from operators.arrays import Positions
from stream.steering.controls import ENDED, sentence
from stream.steering.policy_client import Advice, Advisor

POLL_S = 0.005
HOLD_POLL_S, HOLD_ASK_S = 0.05, 1.0
AGENT, PLANNED, PERSON, END = "agent", "planned", "person", ENDED

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Where a batch came from and why: one event of the stream `decisions`."""

    source: str
    reason: str
    n_points: int = 0
    sequence: int = -1
    age_s: float = -1.0
    frames_seen: int = -1
    predicted_gain: float = 0.0
    shown_predicted_gain: float = 0.0  # of an earlier batch, the last that the image shows
    realised_gain: float = 0.0  # what came true of that one
    map_hash: str = ""
    dose_peak: float = 0.0


class DecisionSignal:
    """The last decision as bluesky reads it."""

    name = "decision"
    parent = None

    def __init__(self) -> None:
        self._last = Decision(source=PLANNED, reason="")
        self._stamp = 0.0

    def put(self, decision: Decision) -> None:
        """Replaces the decision."""
        self._last, self._stamp = decision, time.time()

    def read(self) -> dict[str, Any]:
        """Returns one reading per field."""
        return {
            f"{self.name}_{key}": {"value": getattr(self._last, key), "timestamp": self._stamp}
            for key in Decision.__slots__
        }

    def describe(self) -> dict[str, Any]:
        """Returns what the readings are."""
        kinds = {str: "string", int: "integer", float: "number"}
        return {
            f"{self.name}_{key}": {
                "source": "plan",
                "dtype": kinds[type(getattr(self._last, key))],
                "shape": [],
            }
            for key in Decision.__slots__
        }


@dataclass(slots=True, kw_only=True)
class Conversation:
    """One scan's conversation with its advisor.

    Attributes
    ----------
    exposures : Exposures
        The authority on what may be measured.
    advisor : Advisor
    batch : int
        Points asked for.
    stale_after, wait_s, hold_s : float, seconds
        As in `launch.plans.adaptive.adaptive_ptycho`.
    clock : callable
        Monotonic seconds.
    signal : DecisionSignal
        Read into the run's stream `decisions`.
    """

    exposures: Exposures
    advisor: Advisor
    batch: int
    stale_after: float
    wait_s: float
    hold_s: float
    clock: Clock
    signal: DecisionSignal = field(default_factory=DecisionSignal)

    def ask(self, in_flight: Positions) -> None:
        """Ask for the batch after the one that is about to be measured."""
        self.advisor.ask(np.concatenate([self.exposures.measured, in_flight]), self.batch)

    def next_batch(self) -> MsgGenerator[Positions]:
        """Return the next points, none at the end, and write down why."""
        advice = yield from self._advice()
        over = ""
        while not over and (yield from self._heard_something()):
            over = yield from self._hold()
            self.ask(np.zeros((0, 2)))  # what was advised before a person spoke is void
            advice = yield from self._advice()
        over = over or self._stopped()
        decision, points = self._ended(over, advice) if over else self._decide(advice)
        yield from self.note(decision)
        return points

    def note(self, decision: Decision) -> MsgGenerator[None]:
        """Write a decision into the run and tell those who watch."""
        self.signal.put(decision)
        yield from bps.create("decisions")
        yield from bps.read(self.signal)
        yield from bps.save()
        n_left = max(self.exposures.n_left - decision.n_points, 0)
        self.advisor.tell(decision.source, decision.reason, decision.n_points, n_left)

    def _advice(self) -> MsgGenerator[Advice | None]:
        give_up = self.clock() + self.wait_s
        while (advice := self.advisor.poll()) is None and self.clock() < give_up and not self._stopped():
            yield from bps.sleep(POLL_S)
        return advice

    def _heard_something(self) -> MsgGenerator[bool]:
        """Write down what persons have said since the last time; return whether advice must be asked anew."""
        heard = self.advisor.heard
        news = heard.news()
        for control in news:
            yield from self.note(self._decision(PERSON, sentence(control), None, np.zeros((0, 2)))[0])
        self.exposures.restrict(heard.region)
        return bool(news) and not self._stopped()

    def _hold(self) -> MsgGenerator[str]:
        """Measure nothing while a person wants it so; return why the run is to end, "" if it goes on."""
        began = asked = answered = self.clock()
        is_missed = False
        while self.advisor.heard.held and not self._stopped():
            yield from bps.checkpoint()  # a pause goes back to here, not through all the waiting
            yield from bps.sleep(HOLD_POLL_S)
            now = self.clock()
            if self.advisor.poll() is not None:
                answered, is_missed = now, False
            yield from self._heard_something()
            if now - began >= self.hold_s:
                return f"held for {self.hold_s:g} s and nobody resumed"
            if now - answered >= self.stale_after and not is_missed:
                is_missed, reason = True, f"still held: nothing of the policy for {self.stale_after:g} s"
                yield from self.note(self._decision(PERSON, reason, None, np.zeros((0, 2)))[0])
            if now - asked >= HOLD_ASK_S:  # whoever answers may have been started anew
                self.ask(np.zeros((0, 2)))
                asked = now
        return ""

    def _stopped(self) -> str:
        stopper = self.advisor.heard.stopper
        if stopper is None:
            return ""
        return f"stopped by a person ({stopper.by})" if stopper.by else "stopped by a person"

    def _ended(self, reason: str, advice: Advice | None) -> tuple[Decision, Positions]:
        return self._decision(END, reason, advice, np.zeros((0, 2)))

    def _decide(self, advice: Advice | None) -> tuple[Decision, Positions]:
        exposures = self.exposures
        if exposures.n_left <= 0:
            return self._ended("every exposure that was allowed is made", None)
        reason = self._reason_against(advice)
        if advice is not None and not reason:
            if advice.recommendation.stop:
                return self._ended(f"stop: {_said(advice)}", advice)
            points, wrong = exposures.allowed(advice.points, self.batch)
            if len(points):
                return self._decision(AGENT, "; ".join(filter(None, (_said(advice), wrong))), advice, points)
            reason = f"nothing usable: {wrong or _said(advice)}"
        points = exposures.next_planned(self.batch)
        if len(points):
            return self._decision(PLANNED, reason, advice, points)
        return self._ended(f"the planned pattern is complete; {reason}", advice)

    def _reason_against(self, advice: Advice | None) -> str:
        if advice is None:
            return self.advisor.complaint() or f"silent: no advice in {self.wait_s:g} s"
        expires_s = min(self.stale_after, advice.recommendation.expires_s)
        return f"stale: {advice.age_s:.2f} s old, {expires_s:g} s allowed" if advice.age_s > expires_s else ""

    def _decision(
        self, source: str, reason: str, advice: Advice | None, points: Positions
    ) -> tuple[Decision, Positions]:
        fields: dict[str, Any] = {}
        if advice is not None:
            said = advice.recommendation
            fields = {
                "sequence": said.sequence,
                "age_s": float(advice.age_s),
                "frames_seen": said.frames_seen,
            }
            fields |= {"predicted_gain": float(said.predicted_gain), "map_hash": said.map_hash}
            fields["shown_predicted_gain"] = float(said.shown_predicted_gain)
            fields["realised_gain"] = float(said.realised_gain)
        peak = self.exposures.dose_peak
        return Decision(source=source, reason=reason, n_points=len(points), dose_peak=peak, **fields), points


def _said(advice: Advice) -> str:
    return "; ".join(advice.recommendation.reasons)
