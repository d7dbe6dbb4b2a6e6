import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from stream.wire.greeting import Peer, ask_who
from stream.wire.keys import create_keys
from stream.wire.sockets import Endpoint, EndpointError, Socket

HERE = "tcp://127.0.0.1:*"


@contextmanager
def stranger(says: bytes | None) -> Iterator[str]:
    """Somebody who listens, takes one connection, says this and hangs up; says nothing if None."""
    is_over = threading.Event()

    def answer() -> None:
        connection, _ = server.accept()
        with connection:
            if says is None:
                is_over.wait(10)
            else:
                connection.sendall(says)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer)
        thread.start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        is_over.set()
        thread.join()


@pytest.mark.parametrize("kind", ["PUSH", "PUB", "ROUTER"])
def test_a_socket_says_what_it_is(kind):
    with Socket(kind, Endpoint(address=HERE, bind=True)) as other:
        assert ask_who(other.address, 5.0) == Peer("NULL", kind)


def test_a_local_socket_is_asked_alike(run_folder):
    with Socket("PUSH", Endpoint(address=f"ipc://{run_folder}/frames", bind=True)) as other:
        assert ask_who(other.address, 5.0) == Peer("NULL", "PUSH")


def test_who_talks_to_holders_of_keys_does_not_say_what_it_is(tmp_path):
    key = create_keys(tmp_path, "detector")
    with Socket("PUSH", Endpoint(address=HERE, bind=True, key=key, peers=tmp_path)) as other:
        assert ask_who(other.address, 5.0) == Peer("CURVE", "")


def test_whoever_asks_takes_no_frame():
    """Of a PUSH socket every reader gets a share: who only asks is none."""
    with Socket("PUSH", Endpoint(address=HERE, bind=True)) as detector:
        ask_who(detector.address, 5.0)
        assert not detector.has_room(0.2), "it has nobody to send to"
        with Socket("PULL", Endpoint(address=detector.address)) as reader:
            assert detector.has_room(5.0)
            for number in range(6):
                ask_who(detector.address, 5.0)
                assert detector.send([b"%d" % number], 5.0)
            received = [bytes(reader.receive(5.0)[0]) for _ in range(6)]
    assert received == [b"0", b"1", b"2", b"3", b"4", b"5"]


@pytest.mark.parametrize(
    ("says", "complaint"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "speaks no ZeroMQ: b'HTTP/1.1 4'"),
        (b"", "hangs up on ZeroMQ"),
        (None, "says nothing in 0.2 s: it hangs, or speaks no ZeroMQ"),
    ],
)
def test_who_speaks_no_zeromq_is_told_from_who_is_not_there(says, complaint):
    with stranger(says) as address, pytest.raises(EndpointError, match=complaint):
        ask_who(address, 0.2)


def test_nobody_there_is_said(run_folder):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(EndpointError, match=f"nobody listens at tcp://127.0.0.1:{port}: Connection refused"):
        ask_who(f"tcp://127.0.0.1:{port}", 5.0)
    with pytest.raises(EndpointError, match="nobody has bound ipc://"):
        ask_who(f"ipc://{run_folder}/nobody", 5.0)


def test_a_host_that_nobody_knows_is_named(monkeypatch):
    def unknown(*_):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(EndpointError, match="the host 'eiger' is not known: Name or service not known"):
        ask_who("tcp://eiger:31001", 5.0)


def test_silence_on_the_way_is_a_timeout(monkeypatch):
    def never(*_, **__):
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", never)
    with pytest.raises(TimeoutError, match=r"no answer from tcp://127.0.0.1:9 in 0.5 s"):
        ask_who("tcp://127.0.0.1:9", 0.5)
