"""Wrong messages on each socket that strangers reach: they are refused, and what is right still works.

Each row also says what the process that took them holds more at the end than after the first quarter.
"""

import asyncio
import ctypes
import gc
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import ClientSession, ClientWebSocketResponse, TCPConnector

from stream.documents.codec import to_msgpack
from stream.live.server import Door
from stream.record.scan import State
from stream.steering.policy_client import Questions
from stream.steering.policy_server import PolicyDoor
from stream.wire.codec import decode, encode
from stream.wire.handshake import greeting
from stream.wire.messages import Ask, Command, ObjectUpdate, Recommendation, Stop
from tests.benchmarks.figures import Figures
from tests.helpers.held import Held, held_by
from tests.helpers.launch.pages import outcome, viewer
from tests.helpers.stream.detector import Recorder, assert_recorded, series_as
from tests.helpers.stream.fake_door import FakeDoor
from tests.helpers.stream.policies import policy as a_policy
from tests.helpers.stream.position_stage import Detector, N, stage, start, stop
from tests.helpers.stream.position_stage import page as a_page
from tests.helpers.stream.scans import UPDATE
from tests.helpers.stream.wrong_messages import (
    DOCUMENTS,
    WrongMessages,
    as_json,
    damaged,
    harmed,
    on_the_wire,
)
from tests.helpers.stream.wrong_values import WRONG

N_MESSAGES, N_REHEARSED = 100_000, 400
PARTS = 4  # of all messages: after the first nothing may grow
N_AT_ONCE = 2_000  # then the folder is cleared: what is believed takes room
SERIES_ID = 4711  # which no stranger names
GOOD = 20  # frames of the series that shows that all is well
N_BROWSERS = 200  # a question, right or wrong, is answered within a quarter of a second, not at once
MOST_WORDS = 6000  # more than the page takes
MOST_GROWTH_MB, MOST_GROWTH = 5.0, 16  # memory; descriptors, and maps of files of the folder
_TRIM = ctypes.CDLL(None).malloc_trim


def _taken(folder: Path, in_full: bool, take: Callable[[int], bool]) -> Figures:
    """Have `take` do with so many messages in parts, each of which says whether a good one still works."""
    n, before, works = N_MESSAGES if in_full else N_REHEARSED, Held(0, 0, 0.0), True
    for part in range(PARTS):
        works &= take(n // PARTS)
        if part == 0:
            before = _held(folder)
    grown = _held(folder).since(before)
    holds_no_more = grown.memory_mb < MOST_GROWTH_MB and max(grown.descriptors, grown.maps) <= MOST_GROWTH
    return {
        "passed": works and holds_no_more,
        "messages": n,
        "memory_growth_mb": grown.memory_mb,
        "descriptors_growth": grown.descriptors,
        "found": f"{n} messages, no exception, a good one {'works' if works else 'DOES NOT WORK'}; "
        f"{grown.memory_mb:.1f} MB and {grown.descriptors} descriptors more",
    }


def _held(folder: Path) -> Held:
    gc.collect()  # a scan that is only waiting to be collected is not held
    re.purge()  # nor is the cache of expressions, which is full some day
    _TRIM(0)  # nor what the allocator keeps to give it out again
    return held_by(os.getpid(), folder)


def detector(dialect: str) -> Callable[[Path, bool], Figures]:
    """Wrong messages of a detector that speaks `dialect` to the subscriber, which records the next series."""

    def measured(folder: Path, in_full: bool) -> Figures:
        wrong = WrongMessages(series_as(dialect, "a", 3, content=1), random.Random(1))
        good = series_as(dialect, "good", GOOD, content=1, series_id=SERIES_ID)

        def take(n: int) -> bool:
            for first in range(0, n, N_AT_ONCE):
                recorder = Recorder(folder, format=dialect)
                for _ in range(min(N_AT_ONCE, n - first)):
                    recorder.take([wrong.next()])
                recorder.wait(60.0)
                recorder.take(good)
                assert_recorded(recorder.scan(), range(GOOD), content=1)
                recorder.subscriber.close()
                shutil.rmtree(folder)
            return True

        return _taken(folder, in_full, take)

    return measured


def documents(folder: Path, in_full: bool) -> Figures:
    """Wrong documents to the stage of positions, which places the next run."""
    rng = random.Random(2)

    def wrong() -> list[list[bytes]]:
        name = rng.choice(list(DOCUMENTS))
        serializer = rng.choice([to_msgpack, as_json])
        if rng.random() < 0.5:
            return on_the_wire(name, harmed(DOCUMENTS[name], rng, WRONG), serializer)
        return [[damaged(message, rng) for message in on_the_wire(name, DOCUMENTS[name], serializer)[0]]]

    def take(n: int) -> bool:
        for first in range(0, n, N_AT_ONCE):
            folder.mkdir(parents=True)
            positions = stage(folder)
            for _ in range(min(N_AT_ONCE, n - first)):
                positions.handle(wrong())
                positions.idle(0.0)
            detected = Detector(folder, "good", series_id=SERIES_ID)
            run = [*start("good", detector_series_id="good"), a_page(range(N), "good"), stop("good")]
            for message in run:
                positions.handle([message])
            assert (detected.states() == State.DONE).all()
            positions.close()
            shutil.rmtree(folder)
        return True

    return _taken(folder, in_full, take)


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
    rng, door = random.Random(3), Door("run", lambda scan, after: (UPDATE, [np.arange(3)]), lambda: 0.0)
    good = [encode(greeting("client")), encode(Ask(scan="0000-a", after=4)), encode(Stop())]

    def take(n: int) -> bool:
        for index, parts in enumerate(_wrong_parts(good, n, rng)):
            door.exchange([[f"stranger {index % 100}".encode(), *parts]])
        honest = _answers(door.exchange, b"honest", encode(greeting("client")), encode(Ask()))
        return any(isinstance(answer, ObjectUpdate) for answer in honest)

    return _taken(folder, in_full, take)


def policy(folder: Path, in_full: bool) -> Figures:
    """Wrong messages to the door of the policy, which answers a plan."""
    rng, door = random.Random(4), PolicyDoor(a_policy(), "run", lambda: 0.0)
    consult = Questions(lambda: 0.0).next(4)
    good = [
        *(encode(greeting("plan")), encode(consult, [np.zeros((2, 2))])),
        *(encode(Command(deed="hold", by="a")), encode(Stop())),
    ]

    def take(n: int) -> bool:
        for index, parts in enumerate(_wrong_parts(good, n, rng)):
            door.exchange([[f"stranger {index % 100}".encode(), *parts]])
        question = encode(Questions(lambda: 0.0).next(4), [np.zeros((0, 2))])
        honest = _answers(door.exchange, b"honest", encode(greeting("plan")), question)
        return any(isinstance(answer, Recommendation) for answer in honest)

    return _taken(folder, in_full, take)


def page(folder: Path, in_full: bool) -> Figures:
    """Wrong words on the page's live connections, each opened again whenever the page has had enough."""
    n_opened, rngs = 0, [random.Random(number) for number in range(N_BROWSERS)]

    async def talk(url: str, n: int) -> int:
        nonlocal n_opened
        async with ClientSession(connector=TCPConnector(limit=0)) as session:
            shares = [len(range(number, n, N_BROWSERS)) for number in range(N_BROWSERS)]
            talking = (_talk(session, url, share, rng) for share, rng in zip(shares, rngs, strict=True))
            n_opened += sum(await asyncio.gather(*talking))
            async with session.get(url) as answer:
                return answer.status

    with FakeDoor() as door, viewer(door.address) as url:
        figures = _taken(folder, in_full, lambda n: outcome(talk(url, n)) == 200)
    return figures | {"connections": n_opened}


async def _talk(session: ClientSession, url: str, n: int, rng: random.Random) -> int:
    """Say so many wrong words; return how many connections that took."""
    n_said = n_opened = 0
    while n_said < n:
        n_opened += 1
        async with session.ws_connect(f"{url}/live") as socket:
            while n_said < n and not socket.closed:
                n_said += 1
                with suppress(ConnectionError):  # the page has hung up
                    await _say(socket, damaged(b'{"ask": "phase", "after": 3}', rng)[:MOST_WORDS], rng)
    return n_opened


async def _say(socket: ClientWebSocketResponse, words: bytes, rng: random.Random) -> None:
    if rng.random() < 0.5:
        await socket.send_bytes(words)  # of which the page takes no notice
    else:
        await socket.send_str(words.decode("latin-1"))
        await socket.receive()  # an answer, or a farewell
