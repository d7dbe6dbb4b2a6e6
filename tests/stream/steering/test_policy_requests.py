import msgspec
import numpy as np
import pytest

from stream.live.server import HEARTBEAT_S, MOST_CLIENTS, Door
from stream.wire.codec import decode, encode
from stream.wire.handshake import greeting
from stream.wire.messages import Ask, Hello, NoNews, ObjectUpdate, Reject, Stop, Welcome
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.scans import UPDATE


class House:
    """A door, and behind it a picture with a version."""

    def __init__(self):
        self.clock, self.version = Clock(), 0
        self.door = Door("run-7", self.find_news, self.clock)

    def find_news(self, scan, after):
        if after >= self.version:
            return None
        figures = msgspec.structs.replace(UPDATE.figures, scan=scan, version=self.version)
        return msgspec.structs.replace(UPDATE, figures=figures), [np.arange(3)]

    def hears(self, *requests):
        """Return the (client, answer)s that go out after these (client, message)s have come in."""
        return self.gets(*([client, *encode(message)] for client, message in requests))

    def gets(self, *requests):
        return [(client, decode(parts)[0]) for client, *parts in self.door.exchange(requests)]


@pytest.fixture
def house():
    return House()


@pytest.fixture
def known(house):
    """The house after a client has been welcomed."""
    assert house.hears((b"a", greeting("client"))) == [(b"a", Welcome(run_id="run-7"))]
    return house


def test_news_are_given_at_once(known):
    known.version = 5
    [(client, answer)] = known.hears((b"a", Ask(scan="0000-x", after=4)))
    assert client == b"a"
    assert isinstance(answer, ObjectUpdate)
    assert (answer.figures.scan, answer.figures.version) == ("0000-x", 5)
    assert known.hears() == [], "and only once"


def test_who_has_everything_gets_the_next_news_when_there_are_any(known):
    assert known.hears((b"a", Ask(after=0))) == []
    known.clock.now += 0.5
    assert known.hears() == []
    known.version = 1
    [(_, answer)] = known.hears()
    assert answer.figures.version == 1
    known.clock.now += 10
    known.version = 2
    assert known.hears() == [], "one answer for one question"


def test_who_waits_for_a_second_hears_that_the_server_is_alive(known):
    known.hears((b"a", Ask(after=0)))
    known.clock.now += HEARTBEAT_S - 0.01
    assert known.hears() == []
    known.clock.now += 0.01
    assert known.hears() == [(b"a", NoNews())]
    known.clock.now += 10
    assert known.hears() == []


def test_asking_again_before_the_answer_changes_the_question(known):
    known.version = 3
    known.hears((b"a", Ask(after=3)))
    [(_, answer)] = known.hears((b"a", Ask(after=1)))
    assert answer.figures.version == 3
    known.version = 4
    assert known.hears() == []


def test_clients_are_answered_each_by_what_they_have(known):
    known.hears((b"b", greeting("client")))
    known.version = 2
    [(client, _)] = known.hears((b"a", Ask(after=2)), (b"b", Ask(after=1)))
    assert client == b"b"
    known.version = 3
    [(client, _)] = known.hears()
    assert client == b"a"


def test_who_does_not_greet_is_sent_back(house):
    house.version = 1
    [(client, answer)] = house.hears((b"a", Ask()))
    assert client == b"a"
    assert answer == Reject(reason="Ask before Hello: greet first, then Ask")


def test_a_client_of_another_version_is_refused_and_stays_so(house):
    stranger = Hello(protocol=99, schema="x", role="client")
    [(_, answer)] = house.hears((b"a", stranger))
    assert "install the same version" in answer.reason
    [(_, answer)] = house.hears((b"a", Ask()))
    assert isinstance(answer, Reject)


def test_a_message_that_no_client_sends_is_refused(known):
    [(_, answer)] = known.hears((b"a", Stop()))
    assert isinstance(answer, Reject)


@pytest.mark.parametrize("garbage", [[], [b""], [b"GET /"], [b"\x00" * 70_000], [b"x", b"y"]])
def test_garbage_is_refused_and_disturbs_nobody(known, garbage):
    known.hears((b"a", Ask(after=0)))
    [(client, answer)] = known.gets([b"stranger", *garbage])
    assert client == b"stranger"
    assert isinstance(answer, Reject)
    known.version = 1
    [(client, _)] = known.hears()
    assert client == b"a"


def test_clients_that_came_and_went_cost_the_others_nothing(known):
    known.version = 1
    for number in range(3 * MOST_CLIENTS):
        passing = f"passing {number}".encode()
        assert known.hears((passing, greeting("client"))) == [(passing, Welcome(run_id="run-7"))]
        if number % 50 == 0:
            [(_, answer)] = known.hears((b"a", Ask()))
            assert isinstance(answer, ObjectUpdate)
    [(_, answer)] = known.hears((f"passing {MOST_CLIENTS}".encode(), Ask()))
    assert isinstance(answer, Reject)
