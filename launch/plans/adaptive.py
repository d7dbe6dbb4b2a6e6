"""Bluesky plans that let a policy steer a scan, and finish it as planned when the policy fails.

The plan is the authority: it never waits for advice longer than `wait_s`, never blocks the RunEngine's
loop, checks every point against limits and dose itself, and writes every decision into the run
(`launch.plans.advice`). What a person says (hold, resume, stop, a region) it obeys between two batches.
From a bluesky session or from a queue server, which has only strings, numbers and lists, and makes devices
of names where the annotation of a parameter is a protocol of bluesky:

    RE(adaptive_ptycho([detector], [stage_y, stage_x], "tcp://127.0.0.1:5811", fallback=spiral, limits=box))
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import numpy as np
from bluesky.protocols import Flyable, HasHints, NamedMovable, Readable
from bluesky.utils import MsgGenerator

from launch.plans.advice import Conversation
from launch.plans.exposures import Exposures, MaxDose, max_dose_of
from operators.arrays import Positions
from stream.steering.motor_axes import Limits
from stream.steering.policy_client import Advisor, PolicyClient

Measure = Callable[[Positions], MsgGenerator[None]]


def adaptive_ptycho(
    detectors: Sequence[Readable[Any]],
    motors: Sequence[NamedMovable[Any]],
    policy: Advisor | str | Mapping[str, Any],
    *,
    fallback: Sequence[Sequence[float]],
    limits: Limits,
    max_dose: MaxDose | str | None = None,
    max_points: int | None = None,
    batch: int = 32,
    stale_after: float = 60.0,
    wait_s: float = 0.5,
    hold_s: float = 3600.0,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[None]:
    """Measures where the policy says while it has something fresh and valid to say, else as planned.

    Parameters
    ----------
    detectors : sequence of devices
        Triggered and read at every point.
    motors : (device, device)
        y and x.
    policy : Advisor or str or mapping
        Whom to ask, or the address of a policy process, or the arguments of `PolicyClient` by name.
    fallback : (point, 2) float, motor positions (y, x)
        The planned pattern: measured, less what has been measured already, whenever there is no advice.
    limits : ((float, float), (float, float))
        Lowest and highest position of y and x; no point outside is measured, whoever asks for it.
    max_dose : MaxDose or str, optional
        A string is the configuration file of the pipeline, or its run.json (`max_dose_of`).
    max_points : int, optional
        Exposures in all, default the number of planned points.
    batch : int
        Points measured between two decisions.
    stale_after, wait_s : float, seconds
        Oldest advice to follow, since it was asked for; longest wait for it once a batch is measured.
    hold_s : float, seconds a person may hold the scan; then the run ends
    md : dict, optional, metadata of the run

    Notes
    -----
    The question for the next batch is asked when a batch begins, so the policy thinks while the motors move.
    A point that a pause interrupts is measured again by the RunEngine; the dose counts it once.
    """

    def measure(points: Positions) -> MsgGenerator[None]:
        for point in points:
            yield from bps.checkpoint()
            targets = [part for pair in zip(motors, map(float, point), strict=True) for part in pair]
            yield from bps.mv(*targets)
            exposures.triggered(point)  # before the trigger: a point that was interrupted has got its dose
            yield from bps.trigger_and_read(devices)

    devices, dimensions = [*detectors, *motors], [(motor.hints["fields"], "primary") for motor in motors]
    names = {"detectors": [d.name for d in detectors], "motors": [m.name for m in motors]}
    md = {**names, "hints": {"dimensions": dimensions}, **(md or {})}
    exposures = Exposures(fallback, limits, max_dose_of(max_dose), max_points)
    asking = _conversation(exposures, policy, batch, stale_after, wait_s, hold_s)
    yield from _run(asking, devices, measure, md)


def adaptive_fly_ptycho(
    detectors: Sequence[Flyable],
    flyer: Flyable,
    policy: Advisor | str | Mapping[str, Any],
    *,
    fallback: Sequence[Sequence[float]],
    limits: Limits,
    max_dose: MaxDose | str | None = None,
    max_points: int | None = None,
    batch: int = 512,
    stale_after: float = 60.0,
    wait_s: float = 0.5,
    hold_s: float = 3600.0,
    flush_period: float = 0.1,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[None]:
    """Flies one trajectory per batch; otherwise as `adaptive_ptycho`.

    Parameters
    ----------
    detectors : sequence of flyers
        Prepared with the number of frames, kicked off and completed with the stage.
    flyer : device
        The stage: `prepare` takes a trajectory (point, 2), motor positions (y, x).
    policy, fallback, limits, max_dose, max_points, batch, stale_after, wait_s, hold_s, md
        As for `adaptive_ptycho`.
    flush_period : float
        Seconds between two looks for new positions.
    """

    def measure(points: Positions) -> MsgGenerator[None]:
        if not len(exposures.measured):
            yield from bps.declare_stream(flyer, name="primary", collect=True)
        yield from bps.checkpoint()
        yield from bps.prepare(flyer, points, wait=True)
        for detector in detectors:
            yield from bps.prepare(detector, len(points), wait=True)
        exposures.triggered(points)
        yield from bps.kickoff_all(flyer, *detectors, wait=True)
        # A pause from here on goes on collecting; it does not fly the batch again.
        yield from bps.checkpoint()
        yield from bps.collect_while_completing(
            [flyer, *detectors], [flyer], flush_period=flush_period, stream_name="primary"
        )

    axes = list(cast(HasHints, flyer).hints["fields"])
    names = {"detectors": [d.name for d in detectors], "motors": axes}
    dimensions = [([name], "primary") for name in axes]
    exposures = Exposures(fallback, limits, max_dose_of(max_dose), max_points)
    conversation = _conversation(exposures, policy, batch, stale_after, wait_s, hold_s)
    devices = [flyer, *detectors]
    md = {**names, "hints": {"dimensions": dimensions}, **(md or {})}
    yield from _run(conversation, devices, measure, md)


def _conversation(
    exposures: Exposures,
    policy: Advisor | str | Mapping[str, Any],
    batch: int,
    stale_after: float,
    wait_s: float,
    hold_s: float,
) -> Conversation:
    if batch < 1:
        raise ValueError(f"expected at least one point per batch, got {batch}")
    if isinstance(policy, str):
        policy = PolicyClient(policy)
    elif isinstance(policy, Mapping):
        policy = PolicyClient(**policy)
    return Conversation(
        exposures=exposures,
        advisor=policy,
        batch=batch,
        stale_after=stale_after,
        wait_s=wait_s,
        hold_s=hold_s,
        clock=time.monotonic,
    )


def _run(
    conversation: Conversation, devices: Sequence[Any], measure: Measure, md: dict[str, Any]
) -> MsgGenerator[None]:
    """Runs batches until there is nothing left to measure; one bluesky run."""
    exposures = conversation.exposures
    plan = {"plan_name": "adaptive_ptycho", "n_planned": len(exposures.planned), "n_most": exposures.n_most}

    @bpp.stage_decorator([device for device in devices if hasattr(device, "stage")])
    @bpp.run_decorator(md={**plan, "limits": exposures.limits.tolist(), **md})
    def batches() -> MsgGenerator[None]:
        points = np.zeros((0, 2))
        conversation.ask(points)
        while len(points := (yield from conversation.next_batch())):
            conversation.ask(points)
            yield from measure(points)

    yield from bpp.finalize_wrapper(batches(), lambda: _closed(conversation.advisor))


def _closed(advisor: Advisor) -> Iterator[Any]:
    advisor.close()
    yield from bps.null()
