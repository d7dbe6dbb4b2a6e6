import os
import random
import subprocess
import sys
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import pytest

from stream.live.tile_store import LAYERS
from stream.wire.codec import MAX_HEADER_BYTES, ProtocolError, decode, encode
from stream.wire.handshake import greeting
from stream.wire.messages import (
    PROTOCOL,
    SCHEMA_HASH,
    AnyMessage,
    Ask,
    AskSteering,
    Command,
    Consult,
    Control,
    Controls,
    Decided,
    NoNews,
    Notice,
    Progress,
    Ready,
    Recommendation,
    Reject,
    Steering,
    Stop,
    Welcome,
)
from tests.helpers.stream.scans import UPDATE

MESSAGES = [
    greeting("client"),
    Welcome(run_id="r"),
    Reject(reason="no"),
    Ready(stage="inference", address="ipc:///tmp/x"),
    Progress(stage="inference", scan="0000-siemens", counts={"inferred": 3}),
    Notice(stage="inference", level=30, text="slow"),
    Stop(),
    Ask(scan="0000-siemens", after=2),
    NoNews(counts={"recorded": 1}),
    UPDATE,
    Consult(run="r", question=3, after=1, n_points=32),
    Recommendation(run="r", question=3, sequence=2, reasons=("survey",)),
    Controls(run="r", controls=(Control(number=1, deed="region", region=((0, 1), (2, 3)), by="page"),)),
    Decided(run="r", source="agent", reason="survey", n_points=32, n_left=68),
    Command(deed="hold", by="terminal"),
    AskSteering(),
    Steering(plan="running", limits=((0, 1), (0, 1)), unit="um", origin=(0, 0), pitch=(0.1, -0.1)),
]


def tiles(n=2):
    rng = np.random.default_rng(0)
    indices = rng.integers(-5, 5, (n, 2)).astype(np.int32)
    layers = [rng.normal(size=(n, 8, 8)).astype(dtype) for dtype in LAYERS.values()]
    return [indices, *layers, rng.normal(size=(12, 2)).astype(np.float32)]


def test_every_message_is_among_the_examples():
    assert {type(message) for message in MESSAGES} == set(get_args(AnyMessage))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_arrives_as_it_was_sent(message):
    arrived, arrays = decode(encode(message))
    assert arrived == message
    assert arrays == []


def test_arrays_arrive_as_they_were_sent():
    sent = tiles()
    arrived, arrays = decode([bytes(part) for part in encode(UPDATE, sent)])
    assert msgspec.structs.replace(arrived, arrays=()) == UPDATE
    for before, after in zip(sent, arrays, strict=True):
        assert before.dtype == after.dtype
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("array", [np.zeros((0, 8, 8), np.complex64), np.arange(24).reshape(4, 6).T[::2]])
def test_empty_and_strided_arrays_arrive_as_they_were_sent(array):
    _, (arrived,) = decode(encode(Stop(), [array]))
    np.testing.assert_array_equal(arrived, array)
    assert arrived.shape == array.shape


def test_arrays_from_the_wire_cannot_be_written_to():
    head, body = encode(Stop(), [np.zeros(3, np.uint8)])
    _, (arrived,) = decode([head, bytearray(body)])
    with pytest.raises(ValueError, match="read-only"):
        arrived[0] = 1


def refused(parts, match):
    with pytest.raises(ProtocolError, match=match):
        decode(parts)


def with_header(dtype, shape):
    return msgspec.msgpack.encode({"type": "Stop", "arrays": [[dtype, shape]]})


def test_what_is_no_message_is_refused():
    refused([], "0 parts")
    refused([b""], f"not a message of protocol {PROTOCOL}")
    refused([b"GET / HTTP/1.1\r\n"], "not a message")
    refused([bytes(MAX_HEADER_BYTES + 1)], "header of 65537 bytes")
    refused([msgspec.msgpack.encode({"type": "Exec", "code": "1"})], "Invalid value 'Exec'")
    refused([msgspec.msgpack.encode({"type": "Stop", "extra": 1})], "unknown field `extra`")
    refused([msgspec.msgpack.encode({"type": "Ask", "after": -2})], r"`int` >= -1")


def test_arrays_that_are_not_what_was_announced_are_refused():
    head, body = encode(Stop(), [np.zeros(4, np.float32)])
    refused([head], "announced 1 arrays, 0 came")
    refused([head, body, body], "announced 1 arrays, 2 came")
    refused([head, bytes(15)], r"<f4 \(4,\) needs 16 bytes, 15 bytes came")


@pytest.mark.parametrize("dtype", ["|O", "|S9", ">f4", "<c", "<f16", "|u8", "<M8", "O", "f4,f4"])
def test_an_array_of_another_dtype_is_refused(dtype):
    refused([with_header(dtype, [1]), bytes(16)], "Expected `str` matching regex")


def test_an_array_that_no_memory_could_hold_is_refused():
    huge = 2**31
    refused([with_header("<c16", [huge] * 4), b""], "needs .* bytes, 0 bytes came")
    refused([with_header("<c16", [0, huge, huge, huge]), b""], "array is too big")
    refused([with_header("<c16", [1] * 5), bytes(16)], "length <= 4")


def mutated(parts, rng):
    """Return the parts of a message after up to three accidents that a bad peer has on purpose."""
    parts = [bytearray(part) for part in parts]
    for _ in range(rng.randint(1, 3)):
        part = rng.choice(parts) if rng.random() < 0.3 else parts[0]
        at = rng.randrange(len(part) + 1)
        match rng.randrange(6):
            case 0 if at < len(part):
                part[at] = rng.randrange(256)
            case 1:
                part[at:at] = rng.randbytes(rng.randint(1, 8))
            case 2:
                del part[at : at + rng.randint(1, 8)]
            case 3:
                part[at:] = b""
            case 4 if len(parts) > 1:
                del parts[rng.randrange(len(parts))]
            case 5:
                parts.insert(rng.randrange(len(parts) + 1), bytearray(rng.randbytes(rng.randrange(20))))
    return parts


def test_damaged_messages_are_refused_and_never_anything_worse():
    rng = random.Random(0)
    originals = [encode(message) for message in MESSAGES] + [encode(UPDATE, tiles(1))]
    n_refused = 0
    for _ in range(20_000):
        parts = mutated(rng.choice(originals), rng)
        try:
            message, arrays = decode(parts)
        except ProtocolError:
            n_refused += 1
        else:
            assert isinstance(message, get_args(AnyMessage))
            assert sum(array.nbytes for array in arrays) == sum(len(part) for part in parts[1:])
    assert n_refused > 10_000


def test_the_schema_has_one_hash_in_every_process():
    command = [sys.executable, "-c", "from stream.wire.messages import SCHEMA_HASH; print(SCHEMA_HASH)"]
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert done.stdout.strip() == SCHEMA_HASH
