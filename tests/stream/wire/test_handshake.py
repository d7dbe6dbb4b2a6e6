import os

import msgspec
import pytest

from stream.wire.codec import ProtocolError, decode, encode
from stream.wire.handshake import SILENCE_S, Connection, answer_to, greeting, rejection
from stream.wire.messages import MAX_REASON, PROTOCOL, Hello, NoNews, Ready, Reject, Stop, Welcome
from stream.wire.sockets import Endpoint, Socket
from tests.helpers.stream.clock import Clock

PATIENCE_S = 5.0


class Server:
    """The other end, driven by the test."""

    def __init__(self):
        self._socket = Socket("ROUTER", Endpoint(address="tcp://127.0.0.1:*", bind=True))
        self.endpoint = Endpoint(address=self._socket.address)

    def hears(self):
        self._client, *parts = self._socket.receive(PATIENCE_S)
        return decode(parts)[0]

    def says(self, *parts):
        self._socket.send([bytes(self._client), *parts])

    def close(self):
        self._socket.close()


@pytest.fixture
def server():
    it = Server()
    yield it
    it.close()


@pytest.fixture
def connect(server):
    opened = []

    def make(**options):
        opened.append(Connection(server.endpoint, "client", **options))
        return opened[-1]

    yield make
    for connection in opened:
        connection.close()


def test_a_greeting_says_who_it_is_and_the_same_version_is_welcome():
    hello = greeting("plan")
    assert (hello.role, hello.pid) == ("plan", os.getpid())
    assert answer_to(hello, "run-7") == Welcome(run_id="run-7")


@pytest.mark.parametrize("other", [{"protocol": PROTOCOL + 1}, {"schema": "old"}])
def test_a_client_of_another_version_is_told_what_to_do(other):
    stranger = msgspec.structs.replace(greeting("client"), **other)
    answer = answer_to(stranger, "run", "nobody knows you")
    assert "install the same version of ptychostream on both sides" in answer.reason
    assert decode(encode(answer))[0] == answer


def test_a_program_of_somebody_elses_gives_no_schema_and_is_welcome_while_the_protocol_is_the_same():
    stranger = Hello(protocol=PROTOCOL, role="theirs")
    assert answer_to(stranger, "run-7") == Welcome(run_id="run-7")
    older = msgspec.structs.replace(stranger, protocol=PROTOCOL - 1)
    assert "theirs speaks protocol 1 with a schema of its own" in answer_to(older, "run-7").reason


def test_a_server_may_refuse_for_reasons_of_its_own():
    assert answer_to(greeting("stage"), "run", "nobody knows you") == Reject(reason="nobody knows you")


def test_a_reason_that_is_too_long_for_the_protocol_is_cut():
    answer = rejection(ValueError("x" * (MAX_REASON + 1)))
    assert decode(encode(answer))[0].reason == "x" * MAX_REASON


def test_a_client_greets_before_its_first_word_and_again_after_it_has_hung_up(server, connect):
    connection = connect()
    for _ in range(2):
        assert not connection.is_open
        connection.say(Ready(stage="a"))
        assert [type(server.hears()), type(server.hears())] == [Hello, Ready]
        server.says(*encode(Welcome(run_id="run")))
        assert connection.hear(PATIENCE_S)[0] == Welcome(run_id="run")
        assert connection.is_welcome
        connection.close()
        assert not connection.is_welcome


def test_who_has_said_nothing_hears_nothing(connect):
    connection = connect()
    assert connection.hear(PATIENCE_S) is None
    assert not connection.is_open


def test_what_is_no_message_is_refused_and_the_next_one_heard(server, connect):
    connection = connect()
    connection.open()
    server.hears()
    server.says(b"GET / HTTP/1.1")
    server.says(*encode(Stop()))
    with pytest.raises(ProtocolError, match="not a message"):
        connection.hear(PATIENCE_S)
    assert connection.hear(PATIENCE_S)[0] == Stop()


def test_silence_lasts_from_the_first_word_without_an_answer_and_is_not_ended_by_hanging_up(server, connect):
    clock = Clock()
    connection = connect(clock=clock)
    assert (connection.silence_s, connection.age_s) == (0.0, float("inf"))
    connection.open()
    clock.now += SILENCE_S - 1
    connection.say(Stop())
    clock.now += 2
    assert connection.silence_s == pytest.approx(SILENCE_S + 1)
    assert not connection.is_lost  # the last word may still be answered
    clock.now += SILENCE_S
    assert connection.is_lost
    assert [type(server.hears()), type(server.hears())] == [Hello, Stop]
    connection.close()
    connection.open()
    assert not connection.is_lost
    assert connection.silence_s == pytest.approx(2 * SILENCE_S + 1)
    assert isinstance(server.hears(), Hello)
    server.says(*encode(NoNews()))
    assert connection.hear(PATIENCE_S)[0] == NoNews()
    clock.now += 10
    assert (connection.silence_s, connection.age_s) == (0.0, 10.0)
    assert not connection.is_lost


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (rejection("another version"), "is refused at .*: another version"),
        (Stop(), "wanted Welcome, got Stop"),
    ],
)
def test_who_waits_for_welcome_is_told_what_came_instead(server, connect, answer, complaint):
    connection = connect()
    connection.open()
    server.hears()
    server.says(*encode(answer))
    with pytest.raises(ProtocolError, match=complaint):
        connection.greet(PATIENCE_S)
    with pytest.raises(ProtocolError, match=f"nobody has answered client at {server.endpoint.address}"):
        connection.greet(0.01)
