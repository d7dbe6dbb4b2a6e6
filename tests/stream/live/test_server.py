"""The door of the live image: many clients, and one that never reads."""

import contextlib
import os

import numpy as np
import pytest

from stream.live import server
from stream.live.server import Door
from stream.stages.loop import CLIENTS, _Door
from stream.wire.codec import decode, encode
from stream.wire.handshake import SILENCE_S, greeting
from stream.wire.messages import Ask, NoNews, ObjectUpdate
from stream.wire.sockets import Endpoint, Socket, wait_for_message
from tests.helpers.held import held_by
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.scans import UPDATE

N_CLIENTS = 50


class Picture:
    """News of one version, put together when somebody asks; notes for whom it was."""

    def __init__(self, n_values: int = 100) -> None:
        self.version, self.found, self._values = 1, [], np.zeros(n_values, np.float32)

    def news_after(self, scan: str, after: int):
        if after >= self.version:
            return None
        self.found.append(after)
        return UPDATE, [self._values]


class Clients:
    """So many clients of one door, in this process."""

    def __init__(self, door: Door, n: int = N_CLIENTS) -> None:
        self._door, self.names = door, [f"client {number}".encode() for number in range(n)]
        door.exchange([[name, *encode(greeting("client"))] for name in self.names])

    def ask(self, after: int = -1, names: list[bytes] | None = None):
        asked = [[name, *encode(Ask(after=after))] for name in names or self.names]
        replies = self._door.exchange(asked)
        assert [bytes(name) for name, *_ in replies] == (names or self.names)
        return [decode(parts)[0] for _, *parts in replies]


@pytest.fixture
def picture():
    return Picture()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def clients(picture, clock):
    return Clients(Door("run", picture.news_after, clock, newest=lambda: picture.version))


def test_news_are_put_together_once_for_all_clients_that_have_the_same(picture, clients):
    assert all(isinstance(answer, ObjectUpdate) for answer in clients.ask())
    for name in clients.names:  # and for those that come later
        clients.ask(names=[name])
    assert picture.found == [-1]
    clients.ask(after=0)
    assert picture.found == [-1, 0]


def test_another_version_or_a_moment_later_is_another_answer(picture, clock, clients):
    clients.ask()
    picture.version = 2
    clients.ask(after=1)
    clients.ask()
    assert picture.found == [-1, 1, -1]
    clock.now += server.KEPT_S
    clients.ask()
    assert picture.found == [-1, 1, -1, -1]


def test_of_answers_that_are_large_together_the_last_is_kept(picture, clients, monkeypatch):
    picture.version = 9
    monkeypatch.setattr(server, "MOST_KEPT_BYTES", 1)
    for after in (-1, -1, 1, 1, -1):
        clients.ask(after=after, names=clients.names[:1])
    assert picture.found == [-1, 1, -1]


def test_a_large_answer_is_put_together_once_for_all_that_wait_for_it(picture, clock, monkeypatch):
    monkeypatch.setattr(server, "MOST_KEPT_BYTES", 1)
    picture.version, door = 9, Door("run", picture.news_after, clock, newest=lambda: picture.version)
    names = Clients(door).names
    replies = door.exchange(
        [[name, *encode(Ask(after=number % 2))] for number, name in enumerate(names)]  # in turns
    )
    assert sorted(bytes(name) for name, *_ in replies) == sorted(names)
    assert picture.found == [0, 1]
    assert len({id(part) for _, *answer in replies for part in answer}) == 2 * 2, "and the bytes are shared"


def test_what_clients_were_sent_does_not_change_with_the_arrays_it_came_from():
    values = np.zeros(1 << 18, np.float32)
    door = Door("run", lambda scan, after: (UPDATE, [values]), Clock(), newest=lambda: 1)
    clients = Clients(door, 3)
    with Socket("ROUTER", Endpoint(address="tcp://127.0.0.1:*", bind=True)) as socket:
        endpoint = Endpoint(address=socket.address)
        ends = [Socket("DEALER", endpoint, identity=name) for name in clients.names]
        with contextlib.ExitStack() as held:
            for end in ends:
                held.enter_context(end).send([b"here"], 5.0)
                assert socket.receive(5.0)
            for reply in door.exchange([[name, *encode(Ask())] for name in clients.names]):
                assert socket.send(reply)
            values[:] = 1.0
            for end in ends:
                _, [received] = decode(end.receive(5.0))
                assert not received.any()


def test_without_news_the_run_is_looked_at_once_for_all_clients(clock):
    looked = []
    door = Door("run", lambda scan, after: None, clock, tell=lambda: looked.append(1) or ({}, None))
    clients = Clients(door)
    assert door.exchange([[name, *encode(Ask())] for name in clients.names]) == []
    clock.now += server.HEARTBEAT_S
    answers = [decode(parts)[0] for _, *parts in door.exchange([])]
    assert len(answers) == N_CLIENTS
    assert all(isinstance(answer, NoNews) for answer in answers)
    assert len(looked) == 1


@pytest.mark.parametrize("has_keys", [False, True], ids=["plain", "keys"])
def test_a_client_that_asks_and_never_reads_costs_no_memory_and_keeps_nobody_waiting(
    has_keys, keys, tmp_path
):
    picture = Picture(n_values=1 << 18)  # 1 MB

    class Keeper:
        door = keys.door() if has_keys else Endpoint(address="tcp://127.0.0.1:*", bind=True)
        most_unread = 2
        exchange = Door("run", picture.news_after, Clock(), newest=lambda: picture.version).exchange

    kept = _Door(Keeper())
    endpoint = Endpoint(address=kept.socket.address)
    endpoint = keys.visitor(kept.socket, keys.client) if has_keys else endpoint
    with kept.socket, Socket("DEALER", endpoint, queue=1) as deaf, Socket("DEALER", endpoint) as honest:

        def answer(client: Socket, question):
            client.send(encode(question), 5.0)
            while (parts := client.receive(0.01)) is None:
                kept.serve()
            return decode(parts)[0]

        deaf.send(encode(greeting("client")))
        answer(honest, greeting("client"))
        before = held_by(os.getpid(), tmp_path)
        for _ in range(200):
            deaf.send(encode(Ask()), 5.0)
            wait_for_message([kept.socket], 5.0)
            kept.serve()
        assert isinstance(answer(honest, Ask()), ObjectUpdate)
        assert held_by(os.getpid(), tmp_path).memory_mb - before.memory_mb < 40


def test_a_door_counts_the_clients_that_have_asked_in_the_last_seconds():
    clock = Clock()

    class Keeper:
        door, most_unread = Endpoint(address="tcp://127.0.0.1:*", bind=True), 2
        exchange = Door("run", lambda scan, after: None, clock).exchange

    kept = _Door(Keeper(), clock)
    endpoint = Endpoint(address=kept.socket.address)

    def greet(client: Socket) -> None:
        client.send(encode(greeting("client")), 5.0)
        while client.receive(0.01) is None:
            kept.serve()

    with kept.socket, Socket("DEALER", endpoint) as one, Socket("DEALER", endpoint) as other:
        assert kept.counts()[CLIENTS] == 0
        greet(one)
        greet(other)
        assert kept.counts()[CLIENTS] == 2
        clock.now += SILENCE_S
        greet(other)
        clock.now += 0.1
        assert kept.counts()[CLIENTS] == 1
