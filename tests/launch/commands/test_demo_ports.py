import socket

import pytest

from launch.commands import demo


def test_a_free_port_is_none_that_outgoing_connections_are_given_nor_one_in_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = demo.free_port()
    assert first in demo.PORTS
    monkeypatch.setattr(demo, "PORTS", range(first, first + 2))
    with socket.create_server(("127.0.0.1", first)):
        assert demo.free_port() == first + 1


def test_no_free_port_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    only = demo.free_port()
    monkeypatch.setattr(demo, "PORTS", range(only, only + 1))
    with (
        socket.create_server(("127.0.0.1", only)),
        pytest.raises(OSError, match=str(only)),
    ):
        demo.free_port()


def test_a_preferred_port_is_taken_while_it_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        used = server.getsockname()[1]
        assert demo.free_port(used) in demo.PORTS
    free = demo.free_port()
    assert demo.free_port(free) == free
    assert demo.free_port(free) != free  # somebody is about to use it
