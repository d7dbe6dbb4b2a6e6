"""A person's side of a steered run: how it stands, and hold, resume, stop, a region of interest."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from operators.arrays import Positions
from stream.wire import addresses
from stream.wire.codec import ProtocolError
from stream.wire.greeting import trouble_with_keys
from stream.wire.handshake import Client
from stream.wire.messages import AskSteering, Box, Command, Deed, Reject, Steering, Welcome


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SteeringReport:
    """How the steering stands.

    Attributes
    ----------
    steering : Steering
    points : (point, 2) float64, motor positions (y, x)
        Recommended last.
    """

    steering: Steering
    points: Positions

    def pixels(self, positions: Positions) -> Positions:
        """Returns where the probe's centre is, absolute object pixels (point, 2), at motor positions."""
        return (np.asarray(positions, np.float64).reshape(-1, 2) - self.steering.origin) / self.steering.pitch

    def box_of(self, corners: Positions) -> Box:
        """Returns the box of motor positions between two corners, absolute object pixels (2, 2)."""
        ends = np.asarray(corners, np.float64).reshape(2, 2) * self.steering.pitch + self.steering.origin
        low, high = ends.min(axis=0).tolist(), ends.max(axis=0).tolist()
        return (low[0], high[0]), (low[1], high[1])


class SteeringClient(Client):
    """Talks to a policy process; a context manager.

    Parameters
    ----------
    address : str
        Where the policy listens, as the run prints it.
    insecure, key, peers
        As of `stream.client.LiveReconstruction`, and so are the errors.
    timeout_s : float
        How long to wait for an answer.
    """

    def __init__(
        self,
        address: str = addresses.POLICY,
        *,
        insecure: bool = False,
        key: Path | str | None = None,
        peers: Path | str | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        super().__init__("person", address, insecure=insecure, key=key, peers=peers, queue=16)
        self.timeout_s = timeout_s

    def report(self) -> SteeringReport:
        """Returns how the steering stands; errors as of `say`."""
        return self._ask(AskSteering())

    def say(self, deed: Deed, region: Box | None = None, by: str = "") -> SteeringReport:
        """Says something to the run that is being steered, and returns how it stands then.

        Parameters
        ----------
        deed : str
            hold, resume, stop, region or clear.
        region : ((y_low, y_high), (x_low, x_high)), motor positions
            Of the deed `region`.
        by : str
            Who says it; it will stand in the run.

        Raises
        ------
        TimeoutError
            If nobody answers.
        ProtocolError
            If the policy refuses, or the answer is not of this protocol.
        """
        return self._ask(Command(deed=deed, region=region, by=by))

    def _ask(self, message: AskSteering | Command) -> SteeringReport:
        self._connection.say(message, timeout_s=self.timeout_s)
        while (heard := self._connection.hear(self.timeout_s)) is not None:
            answer, arrays = heard
            match answer:
                case Welcome():
                    continue
                case Steering() if len(arrays) == 1 and arrays[0].shape[1:] == (2,):
                    return SteeringReport(steering=answer, points=np.array(arrays[0], np.float64))
                case Reject(reason=reason):
                    raise ProtocolError(reason)
                case _:
                    raise ProtocolError(f"wanted Steering, got {type(answer).__name__}")
        self.close()  # an answer that comes now would be taken for that to the next question
        why = trouble_with_keys(self.endpoint) or (
            "is `policy.enabled` set, and is this the address the policy printed?"
        )
        raise TimeoutError(f"nobody has answered at {self.endpoint.address} for {self.timeout_s:g} s: {why}")
