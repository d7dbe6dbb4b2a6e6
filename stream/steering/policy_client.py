"""A plan's side of the conversation with the policy: ask, look for the answer, believe only what is fresh.

What is not a newer answer of the policy to this plan is dropped and counted as a complaint.
"""

import math
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from operators.arrays import Positions
from stream.steering.controls import ControlLog
from stream.wire import addresses
from stream.wire.codec import ProtocolError
from stream.wire.handshake import Client
from stream.wire.messages import (
    MAX_REASON,
    MOST_FAILED,
    AnyMessage,
    Consult,
    Controls,
    Decided,
    Recommendation,
    Reject,
    Welcome,
)

FAREWELL_S = 0.5
REFUSED = "refused"  # how the complaint begins where the policy said why it does not answer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Advice:
    """One recommendation that belongs to this plan and is newer than all before.

    Attributes
    ----------
    recommendation : Recommendation
    points : (point, 2) float64, motor positions (y, x)
        Not yet checked against anything.
    age_s : float
        Since the question was asked, when the answer was found.
    """

    recommendation: Recommendation
    points: Positions
    age_s: float


class Advisor(Protocol):
    """Whom a plan asks where to measure; no method waits.

    Attributes
    ----------
    heard : stream.steering.controls.ControlLog
        What persons have said to this run, as far as `poll` has found it.
    """

    heard: ControlLog

    def ask(self, measured: Positions, n_points: int) -> None:
        """Ask for up to `n_points`, given all exposures triggered so far; an earlier question is void."""

    def poll(self) -> Advice | None:
        """Return the answer to the last question, once."""

    def complaint(self) -> str:
        """Return what was wrong with what came since the last question, "" if nothing came."""

    def tell(self, source: str, reason: str, n_points: int, n_left: int) -> None:
        """Say what the plan decided and how many exposures it may still make."""

    def close(self) -> None:
        """End the conversation."""


class Questions:
    """What has been asked, what may be believed, and what persons have said."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.run, self.clock = uuid.uuid4().hex, clock
        self.number, self.high_water = 0, -1
        self.asked_s = math.inf
        self.complaint = ""
        self.heard = ControlLog()

    def next(self, n_points: int, failed: Sequence[tuple[float, float]] = ()) -> Consult:
        """Return the next question; an earlier one is void."""
        self.number, self.asked_s, self.complaint = self.number + 1, self.clock(), ""
        return Consult(
            run=self.run,
            question=self.number,
            after=self.high_water,
            n_points=n_points,
            heard=self.heard.number,
            held=self.heard.held,
            region=self.heard.region,
            failed=tuple(failed),
        )

    def hear(self, controls: Controls) -> None:
        """Take what persons have said to this run."""
        if controls.run != self.run:
            self.complaint = f"foreign: controls of run {controls.run[:8]!r}"
            return
        for control in controls.controls:
            self.heard.take(control)

    def judge(self, answer: Recommendation, points: Positions) -> Advice | None:
        """Return an answer that may be believed; None otherwise, and `complaint` says why."""
        if answer.run != self.run:
            self.complaint = f"foreign: an answer to run {answer.run[:8]!r}"
        elif answer.sequence <= self.high_water:
            self.complaint = f"frozen: sequence {answer.sequence} again, had {self.high_water}"
        elif answer.question != self.number:
            self.complaint = f"late: an answer to question {answer.question}, asked {self.number}"
        elif points.ndim != 2 or points.shape[1] != 2 or points.dtype != np.float64:
            self.complaint = f"garbage: points of shape {points.shape} {points.dtype}"
        else:
            self.high_water = answer.sequence
            return Advice(recommendation=answer, points=points, age_s=self.clock() - self.asked_s)
        return None


class PolicyClient(Client):
    """An `Advisor` that asks a policy process.

    Parameters
    ----------
    address : str
        Where the policy listens, as the run prints it.
    insecure, key, peers
        As of `stream.client.LiveReconstruction`, and so are the errors.
    """

    def __init__(
        self,
        address: str = addresses.POLICY,
        *,
        insecure: bool = False,
        key: Path | str | None = None,
        peers: Path | str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__("plan", address, insecure=insecure, key=key, peers=peers, clock=clock)
        self.questions = Questions(clock)
        self.heard = self.questions.heard

    def ask(self, measured: Positions, n_points: int, failed: Positions = ()) -> None:
        """Ask for up to `n_points`, given all exposures triggered so far; an earlier question is void.

        `failed`, (point, 2) motor positions, are those whose exposure failed; 4096 of a run count.
        """
        points = np.asarray(failed, np.float64).reshape(-1, 2)[:MOST_FAILED]
        consult = self.questions.next(n_points, [(y, x) for y, x in points.tolist()])
        # Nobody there: the queue fills, the question is lost, and the plan goes on as planned.
        self._connection.say(consult, [np.asarray(measured, np.float64).reshape(-1, 2)])

    def poll(self) -> Advice | None:
        """Return the answer to the last question, once."""
        advice = None
        # All that has come: what a person said stands behind an answer that has been waiting.
        while True:
            try:
                heard = self._connection.hear()
            except ProtocolError as error:
                self.questions.complaint = f"garbage: {error}"[:200]
                continue
            if heard is None:
                return advice
            advice = self._take(*heard) or advice

    def complaint(self) -> str:
        """Return what was wrong with what came since the last question, "" if nothing came."""
        return self.questions.complaint

    def tell(self, source: str, reason: str, n_points: int, n_left: int) -> None:
        """Say what the plan decided and how many exposures it may still make."""
        if self._connection.is_open:
            run, reason = self.questions.run, reason[:MAX_REASON]
            said = Decided(run=run, source=source, reason=reason, n_points=n_points, n_left=n_left)
            self._connection.say(said)

    def close(self) -> None:
        """End the conversation; the last word may still be on its way."""
        self._connection.close(FAREWELL_S)

    def _take(self, message: AnyMessage, arrays: list[NDArray[Any]]) -> Advice | None:
        match message:
            case Recommendation() if len(arrays) == 1:
                return self.questions.judge(message, arrays[0])
            case Welcome():
                return None
            case Controls():
                self.questions.hear(message)
            case Reject(reason=reason):
                self.questions.complaint = f"{REFUSED}: {reason}"[:200]
            case _:
                self.questions.complaint = f"garbage: {type(message).__name__} from the policy"
        return None
