"""The policy as a process of a run: it follows the live image, answers plans, and hears what persons say.

A plan asks with `Consult` and gets one `Recommendation`; a plan that does not ask costs nothing, and one
that gets no answer goes on with its planned pattern. A person's `Command` is passed on to the plan, which
obeys.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from operators.arrays import Positions
from stream.live.client import LiveReconstruction
from stream.live.image import LiveImage
from stream.stages.link import Link
from stream.steering.controls import ENDED, ControlLog, sentence
from stream.steering.policy import Policy
from stream.steering.record import DecisionRecord
from stream.wire.codec import Buffer, ProtocolError, decode, encode
from stream.wire.handshake import SILENCE_S, answer_to, rejection
from stream.wire.messages import (
    AskSteering,
    Command,
    Consult,
    Control,
    Controls,
    Decided,
    Hello,
    Recommendation,
    StageLevel,
    StageState,
    Steering,
)
from stream.wire.sockets import Endpoint, Socket

log = logging.getLogger(__name__)

TURN_S = 0.02

Answer = list[list[Buffer]]  # messages, each with its receiver first


class PolicyDoor:
    """Answers plans and persons from one policy; one plan at a time, the last that asked, is steered.

    Parameters
    ----------
    policy : Policy
    run_id : str
        Of the pipeline, told to every plan.
    silence_s : callable
        How long the pipeline has not been heard, seconds; then it recommends nothing.
    record : DecisionRecord, optional
        Gets every decision.
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self,
        policy: Policy,
        run_id: str,
        silence_s: Callable[[], float],
        record: DecisionRecord | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy, self._run_id, self._silence_s = policy, run_id, silence_s
        self._record, self._clock = record, clock
        self._image: LiveImage | None = None
        self._run, self._plan = "", b""
        self._begin()

    def show(self, image: LiveImage) -> None:
        """Takes the newest image; the policy looks at it when it is asked."""
        self._image = image

    def exchange(self, requests: Sequence[Sequence[Buffer]]) -> Answer:
        """Takes [sender, message, ...] parts and returns those to send, [receiver, message, ...]."""
        return [reply for request in requests for reply in self._answer(bytes(request[0]), request[1:])]

    def _answer(self, sender: bytes, parts: Sequence[Buffer]) -> Answer:
        try:
            message, arrays = decode(parts)
            match message:
                case Hello():
                    reply = encode(answer_to(message, self._run_id))
                case Consult() if [(array.dtype, array.shape[1:]) for array in arrays] == [
                    (np.float64, (2,))
                ]:
                    if not np.isfinite(arrays[0]).all():
                        raise ProtocolError("Consult with measured positions that are not finite")
                    return self._consult(sender, message, arrays[0])
                case Decided():
                    self._take_note(message)
                    return []
                case Command():
                    return self._obey(sender, message)
                case AskSteering():
                    reply = self._steering()
                case _:
                    raise ProtocolError(
                        f"wanted Consult with positions (point, 2) float64, got {type(message).__name__}"
                    )
        except ValueError as error:
            reply = encode(rejection(error))
        return [[sender, *reply]]

    def _begin(self) -> None:
        """Forget the plan that was steered before."""
        self._controls = ControlLog()
        self._said = Decided(run=self._run, source="", reason="")
        self._asked_at = self._clock()
        self._measured: Positions = np.zeros((0, 2))
        self._last = Recommendation(run=self._run, question=0, sequence=0)
        self._points: Positions = np.zeros((0, 2))

    def _consult(self, sender: bytes, consult: Consult, measured: NDArray[np.float64]) -> Answer:
        n_known = len(self._measured)
        if consult.run != self._run or not np.array_equal(measured[:n_known], self._measured):
            if consult.run != self._run:
                self._run = consult.run
                self._begin()
            self._measured, n_known = measured[:0], 0
            self._policy.restrict(None)
            self._policy.forget()
            if self._record:
                self._record.begin(self._policy, self._run)
        self._plan, self._asked_at = sender, self._clock()
        self._controls.adopt(consult)
        news = self._controls.since(consult.heard)
        passed_on = [self._pass_on(news)] if news else []
        return [*passed_on, [sender, *self._recommend(consult, measured, measured[n_known:])]]

    def _recommend(self, consult: Consult, measured: Positions, new: Positions) -> list[Buffer]:
        silence_s = self._silence_s()
        if silence_s > SILENCE_S:
            return self._nothing(consult, f"blind: the pipeline has been silent for {silence_s:.1f} s")
        if self._controls.held:
            return self._nothing(consult, "held: nothing is measured until somebody resumes")
        policy, region = self._policy, self._controls.region
        policy.restrict(region)
        policy.count(measured)
        failed = np.array(consult.failed, np.float64).reshape(-1, 2)
        new_failed = failed[len(policy.failed) :]
        policy.give_up(failed)
        self._measured = measured
        image, self._image = self._image, None
        if image is not None:
            policy.look(image)
        answer = policy.recommend(
            consult.n_points, run=consult.run, question=consult.question, after=consult.after
        )
        if self._record:
            self._record.asked(policy, consult.n_points, region, new, image, answer, new_failed)
        self._last, self._points = answer
        return encode(self._last, [self._points])

    def _nothing(self, consult: Consult, reason: str) -> list[Buffer]:
        sequence, nothing = consult.after + 1, self._policy.aims.axes.positions([])
        return encode(
            Recommendation(run=consult.run, question=consult.question, sequence=sequence, reasons=(reason,)),
            [nothing],
        )

    def _take_note(self, decided: Decided) -> None:
        if decided.run == self._run:
            self._said, self._asked_at = decided, self._clock()

    def _obey(self, sender: bytes, command: Command) -> Answer:
        """Pass a person's word on to the plan at once: it is not to wait for its next question."""
        if self._state != "running":
            raise ValueError(f"{command.deed}: no plan is being steered")
        if command.region is not None and not self._policy.reaches(command.region):
            raise ValueError(f"{command.region} has no place to measure within {self._policy.aims.limits}")
        control = self._controls.say(command.deed, command.region, command.by)
        log.info("%s", sentence(control))
        return [self._pass_on((control,)), [sender, *self._steering()]]

    def _pass_on(self, controls: tuple[Control, ...]) -> list[Buffer]:
        return [self._plan, *encode(Controls(run=self._run, controls=controls))]

    def news(self) -> list[str]:
        """Returns what persons have said since the last call."""
        return [sentence(control) for control in self._controls.news()]

    @property
    def stage_state(self) -> StageState:
        """What the steering does, and who or what keeps it from following the image."""
        controls = self._controls
        if self._state == "none":
            text, level = "waiting for a plan", "ok"
        elif self._state == "ended":
            text, level = f"the plan has ended: {self._said.reason}", "done"
        elif controls.stopper is not None:
            text, level = f"stopped by {controls.stopper.by or 'a person'}", "warning"
        elif controls.held:
            text, level = f"held by {controls.holder or 'a person'}", "warning"
        else:
            text = "; ".join(self._last.reasons[:1]) or "no question yet"
            level = "warning" if text.startswith("blind") else "ok"
        return StageState(name="steering", text=text[:500], level=cast(StageLevel, level))

    @property
    def _state(self) -> Literal["none", "running", "ended"]:
        if not self._run:
            return "none"
        return "ended" if self._said.source == ENDED else "running"

    def _steering(self) -> list[Buffer]:
        policy, aims, controls = self._policy, self._policy.aims, self._controls
        motors = aims.axes.on_wire
        steering = Steering(
            plan=self._state,
            run=self._run,
            asked_s=max(self._clock() - self._asked_at, 0.0),
            held=controls.held,
            stopped=controls.stopper is not None,
            region=controls.region or aims.region,
            limits=aims.limits,
            unit=motors.unit,
            origin=motors.origin,
            pitch=motors.pitch,
            n_measured=policy.n_measured,
            n_failed=len(policy.failed),
            n_left=self._said.n_left,
            sequence=self._last.sequence if len(self._points) else -1,
            dose_peak=policy.dose_peak,
            max_dose=None if math.isinf(aims.max_dose) else aims.max_dose,
            predicted_gain=self._last.predicted_gain,
            shown_predicted_gain=self._last.shown_predicted_gain,
            realised_gain=self._last.realised_gain,
            reasons=self._last.reasons,
            source=self._said.source,
            reason=self._said.reason,
            controls=tuple(controls.said),
        )
        return encode(steering, [self._points])


class PolicyService:
    """Follows the live image and answers plans until the run ends; a `stream.stages.stage.Service`.

    Parameters
    ----------
    policy : Policy
    live : callable
        Connects to the live image.
    door : Endpoint
        Where plans and persons ask.
    run_id : str
    record : DecisionRecord, optional
        Gets every decision.
    """

    def __init__(
        self,
        policy: Policy,
        live: Callable[[], LiveReconstruction],
        door: Endpoint,
        run_id: str = "",
        record: DecisionRecord | None = None,
    ) -> None:
        self._policy, self._live, self._door, self._run_id = policy, live, door, run_id
        self._record = record

    def run(self, link: Link) -> None:
        """Answers plans; returns when the run stops."""
        with self._live() as live, Socket("ROUTER", self._door) as socket:
            door = PolicyDoor(self._policy, self._run_id, lambda: live.silence_s, self._record)
            link.ready(socket.address)
            while not link.is_stopped:
                link.wait(TURN_S, [socket])
                # After the wait: a question is answered from the image that is there when it comes.
                if (image := _newest(live)) is not None:
                    door.show(image)
                for reply in door.exchange(_waiting(socket)):
                    socket.send(reply)
                self._policy.settle()
                for words in door.news():
                    link.notice(logging.INFO, words)
                counts = {"measured": self._policy.n_measured} | socket.strangers
                link.report("", counts, time.monotonic(), state=door.stage_state)


def _newest(live: LiveReconstruction) -> LiveImage | None:
    newest = None
    try:
        while (image := live.poll()) is not None:  # the last look asks for the next image
            newest = image
    except ProtocolError as error:
        log.warning("the live image: %s", error)
    return newest


def _waiting(socket: Socket) -> list[list[Buffer]]:
    requests = []
    while (parts := socket.receive()) is not None:
        requests.append(parts)
    return requests
