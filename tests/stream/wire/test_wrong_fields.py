"""Every field of every message of the protocol with a wrong value, at both doors: refused, and served on."""

import contextlib
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest

from stream.live.server import Door
from stream.steering.policy_server import PolicyDoor
from stream.wire.codec import Buffer, ProtocolError, decode, encode
from stream.wire.handshake import greeting
from stream.wire.messages import Ask, Consult, ObjectUpdate, Recommendation, Reject
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.policies import image, policy
from tests.helpers.stream.scans import UPDATE
from tests.helpers.stream.wrong_values import WRONG, wrong_messages
from tests.stream.wire.test_codec import MESSAGES

BOXES = {
    "box of nan": [[float("nan")] * 2] * 2,
    "endless box": [[float("-inf"), float("inf")]] * 2,
    "box inside out": [[5.0, 1.0], [5.0, 1.0]],
}
POINTS = np.array([[0.0, 0.0], [1.0, 1.0]])
WRONG_POINTS = [
    np.full((2, 2), np.nan),
    np.full((2, 2), np.inf),
    POINTS.astype(complex),
    POINTS.astype(np.float32),
    POINTS.astype(np.uint8),
    np.zeros((2, 3)),
    np.zeros(2),
    np.zeros((1, 1, 2)),
]


def wrong_heads(kind: type | None = None) -> Iterator[bytes]:
    """Each message, or those of one kind, with one wrong field, as far as msgpack can carry it."""
    for message in MESSAGES:
        if kind is None or type(message) is kind:
            for _, wrong in wrong_messages(msgspec.to_builtins(message), WRONG | BOXES):
                with contextlib.suppress(ValueError, OverflowError, RecursionError, TypeError):
                    yield msgspec.msgpack.encode(wrong)


def test_a_message_with_a_wrong_field_is_refused_by_the_decoder_or_is_a_message() -> None:
    n_refused = n_taken = 0
    for head in wrong_heads():
        try:
            message, _ = decode([head])
        except ProtocolError as error:
            assert len(str(error)) < 1000
            n_refused += 1
        else:
            n_taken += 1
            assert decode(encode(message))[0] == message or b"\xcb\x7f\xf8" in head, "NaN equals nothing"
    assert n_refused > 2000
    assert n_taken < n_refused / 5


def test_the_live_door_answers_on_after_any_message() -> None:
    door = Door("r", lambda scan, after: (UPDATE, [np.arange(3)]) if after < 3 else None, Clock())
    for head in wrong_heads():
        door.exchange([[b"stranger", head], [b"", head], [b"stranger", head, b"more"]])
    door.exchange([[b"client", *encode(greeting("client"))]])
    answers = door.exchange([[b"client", *encode(Ask(after=0))]])
    assert [type(decode(parts)[0]) for client, *parts in answers if client == b"client"] == [ObjectUpdate]


def consult(points: np.ndarray, question: int = 1) -> list[Buffer]:
    return [b"plan", *encode(Consult(run="r", question=question, after=-1, n_points=3), [points])]


def answer_of(door: PolicyDoor, request: list[Buffer]) -> Any:
    return decode(door.exchange([request])[-1][1:])[0]


def test_the_policy_answers_on_after_any_message() -> None:
    door = PolicyDoor(policy(), "r", lambda: 0.0)
    door.show(image())
    for head in wrong_heads():
        door.exchange([[b"stranger", head]])
        assert door.stage_state.text
    for head in wrong_heads(Consult):
        with contextlib.suppress(ProtocolError):
            message, _ = decode([head])
            door.exchange([[b"plan", *encode(message, [POINTS])]])
    assert isinstance(answer_of(door, consult(POINTS)), Recommendation)


@pytest.mark.parametrize("points", WRONG_POINTS, ids=lambda points: f"{points.dtype} {points.shape}")
def test_a_question_with_positions_that_are_none_is_refused(points: np.ndarray) -> None:
    door = PolicyDoor(policy(), "r", lambda: 0.0)
    refused = answer_of(door, consult(points))
    assert isinstance(refused, Reject)
    assert "positions" in refused.reason
    assert isinstance(answer_of(door, consult(POINTS, 2)), Recommendation)
