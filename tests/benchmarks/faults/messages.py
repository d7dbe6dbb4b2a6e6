"""Wrong messages on each socket that strangers reach: they are refused, and what is right still works."""

import asyncio
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cbor2
import numpy as np
from aiohttp import ClientSession, WSMsgType

from stream.documents.codec import to_msgpack
from stream.live.server import Door
from stream.record.scan import State
from stream.steering.policy_client import Questions
from stream.steering.policy_server import PolicyDoor
from stream.wire.codec import decode, encode
from stream.wire.handshake import greeting
from stream.wire.messages import Ask, Command, ObjectUpdate, Recommendation, Stop
from tests.benchmarks.figures import Figures
from tests.helpers.launch.pages import outcome, viewer
from tests.helpers.stream.detector import Recorder, assert_recorded, series
from tests.helpers.stream.fake_door import FakeDoor
from tests.helpers.stream.policies import policy as a_policy
from tests.helpers.stream.position_stage import Detector, N, stage, start, stop
from tests.helpers.stream.position_stage import page as a_page
from tests.helpers.stream.scans import UPDATE
from tests.helpers.stream.wrong_messages import DOCUMENTS, as_json, cbor, harmed, on_the_wire, tags_as_maps
from tests.helpers.stream.wrong_values import WRONG

N_MESSAGES, N_REHEARSED = 100_000, 400
N_AT_ONCE = 2_000  # then the folder is cleared: what is believed takes room
GOOD = 20  # frames of the series that shows that all is well


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A message with other bits, without its end, with more behind it, or of nothing but chance."""
    match rng.randrange(5):
        case 0:
            changed = bytearray(content)
            for _ in range(rng.randint(1, 8)):
                changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
            return bytes(changed)
        case 1:
            return content[: rng.randrange(len(content))]
        case 2:
            return content + rng.randbytes(rng.randrange(1, 200))
        case 3:
            return rng.randbytes(rng.randrange(0, 300))
    return rng.choice([b"\x81", b"\x91", b"[", b"\xa1\x60"]) * rng.randrange(1, 4000)


def _n(in_full: bool) -> int:
    return N_MESSAGES if in_full else N_REHEARSED


def _figures(n: int) -> Figures:
    """What is found when nothing was raised on the way, which is what the gate asks."""
    return {"passed": True, "messages": n, "found": f"{n} messages, no exception, a good one works"}


def detector(folder: Path, in_full: bool) -> Figures:
    """Wrong messages of a detector to the subscriber, which records the next series."""
    n, rng = _n(in_full), random.Random(1)
    good = series("a", 3, content=1)
    fields = [tags_as_maps(cbor2.loads(message)) for message in good]

    def wrong() -> bytes:
        if rng.random() < 0.5 and (encoded := cbor(harmed(rng.choice(fields), rng, WRONG))) is not None:
            return encoded
        return damaged(rng.choice(good), rng)

    for first in range(0, n, N_AT_ONCE):
        recorder = Recorder(folder / str(first))
        for _ in range(min(N_AT_ONCE, n - first)):
            recorder.take([wrong()])
        recorder.wait(60.0)
        recorder.take(series(f"good {first}", GOOD, content=1))
        assert_recorded(recorder.scan(), range(GOOD), content=1)
        recorder.subscriber.close()
        shutil.rmtree(folder / str(first))
    return _figures(n)


def documents(folder: Path, in_full: bool) -> Figures:
    """Wrong documents to the stage of positions, which places the next run."""
    n, rng = _n(in_full), random.Random(2)

    def wrong() -> list[list[bytes]]:
        name = rng.choice(list(DOCUMENTS))
        serializer = rng.choice([to_msgpack, as_json])
        if rng.random() < 0.5:
            return on_the_wire(name, harmed(DOCUMENTS[name], rng, WRONG), serializer)
        return [[damaged(message, rng) for message in on_the_wire(name, DOCUMENTS[name], serializer)[0]]]

    for first in range(0, n, N_AT_ONCE):
        scans = folder / str(first)
        scans.mkdir(parents=True)
        positions = stage(scans)
        for _ in range(min(N_AT_ONCE, n - first)):
            positions.handle(wrong())
        positions.idle(0.0)
        detected = Detector(scans, "good")
        for message in [*start("good", detector_series_id="good"), a_page(range(N), "good"), stop("good")]:
            positions.handle([message])
        assert (detected.states() == State.DONE).all()
        positions.close()
        shutil.rmtree(scans)
    return _figures(n)


def _wrong_parts(good: list[list[Any]], n: int, rng: random.Random) -> Iterator[list[bytes]]:
    """Messages of our own protocol, of which one part or more are not as they should be."""
    for _ in range(n):
        parts = [bytes(part) for part in rng.choice(good)]
        if rng.random() < 0.2:
            parts = parts * rng.randrange(0, 4)
        elif rng.random() < 0.2:
            rng.shuffle(parts)
        if parts:
            index = rng.randrange(len(parts))
            parts[index] = damaged(parts[index] or b"\0", rng)
        yield parts


def _answers(exchange: Callable[[Any], list[list[Any]]], client: bytes, *questions: list[Any]) -> list[Any]:
    replies = exchange([[client, *parts] for parts in questions])
    return [decode(parts)[0] for who, *parts in replies if bytes(who) == client]


def clients(folder: Path, in_full: bool) -> Figures:
    """Wrong messages to the door of the live image, which answers an honest client."""
    n, rng = _n(in_full), random.Random(3)
    door = Door("run", lambda scan, after: (UPDATE, [np.arange(3)]), lambda: 0.0)
    good = [encode(greeting("client")), encode(Ask(scan="0000-a", after=4)), encode(Stop())]
    for index, parts in enumerate(_wrong_parts(good, n, rng)):
        door.exchange([[f"stranger {index % 100}".encode(), *parts]])
    honest = _answers(door.exchange, b"honest", encode(greeting("client")), encode(Ask()))
    return _figures(n) | {"passed": any(isinstance(answer, ObjectUpdate) for answer in honest)}


def policy(folder: Path, in_full: bool) -> Figures:
    """Wrong messages to the door of the policy, which answers a plan."""
    n, rng = _n(in_full), random.Random(4)
    door = PolicyDoor(a_policy(), "run", lambda: 0.0)
    consult = Questions(lambda: 0.0).next(4)
    good = [
        *(encode(greeting("plan")), encode(consult, [np.zeros((2, 2))])),
        *(encode(Command(deed="hold", by="a")), encode(Stop())),
    ]
    for index, parts in enumerate(_wrong_parts(good, n, rng)):
        door.exchange([[f"stranger {index % 100}".encode(), *parts]])
    question = encode(Questions(lambda: 0.0).next(4), [np.zeros((0, 2))])
    honest = _answers(door.exchange, b"honest", encode(greeting("plan")), question)
    return _figures(n) | {"passed": any(isinstance(answer, Recommendation) for answer in honest)}


def page(folder: Path, in_full: bool) -> Figures:
    """Wrong words on the page's live connection, opened again whenever the page has had enough."""
    n = _n(in_full)
    with FakeDoor() as door, viewer(door.address) as url:
        n_opened, status = outcome(_talk(url, n))
    return _figures(n) | {"passed": status == 200, "connections": n_opened}


async def _talk(url: str, n: int) -> tuple[int, int]:
    rng, n_sent, n_opened = random.Random(5), 0, 0
    async with ClientSession() as session:
        while n_sent < n:
            n_opened += 1
            async with session.ws_connect(f"{url}/live") as socket:
                while n_sent < n and not socket.closed:
                    words = damaged(b'{"ask": "phase", "after": 3}', rng)[:6000]
                    n_sent += 1
                    try:
                        if rng.random() < 0.5:
                            await socket.send_bytes(words)
                        else:
                            await socket.send_str(words.decode("latin-1"))
                        if n_sent % 20:
                            continue
                        kind = (await asyncio.wait_for(socket.receive(), 0.01)).type
                    except (TimeoutError, ConnectionError):
                        continue
                    if kind in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR):
                        break
        async with session.get(url) as answer:
            return n_opened, answer.status
