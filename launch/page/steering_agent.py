"""What programs without bluesky say to steer a scan, and the conversation with the policy that comes of it.

To the policy they are a plan: they ask, measure, report. Limits, dose and the motors are theirs to keep.
"""

import threading
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from stream.steering.policy_client import PolicyClient
from stream.steering.remote_policy import RemotePolicy
from stream.wire.messages import MOST_FAILED, Box, Coordinate, Deed

MOST_POINTS = 4096  # of one request
Point = tuple[Coordinate, Coordinate]
Points = Annotated[tuple[Point, ...], Meta(max_length=MOST_POINTS)]


class ConflictError(ValueError):
    """What was asked does not fit how the steering stands."""


class Suggest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="suggest"):
    """Where to measure next, after what has been measured since."""

    n: Annotated[int, Meta(ge=1, le=MOST_POINTS)] = 32  # points at most
    measured: Points = ()  # motor positions (y, x) of exposures that nothing has been said of yet
    failed: Points = ()  # of exposures that failed: tried once more, then left out
    after: Annotated[int, Meta(ge=0)] | None = None  # refuse where not as many were measured before
    take_over: bool = False  # end the steering of another plan


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="report"):
    """What has been measured since; nothing is asked."""

    measured: Points = ()
    failed: Points = ()
    after: Annotated[int, Meta(ge=0)] | None = None
    take_over: bool = False


class End(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="end"):
    """The scan is over; the next suggestion begins another."""


class _Say(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do"):
    """A word to whoever is being steered, as a person says it."""

    by: Annotated[str, Meta(max_length=40)] = ""  # who says so; it stands in the run


class Hold(_Say, frozen=True, tag="hold"):
    """Measure nothing until somebody resumes."""


class Resume(_Say, frozen=True, tag="resume"):
    """Go on."""


class Stop(_Say, frozen=True, tag="stop"):
    """End the run."""


class Clear(_Say, frozen=True, tag="clear"):
    """Measure everywhere within the limits again."""


class Region(_Say, frozen=True, kw_only=True, tag="region"):
    """Measure within a box only."""

    region: Box  # [[lowest y, highest y], [lowest x, highest x]], motor positions


Said = Hold | Resume | Stop | Clear | Region
Request = Suggest | Report | End | Said
_DECODER = msgspec.json.Decoder(Request)


def request_of(body: bytes) -> Request:
    """Returns what a program asks.

    Raises
    ------
    ValueError
        If it is not JSON, or not such a request: what was expected, and where.
    """
    try:
        return _DECODER.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f'expected a JSON object such as {{"do": "suggest", "n": 16}}: {error}') from error


def deed_of(said: Said) -> tuple[Deed, Box | None]:
    """Returns the same for a `SteeringClient`."""
    deed: Deed = type(said).__struct_config__.tag  # type: ignore[assignment]
    return deed, said.region if isinstance(said, Region) else None


class SteeringAgent:
    """The scan of a program that steers by HTTP: one at a time.

    Parameters
    ----------
    connect : callable
        Returns a new conversation with the policy.
    """

    def __init__(self, connect: Callable[[], PolicyClient]) -> None:
        self._connect = connect
        self._policy: RemotePolicy | None = None
        self._lock = threading.Lock()

    def suggest(self, words: Suggest, steered: str) -> dict[str, Any]:
        """Returns the next points and what belongs to them; `steered` is the run that the policy steers.

        Raises
        ------
        ConflictError
            If another plan is being steered, or not as many points were measured as the program thinks.
        ValueError
            If the policy refuses what was reported; it has not been noted.
        TimeoutError
            If the policy does not answer; what was reported has been noted.
        """
        with self._lock:
            before = (self._policy.measured, self._policy.failed) if self._policy else ((), ())
            policy = self._noted(words, steered)
            try:
                _, points = policy.next_points(words.n)
            except ValueError:
                policy.count(before[0])  # or it would refuse every question from now on
                policy.give_up(before[1])
                raise
            stops, why = policy.should_stop()
            assert policy.last is not None  # noqa: S101 -- it has just answered
            return self._counts(policy) | {
                "points": points.tolist(),
                "sequence": policy.last.sequence,
                "expires_s": policy.last.expires_s,
                "stop": stops,
                "why": why,
                "held": policy.is_held,
                "reasons": list(policy.last.reasons),
            }

    def report(self, words: Report, steered: str) -> dict[str, Any]:
        """Takes what has been measured and returns how many there are now; errors as of `suggest`."""
        with self._lock:
            return self._counts(self._noted(words, steered))

    def end(self) -> dict[str, Any]:
        """Tells the policy that the scan is over."""
        with self._lock:
            counts = self._counts(self._policy) if self._policy else {"n_measured": 0, "n_failed": 0}
            self._hang_up()
            return counts

    def _noted(self, words: Suggest | Report, steered: str) -> RemotePolicy:
        mine = self._policy.run if self._policy else ""
        if steered not in ("", mine):
            if not words.take_over:
                raise ConflictError(
                    'another plan is being steered: "take_over": true ends its steering, and begins a scan'
                )
            self._hang_up()
        policy = self._policy
        n_measured = len(policy.measured) if policy else 0
        if words.after is not None and words.after != n_measured:
            raise ConflictError(
                f"{n_measured} points have been measured before these, not {words.after}: nothing was noted"
            )
        if policy is None:
            policy = self._policy = RemotePolicy(self._connect())
        if len(policy.failed) + len(words.failed) > MOST_FAILED:
            raise ConflictError(f"more than {MOST_FAILED} exposures of one scan have failed: end it")
        policy.count(np.concatenate([policy.measured, np.array(words.measured).reshape(-1, 2)]))
        policy.give_up(np.concatenate([policy.failed, np.array(words.failed).reshape(-1, 2)]))
        return policy

    def _hang_up(self) -> None:
        policy, self._policy = self._policy, None
        if policy is not None:
            policy.close()

    def _counts(self, policy: RemotePolicy) -> dict[str, Any]:
        return {"n_measured": len(policy.measured), "n_failed": len(policy.failed)}
