import socket
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import zmq
import zmq.auth

from stream.wire import sockets
from stream.wire.sockets import Endpoint, EndpointError, Socket, wait_for_message

ANY = Endpoint(address="tcp://127.0.0.1:*", bind=True)
PATIENCE_S = 5.0
BRIEFLY_S = 0.1


def to(server, **options):
    return Endpoint(address=server.address, **options)


def texts(parts):
    return None if parts is None else [bytes(part) for part in parts]


HOSTS_ELSEWHERE = ("*", "0.0.0.0", "[::]", "lo", "beamline", "192.168.0.7", "localhost.example.org")


@pytest.mark.parametrize("address", [f"tcp://{host}:5555" for host in HOSTS_ELSEWHERE])
@pytest.mark.parametrize("bind", [True, False])
def test_an_address_that_others_can_reach_needs_keys_or_consent(address, bind):
    with pytest.raises(EndpointError, match=r"reached from other machines.*CURVE.*insecure: true"):
        Socket("PULL", Endpoint(address=address, bind=bind))
    Endpoint(address=address, bind=bind, insecure=True).check()
    Endpoint(address=address, bind=bind, key=Path("mine"), peers=Path("theirs")).check()


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:5555", "tcp://127.1.2.3:*", "tcp://localhost:5555", "tcp://[::1]:5555"]
)
def test_an_address_of_this_machine_needs_neither(address):
    Endpoint(address=address).check()
    Endpoint(address="ipc:///tmp/somewhere").check()


NO_ADDRESSES = ["", "127.0.0.1:5555", "http://127.0.0.1:5555", "tcp://", "tcp://127.0.0.1"]
NO_ADDRESSES += ["tcp://127.0.0.1:70000", "tcp://127.0.0.1:0;192.168.0.7:5555"]


@pytest.mark.parametrize("address", NO_ADDRESSES)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(EndpointError, match="wanted tcp://host:port or ipc://path"):
        Endpoint(address=address).check()


def test_an_insecure_socket_opens_to_others():
    with Socket("PULL", Endpoint(address="tcp://0.0.0.0:*", bind=True, insecure=True)) as server:
        assert server.address.startswith("tcp://0.0.0.0:")


def test_an_address_that_is_taken_is_refused_by_name():
    with (
        Socket("PULL", ANY) as server,
        pytest.raises(EndpointError, match="Address already in use") as refused,
    ):
        Socket("PULL", to(server, bind=True))
    assert f"cannot bind {server.address}" in str(refused.value)


def test_a_path_too_long_for_a_socket_is_refused(tmp_path):
    with pytest.raises(EndpointError, match="cannot bind ipc://"):
        Socket("PULL", Endpoint(address=f"ipc://{tmp_path}/{'x' * 120}", bind=True))


def test_what_is_pushed_is_pulled_once_and_in_order():
    with Socket("PULL", ANY) as pull, Socket("PUSH", to(pull)) as push:
        for number in range(20):
            assert push.send([b"head", str(number).encode()], timeout_s=PATIENCE_S)
        got = [texts(pull.receive(timeout_s=PATIENCE_S)) for _ in range(20)]
        assert got == [[b"head", str(number).encode()] for number in range(20)]
        assert pull.receive() is None


def test_one_socket_pulls_from_several_addresses(run_folder):
    addresses = [Endpoint(address=f"ipc://{run_folder}/{name}", bind=True) for name in "ab"]
    with Socket("PULL", addresses) as pull:
        for endpoint in addresses:
            with Socket("PUSH", Endpoint(address=endpoint.address)) as push:
                assert push.send([endpoint.address.encode()], timeout_s=PATIENCE_S)
                assert texts(pull.receive(timeout_s=PATIENCE_S)) == [endpoint.address.encode()]


def test_pushing_waits_where_nobody_pulls_and_drops_nothing(run_folder):
    nobody = Endpoint(address=f"ipc://{run_folder}/nobody")  # a port that is let go may soon be another's
    with Socket("PUSH", nobody, queue=3) as push:
        n_sent = 0
        while push.send([str(n_sent).encode()]):
            n_sent += 1
        assert n_sent == 3
        assert not push.send([b"too many"], timeout_s=BRIEFLY_S)
        with Socket("PULL", Endpoint(address=nobody.address, bind=True)) as pull:
            got = [texts(pull.receive(timeout_s=PATIENCE_S)) for _ in range(n_sent)]
            assert got == [[b"0"], [b"1"], [b"2"]]
            assert push.send([b"3"], timeout_s=PATIENCE_S)


def test_what_is_published_reaches_every_subscriber():
    with Socket("PUB", ANY) as pub, Socket("SUB", to(pub)) as one, Socket("SUB", to(pub)) as other:
        for sub in (one, other):
            while sub.receive(timeout_s=0.01) is None:  # a subscription takes a moment to arrive
                assert pub.send([b"news"])


def test_publishing_to_nobody_succeeds():
    with Socket("PUB", ANY) as pub:
        assert pub.send([b"news"])


def test_a_router_answers_the_one_who_asked():
    with (
        Socket("ROUTER", ANY) as router,
        Socket("DEALER", to(router)) as one,
        Socket("DEALER", to(router)) as two,
    ):
        for dealer, question in ((one, b"1"), (two, b"2")):
            assert dealer.send([question], timeout_s=PATIENCE_S)
        for _ in range(2):
            client, question = texts(router.receive(timeout_s=PATIENCE_S))
            assert router.send([client, b"answer to " + question])
        assert texts(one.receive(timeout_s=PATIENCE_S)) == [b"answer to 1"]
        assert texts(two.receive(timeout_s=PATIENCE_S)) == [b"answer to 2"]


def test_answering_a_client_that_left_does_not_fail():
    with Socket("ROUTER", ANY) as router:
        router.send([b"nobody", b"answer"])


def test_what_was_sent_does_not_change_with_the_array_it_came_from():
    with Socket("PULL", ANY) as pull, Socket("PUSH", to(pull)) as push:
        body = bytearray(b"x" * 1_000_000)
        assert push.send([memoryview(body)], timeout_s=PATIENCE_S)
        body[:] = b"y" * 1_000_000
        assert texts(pull.receive(timeout_s=PATIENCE_S)) == [b"x" * 1_000_000]


def test_a_message_too_large_is_never_delivered_and_the_next_one_is(monkeypatch):
    monkeypatch.setattr(sockets, "MAX_MESSAGE_BYTES", 1000)
    with Socket("PULL", ANY) as pull, Socket("PUSH", to(pull)) as push:
        assert push.send([bytes(1001)], timeout_s=PATIENCE_S)
        assert pull.receive(timeout_s=BRIEFLY_S) is None
        while (parts := pull.receive(timeout_s=0.02)) is None:  # the peer was cut off and comes back
            push.send([bytes(1000)], timeout_s=PATIENCE_S)
        assert texts(parts) == [bytes(1000)]


@pytest.mark.parametrize(
    ("kind", "most_bytes", "expected"),
    [("PULL", 1000, 1000), ("PULL", 0, 512 << 20), ("ROUTER", 0, 64 << 20), ("SUB", 1 << 40, 512 << 20)],
)
def test_every_socket_has_a_largest_message(kind, most_bytes, expected):
    with Socket(kind, ANY, most_bytes=most_bytes) as socket:
        assert socket._socket.maxmsgsize == expected


def test_waiting_returns_the_sockets_that_have_something():
    with Socket("PULL", ANY) as one, Socket("PULL", ANY) as two, Socket("PUSH", to(two)) as push:
        assert wait_for_message([one, two], 0.0) == []
        push.send([b"x"], timeout_s=PATIENCE_S)
        assert wait_for_message([one, two], PATIENCE_S) == [two]
        assert two.receive()
    assert wait_for_message([], 0.001) == []


def test_secret_keys_are_for_their_owner_only(keys):
    assert keys.server.name == "server.key_secret"
    assert keys.server.stat().st_mode & 0o077 == 0


def test_only_the_client_whose_key_is_allowed_gets_in(keys):
    with Socket("PULL", keys.door()) as server:
        strangers = [to(server), keys.visitor(server, keys.stranger)]
        for endpoint in strangers:
            with Socket("PUSH", endpoint) as stranger:
                stranger.send([b"let me in"], timeout_s=BRIEFLY_S)
                assert server.receive(timeout_s=BRIEFLY_S) is None
        with Socket("PUSH", keys.visitor(server, keys.client)) as client:
            assert client.send([b"hello"], timeout_s=PATIENCE_S)
            assert texts(server.receive(timeout_s=PATIENCE_S)) == [b"hello"]


def knock(server, mechanism):
    """Begins a handshake as who has no keys (b"NULL") or has some (b"CURVE"), and hangs up once answered."""
    place = urlsplit(server.address)
    with socket.create_connection((place.hostname, place.port), PATIENCE_S) as connection:
        connection.sendall(b"\xff\0\0\0\0\0\0\0\1\x7f\3\1" + mechanism.ljust(52, b"\0"))
        connection.recv(64)


def until_counted(server, n):
    """Has the door look until it has counted so many strangers."""
    while sum(server.strangers.values()) < n:
        assert server.receive(timeout_s=0.01) is None
    return server.strangers


def test_who_is_not_let_in_is_counted_by_the_reason_and_told_of_once_in_a_while(keys, caplog):
    with Socket("PULL", keys.door()) as server:
        for _ in range(12):
            knock(server, b"NULL")
        assert until_counted(server, 12) == {"wrong_key": 0, "no_handshake": 12}
        with Socket("PUSH", keys.visitor(server, keys.stranger)):
            assert until_counted(server, 13)["wrong_key"] == 1
        n_strangers = sum(server.strangers.values())
        with Socket("PUSH", keys.visitor(server, keys.client)) as client:
            assert client.send([b"hello"], timeout_s=PATIENCE_S)
            assert texts(server.receive(timeout_s=PATIENCE_S)) == [b"hello"]
        assert server.receive() is None
        assert sum(server.strangers.values()) == n_strangers
        assert client.strangers == {}, "it has no door"
    first, *_, last = (record.getMessage() for record in caplog.records)
    assert f"{server.address}: connections without a handshake, " in first
    assert "a client is not let in, its public key" in last
    assert len(caplog.records) <= 3, "of twelve strangers the first and the tenth are told of"


def test_keys_at_a_door_that_has_none_are_counted_as_well():
    with Socket("ROUTER", ANY) as server:
        knock(server, b"CURVE")
        assert until_counted(server, 1) == {"wrong_key": 0, "no_handshake": 1}


def test_any_number_of_strangers_may_come_while_nobody_looks():
    n = 2 * 1000 + 10  # ZeroMQ's own bounds of a queue, on both of its sides
    with Socket("PULL", ANY) as server:
        for _ in range(n):
            knock(server, b"CURVE")
        with Socket("PUSH", to(server)) as client:
            assert client.send([b"hello"], timeout_s=PATIENCE_S)
            assert texts(server.receive(timeout_s=PATIENCE_S)) == [b"hello"]
        assert until_counted(server, n)["no_handshake"] == n


def test_the_holder_of_a_doors_own_key_gets_in(keys):
    # as the page and the policy of a run do at the door of its image
    with Socket("PULL", keys.door()) as server, Socket("PUSH", keys.visitor(server, keys.server)) as own:
        assert own.send([b"hello"], timeout_s=PATIENCE_S)
        assert texts(server.receive(timeout_s=PATIENCE_S)) == [b"hello"]


def test_a_key_that_is_added_or_taken_away_counts_for_who_connects_from_then_on(keys, caplog):
    allowed = keys.allowed / "later.key"
    with Socket("PULL", keys.door()) as server:
        for is_allowed in (False, True, False):
            if is_allowed:
                (keys.allowed / "torn.key").write_text("half of a k")
                allowed.write_bytes(keys.stranger.with_suffix(".key").read_bytes())
            else:
                allowed.unlink(missing_ok=True)
            with Socket("PUSH", keys.visitor(server, keys.stranger)) as later:
                later.send([b"hello"], timeout_s=PATIENCE_S if is_allowed else BRIEFLY_S)
                heard = server.receive(timeout_s=PATIENCE_S if is_allowed else BRIEFLY_S)
            assert texts(heard) == ([b"hello"] if is_allowed else None)
    [warning] = caplog.records
    assert warning.thread == threading.get_ident(), "a stage passes on the words of its own thread only"
    public = zmq.auth.load_certificate(keys.stranger)[0].decode()
    assert warning.getMessage() == (
        f"tcp://127.0.0.1:*: a client is not let in, its public key {public} is not in {keys.allowed}"
    )


def test_a_client_does_not_talk_to_a_server_with_another_key(keys):
    with Socket("PULL", ANY) as impostor, Socket("PUSH", keys.visitor(impostor, keys.client)) as client:
        client.send([b"secret"], timeout_s=BRIEFLY_S)
        assert impostor.receive(timeout_s=BRIEFLY_S) is None


def test_one_process_may_have_several_encrypted_doors(keys):
    with Socket("PULL", keys.door()) as one, Socket("PULL", keys.door()) as two:
        for server in (one, two):
            with Socket("PUSH", keys.visitor(server, keys.client)) as client:
                assert client.send([b"hello"], timeout_s=PATIENCE_S)
                assert texts(server.receive(timeout_s=PATIENCE_S)) == [b"hello"]


def test_closing_an_encrypted_door_ends_its_guard(keys):
    before = threading.active_count()
    with Socket("PULL", keys.door()):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_half_of_an_encryption_is_refused(keys):
    for half in ({"key": keys.server}, {"peers": keys.allowed}):
        with pytest.raises(EndpointError, match="CURVE needs both `key` and `peers`"):
            Socket("PULL", Endpoint(address="tcp://127.0.0.1:*", bind=True, **half))
    with pytest.raises(EndpointError, match="at all addresses of one socket or at none"):
        Socket("PULL", [keys.door(), ANY])


def test_keys_that_cannot_be_used_are_refused_by_name(keys, tmp_path):
    public = keys.client.with_suffix(".key")
    torn = tmp_path / "torn"
    torn.mkdir()
    (torn / "half.key").write_text("half of a k")
    unusable = [
        (tmp_path / "missing", keys.allowed, "missing"),
        (public, keys.allowed, "client.key holds no secret key"),
        (keys.server, tmp_path / "nowhere", "nowhere"),
        (keys.server, torn, "No public key found in .*half.key"),
    ]
    for key, peers, match in unusable:
        with pytest.raises(EndpointError, match=f"cannot (read|use) the CURVE keys: .*{match}"):
            Socket("PULL", Endpoint(address="tcp://127.0.0.1:*", bind=True, key=key, peers=peers))


LAST_WORDS = """
import sys
from stream.wire.sockets import Endpoint, Socket
socket = Socket("DEALER", Endpoint(address=sys.argv[1]))
socket.send([b"hello"], timeout_s=5)
socket.receive(timeout_s=5)
socket.send([bytes(40_000_000)])
socket.flush_and_close(5.0)
"""


def test_what_is_flushed_arrives_although_the_process_ends():
    with Socket("ROUTER", ANY) as server:
        command = [sys.executable, "-c", LAST_WORDS, server.address]
        with subprocess.Popen(command, cwd=Path(__file__).parents[3]) as process:
            client, _ = server.receive(timeout_s=PATIENCE_S)
            server.send([client, b"welcome"])
            _, last = server.receive(timeout_s=PATIENCE_S)
            assert len(last) == 40_000_000
        assert process.returncode == 0


def test_a_closed_socket_is_closed():
    socket = Socket("PULL", ANY)
    socket.close()
    with pytest.raises(zmq.ZMQError):
        socket.receive()
