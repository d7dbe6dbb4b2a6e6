"""A policy process as an optimizer of bluesky-adaptive: its suggestions, failures, end and checkpoint."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from operators.arrays import Positions
from stream.atomic import replacing
from stream.steering.controls import ENDED
from stream.steering.optimizer import NamedPoints
from stream.steering.policy_client import REFUSED, PolicyClient
from stream.wire.messages import Recommendation

TIMEOUT_S, POLL_S = 5.0, 0.005
Point = tuple[float, float]


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation as far as it has come; what has been heard is never counted back."""

    run: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    question: Annotated[int, msgspec.Meta(ge=0)]
    sequence: Annotated[int, msgspec.Meta(ge=-1)]
    measured: tuple[Point, ...]
    failed: tuple[Point, ...]
    offered: dict[str, Point]


class RemotePolicy(NamedPoints):
    """Suggests what a policy process recommends; each call waits for its answer. A context manager.

    Has what bluesky-adaptive 1.0 calls `Optimizer`, `SupportsStoppingCriteria`, `TrialFaultAware` and
    `Checkpointable`. For plans there is `PolicyClient`, which never waits.

    Parameters
    ----------
    client : PolicyClient
        Closed with this.
    motors : (str, str)
        Names of y and x in suggestions.
    timeout_s : float
        Longest wait for an answer.
    file : Path, optional
        Where `checkpoint` writes. What lies there is gone on with: the same conversation, the same points.
    wait : callable
        Waits so many seconds.

    Raises
    ------
    ValueError
        If the file is not a checkpoint.

    Attributes
    ----------
    last : Recommendation or None
        The newest answer.
    """

    def __init__(
        self,
        client: PolicyClient,
        motors: tuple[str, str] = ("y", "x"),
        *,
        timeout_s: float = TIMEOUT_S,
        file: Path | None = None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(motors)
        self._client, self._timeout_s, self._file, self._wait = client, timeout_s, file, wait
        self.measured = self.failed = np.zeros((0, 2))
        self.last: Recommendation | None = None
        if file is not None and file.exists():
            self._resume(file)

    @property
    def run(self) -> str:
        """The name of the conversation."""
        return self._client.questions.run

    @property
    def is_held(self) -> bool:
        """Whether a person holds the scan: until somebody resumes, nothing is suggested."""
        return self._client.heard.held

    def next_points(self, n_points: int) -> tuple[int, Positions]:
        """Return the number of a recommendation, and its points; none when it is enough, or while held.

        Raises
        ------
        TimeoutError
            If nobody answers, or nothing that may be believed: the sentence says what came.
        ValueError
            If the policy refuses what it was told.
        """
        client = self._client
        client.ask(self.measured, n_points, self.failed)
        for _ in range(max(round(self._timeout_s / POLL_S), 1)):
            if (advice := client.poll()) is not None:
                break
            if (refusal := client.complaint()).startswith(REFUSED):
                raise ValueError(f"the policy at {client.endpoint.address}: {refusal}")
            self._wait(POLL_S)
        else:
            what = client.complaint() or "it does not answer"
            raise TimeoutError(f"the policy at {client.endpoint.address}: {what}")
        self.last = advice.recommendation
        points = advice.points[:0] if self.should_stop()[0] else advice.points
        client.tell("agent", "; ".join(self.last.reasons), len(points), 0)
        return self.last.sequence, points

    def should_stop(self) -> tuple[bool, str]:
        """Return whether what matters is known well enough, or a person has said stop, and why."""
        if (stopper := self._client.heard.stopper) is not None:
            return True, f"stopped by {stopper.by or 'a person'}"
        if self.last is None or not self.last.stop:
            return False, ""
        return True, "; ".join(self.last.reasons)

    def known(self) -> dict[str, float]:
        """Return how many points the policy knew of, and what it expected of the next ones, rad^2 pixels."""
        last = self.last
        gain = float("nan") if last is None else last.predicted_gain
        return {"n_measured": float(len(self.measured)), "predicted_gain": gain}

    def count(self, measured: Positions) -> None:
        """Take the motor positions (point, 2) of all exposures so far; the next question tells them."""
        self.measured = _finite(measured)

    def give_up(self, failed: Positions) -> None:
        """Take the motor positions (point, 2) of all exposures that failed; the next question tells them."""
        self.failed = _finite(failed)

    def checkpoint(self) -> None:
        """Write the conversation to the file, in one step.

        Raises
        ------
        ValueError
            If there is no file.
        """
        if self._file is None:
            raise ValueError("checkpoint: expected a `file` when the policy was made, got none")
        questions = self._client.questions
        checkpoint = Checkpoint(
            run=questions.run,
            question=questions.number,
            sequence=questions.high_water,
            measured=_points(self.measured),
            failed=_points(self.failed),
            offered={name: (point[0], point[1]) for name, point in self._offered.items()},
        )
        with replacing(self._file) as temporary:
            temporary.write_bytes(msgspec.json.encode(checkpoint))

    def close(self) -> None:
        """Tell that this run has ended, and hang up."""
        self._client.tell(ENDED, "the agent has ended", 0, 0)
        self._client.close()

    def __enter__(self) -> "RemotePolicy":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _resume(self, file: Path) -> None:
        try:
            kept = msgspec.json.decode(file.read_bytes(), type=Checkpoint)
        except msgspec.DecodeError as error:
            raise ValueError(f"{file} is no checkpoint of a policy: {error}") from error
        questions = self._client.questions
        questions.run, questions.number, questions.high_water = kept.run, kept.question, kept.sequence
        self.measured, self.failed = _finite(kept.measured), _finite(kept.failed)
        self._offered = {name: list(point) for name, point in kept.offered.items()}


def _finite(positions: Positions) -> Positions:
    points = np.array(positions, np.float64).reshape(-1, 2)
    if not np.isfinite(points).all():
        raise ValueError("motor positions: expected finite numbers")
    return points


def _points(positions: Positions) -> tuple[Point, ...]:
    return tuple((y, x) for y, x in positions.tolist())
