import socket

import pytest

from stream.wire.keys import create_keys
from stream.wire.reserve import reserved
from stream.wire.sockets import Endpoint, EndpointError, Socket
from tests.helpers.launch.commands import free_address


@pytest.fixture(params=["tcp", "ipc"])
def address(request, run_folder):
    """One that nobody has."""
    return free_address() if request.param == "tcp" else f"ipc://{run_folder}/here"


def server(address, **more):
    return Endpoint(address=address, bind=True, **more)


def test_who_has_an_address_keeps_it_and_is_still_found(address):
    with Socket("PULL", server(address)) as own:
        for _ in range(2):
            with pytest.raises(EndpointError, match="Address already in use"), reserved(server(address)):
                pass
        with Socket("PUSH", Endpoint(address=address)) as peer:
            assert peer.send([b"here"], 5.0)
            assert own.receive(5.0) == [b"here"]


def test_an_address_is_free_at_once_and_publishers_that_met_us_come_back(address):
    with Socket("PUB", Endpoint(address=address)) as publisher:
        for _ in range(20):
            with reserved(server(address)), pytest.raises(EndpointError), reserved(server(address)):
                pass
        with Socket("SUB", server(address)) as reader:
            assert any(publisher.send([b"news"]) and reader.receive(0.1) for _ in range(100))


def test_a_file_at_the_address_of_a_local_socket_is_not_lost(run_folder):
    (run_folder / "here").write_text("mine")
    with pytest.raises(EndpointError, match="in use"), reserved(server(f"ipc://{run_folder}/here")):
        pass
    assert (run_folder / "here").read_text() == "mine"


def test_what_an_ended_process_left_at_an_address_is_no_hindrance(run_folder):
    with socket.socket(socket.AF_UNIX) as ended:
        ended.bind(str(run_folder / "here"))
    with reserved(server(f"ipc://{run_folder}/here")):
        pass
    assert not (run_folder / "here").exists()


def test_an_endpoint_that_no_server_could_have_is_refused(run_folder):
    key = create_keys(run_folder, "me")
    for endpoint, words in (
        (server("tcp://0.0.0.0:*"), "other machines"),
        (server("tcp://127.0.0.1:*", key=key, peers=key), "no folder of public keys"),
        (server("ipc:///no/such/folder/here"), "cannot bind .*: No such file or directory"),
        (server(f"ipc://{run_folder}/{'x' * 200}"), "cannot bind .*too long"),
        (server("tcp://192.0.2.1:9", insecure=True), "cannot bind .*: Cannot assign requested address"),
    ):
        with pytest.raises(EndpointError, match=words), reserved(endpoint):
            pass
