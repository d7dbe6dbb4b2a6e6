"""Bluesky plans that let a policy steer a scan, and finish it as planned when the policy fails.

Separate from the policy: the plan is the authority. It never waits for advice longer than `wait_s`, never
blocks the RunEngine's loop, checks every point against limits and dose itself, and writes every decision into
the run. Called by users, from a bluesky session or a queue server:

    RE(adaptive_ptycho([detector], [stage_y, stage_x], "tcp://127.0.0.1:5811", fallback=spiral, limits=box))
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import numpy as np
from bluesky.utils import MsgGenerator

from launch.scan_ledger import Ledger, MaxDose
from operators.arrays import Positions
from stream.motor_axes import Limits
from stream.policy_client import Advice, Advisor, PolicyClient

POLL_S = 0.005
AGENT, PLANNED, END = "agent", "planned", "end"

Clock = Callable[[], float]
Measure = Callable[[Positions], MsgGenerator[None]]


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
    realised_gain: float = 0.0  # of an earlier batch, the last that the image shows
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
class _Steering:
    """One scan's conversation with its advisor."""

    ledger: Ledger
    advisor: Advisor
    batch: int
    stale_after: float
    wait_s: float
    clock: Clock
    signal: DecisionSignal = field(default_factory=DecisionSignal)

    def ask(self, in_flight: Positions) -> None:
        """Ask for the batch after the one that is about to be measured."""
        self.advisor.ask(np.concatenate([self.ledger.measured, in_flight]), self.batch)

    def next_batch(self) -> MsgGenerator[Positions]:
        """Return the next points, none at the end, and write down why."""
        advice = yield from self._advice()
        decision, points = self._decide(advice)
        yield from self.note(decision)
        return points

    def note(self, decision: Decision) -> MsgGenerator[None]:
        self.signal.put(decision)
        yield from bps.create("decisions")
        yield from bps.read(self.signal)
        yield from bps.save()

    def _advice(self) -> MsgGenerator[Advice | None]:
        give_up = self.clock() + self.wait_s
        while (advice := self.advisor.poll()) is None and self.clock() < give_up:
            yield from bps.sleep(POLL_S)
        return advice

    def _decide(self, advice: Advice | None) -> tuple[Decision, Positions]:
        ledger, nothing = self.ledger, np.zeros((0, 2))
        if ledger.n_left <= 0:
            return self._decision(END, "every exposure that was allowed is made", None, nothing)
        reason = self._reason_against(advice)
        if advice is not None and not reason:
            if advice.recommendation.stop:
                return self._decision(END, f"stop: {_said(advice)}", advice, nothing)
            points, wrong = ledger.allowed(advice.points, self.batch)
            if len(points):
                return self._decision(AGENT, "; ".join(filter(None, (_said(advice), wrong))), advice, points)
            reason = f"nothing usable: {wrong or _said(advice)}"
        points = ledger.next_planned(self.batch)
        if len(points):
            return self._decision(PLANNED, reason, advice, points)
        return self._decision(END, f"the planned pattern is complete; {reason}", advice, nothing)

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
            fields["realised_gain"] = float(said.realised_gain)
        peak = self.ledger.dose_peak
        return Decision(source=source, reason=reason, n_points=len(points), dose_peak=peak, **fields), points


def _said(advice: Advice) -> str:
    return "; ".join(advice.recommendation.reasons)


def adaptive_ptycho(
    detectors: Sequence[Any],
    motors: Sequence[Any],
    policy: Advisor | str,
    *,
    fallback: Positions,
    limits: Limits,
    max_dose: MaxDose | None = None,
    max_points: int | None = None,
    batch: int = 32,
    stale_after: float = 60.0,
    wait_s: float = 0.5,
    md: dict[str, Any] | None = None,
    clock: Clock = time.monotonic,
) -> MsgGenerator[None]:
    """Measures where the policy says while it has something fresh and valid to say, else as planned.

    Parameters
    ----------
    detectors : sequence of devices
        Triggered and read at every point.
    motors : (device, device)
        y and x.
    policy : Advisor or str
        Whom to ask, or the address of a policy process.
    fallback : (point, 2) float, motor positions (y, x)
        The planned pattern: measured, less what has been measured already, whenever there is no advice.
    limits : ((float, float), (float, float))
        Lowest and highest position of y and x; no point outside is measured, whoever asks for it.
    max_dose : MaxDose, optional
    max_points : int, optional
        Exposures in all, default the number of planned points.
    batch : int
        Points measured between two decisions.
    stale_after, wait_s : float, seconds
        Oldest advice to follow, since it was asked for; longest wait for it once a batch is measured.
    md : dict, optional
        Metadata of the run.

    Notes
    -----
    The question for the next batch is asked when a batch begins, so the policy thinks while the motors move.
    A point that a pause interrupts is measured again by the RunEngine; the dose counts it once.
    """
    devices = [*detectors, *motors]

    def measure(points: Positions) -> MsgGenerator[None]:
        for point in points:
            yield from bps.checkpoint()
            targets = [part for pair in zip(motors, map(float, point), strict=True) for part in pair]
            yield from bps.mv(*targets)
            ledger.triggered(point)  # before the trigger: a point that was interrupted has got its dose
            yield from bps.trigger_and_read(devices)

    names = {"detectors": [d.name for d in detectors], "motors": [m.name for m in motors]}
    dimensions = [(motor.hints["fields"], "primary") for motor in motors]
    ledger = Ledger(fallback, limits, max_dose, max_points)
    steering = _steering(ledger, policy, batch, stale_after, wait_s, clock)
    yield from _run(steering, devices, measure, {**names, "hints": {"dimensions": dimensions}, **(md or {})})


def adaptive_fly_ptycho(
    detectors: Sequence[Any],
    flyer: Any,
    policy: Advisor | str,
    *,
    fallback: Positions,
    limits: Limits,
    max_dose: MaxDose | None = None,
    max_points: int | None = None,
    batch: int = 512,
    stale_after: float = 60.0,
    wait_s: float = 0.5,
    flush_period: float = 0.1,
    md: dict[str, Any] | None = None,
    clock: Clock = time.monotonic,
) -> MsgGenerator[None]:
    """Flies one trajectory per batch; otherwise as `adaptive_ptycho`.

    Parameters
    ----------
    detectors : sequence of flyers
        Prepared with the number of frames, kicked off and completed with the stage.
    flyer : device
        The stage: `prepare` takes a trajectory (point, 2), motor positions (y, x).
    policy, fallback, limits, max_dose, max_points, batch, stale_after, wait_s, md
        As for `adaptive_ptycho`.
    flush_period : float
        Seconds between two looks for new positions.
    """

    def measure(points: Positions) -> MsgGenerator[None]:
        if not len(ledger.measured):
            yield from bps.declare_stream(flyer, name="primary", collect=True)
        yield from bps.checkpoint()
        yield from bps.prepare(flyer, points, wait=True)
        for detector in detectors:
            yield from bps.prepare(detector, len(points), wait=True)
        ledger.triggered(points)
        yield from bps.kickoff_all(flyer, *detectors, wait=True)
        # A pause from here on goes on collecting; it does not fly the batch again.
        yield from bps.checkpoint()
        yield from bps.collect_while_completing(
            [flyer, *detectors], [flyer], flush_period=flush_period, stream_name="primary"
        )

    names = {"detectors": [d.name for d in detectors], "motors": list(flyer.hints["fields"])}
    dimensions = [([name], "primary") for name in flyer.hints["fields"]]
    ledger = Ledger(fallback, limits, max_dose, max_points)
    steering = _steering(ledger, policy, batch, stale_after, wait_s, clock)
    devices = [flyer, *detectors]
    yield from _run(steering, devices, measure, {**names, "hints": {"dimensions": dimensions}, **(md or {})})


def _steering(
    ledger: Ledger, policy: Advisor | str, batch: int, stale_after: float, wait_s: float, clock: Clock
) -> _Steering:
    if batch < 1:
        raise ValueError(f"expected at least one point per batch, got {batch}")
    advisor = PolicyClient(policy) if isinstance(policy, str) else policy
    return _Steering(
        ledger=ledger, advisor=advisor, batch=batch, stale_after=stale_after, wait_s=wait_s, clock=clock
    )


def _run(
    steering: _Steering, devices: Sequence[Any], measure: Measure, md: dict[str, Any]
) -> MsgGenerator[None]:
    """Runs batches until there is nothing left to measure; one bluesky run."""
    ledger = steering.ledger
    plan = {"plan_name": "adaptive_ptycho", "n_planned": len(ledger.planned), "n_most": ledger.n_most}

    @bpp.stage_decorator([device for device in devices if hasattr(device, "stage")])
    @bpp.run_decorator(md={**plan, "limits": ledger.limits.tolist(), **md})
    def batches() -> MsgGenerator[None]:
        points = np.zeros((0, 2))
        steering.ask(points)
        while len(points := (yield from steering.next_batch())):
            steering.ask(points)
            yield from measure(points)

    yield from bpp.finalize_wrapper(batches(), lambda: _closed(steering.advisor))


def _closed(advisor: Advisor) -> Iterator[Any]:
    advisor.close()
    yield from bps.null()
