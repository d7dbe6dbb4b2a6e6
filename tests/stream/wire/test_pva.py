"""A PV is heard of in order, connected or not, and never beyond this computer unless that is allowed."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from stream.wire.pva import Monitor, PvaError, private_search
from tests.helpers.stream.pva import new_pv, own_network, post, served

PATIENCE_S = 20.0


@pytest.fixture(autouse=True)
def _has_a_network_of_its_own() -> Iterator[None]:
    with own_network():
        yield


def numbers_until(monitor: Monitor, is_enough: Callable[[list[int]], bool]) -> list[tuple[int, bool]]:
    """Number of each update, and whether the PV held it before."""
    got: list[tuple[int, bool]] = []
    deadline = time.monotonic() + PATIENCE_S
    while not is_enough([number for number, _ in got]):
        assert time.monotonic() < deadline, got[-3:]
        while (update := monitor.receive()) is not None:
            got.append((update[0]["uniqueId"], update[1]))
        time.sleep(0.01)
    return got


def image(number: int) -> dict[str, Any]:
    return {"uniqueId": number, "value": ("ushortValue", np.full(64, number, "u2"))}


def test_updates_come_in_order_and_what_the_pv_held_is_told_apart() -> None:
    pv = new_pv(uniqueId=7)
    with served({"T:IMAGE": pv}), Monitor("T:IMAGE", 100) as monitor:
        numbers_until(monitor, lambda got: got == [7])
        for number in range(8, 58):
            post(pv, image(number))
        got = numbers_until(monitor, lambda got: 57 in got)
    assert got == [(number, False) for number in range(8, 58)]


def test_of_updates_without_room_the_newest_stays() -> None:
    pv = new_pv(uniqueId=0)
    with served({"T:IMAGE": pv}), Monitor("T:IMAGE", 4) as monitor:
        numbers_until(monitor, lambda got: got == [0])
        for number in range(1, 3000):
            post(pv, image(number))
        got = [number for number, _ in numbers_until(monitor, lambda got: 2999 in got)]
    assert got == sorted(set(got))
    assert got[:3] == [1, 2, 3]
    assert len(got) < 2999


def test_a_pv_that_goes_and_comes_back_is_connected_to_again() -> None:
    pv = new_pv(uniqueId=3)
    with served({"T:IMAGE": pv}), Monitor("T:IMAGE", 100) as monitor:
        assert numbers_until(monitor, lambda got: got == [3]) == [(3, True)]
        pv.close()
        deadline = time.monotonic() + PATIENCE_S
        while monitor.is_connected:
            assert monitor.receive() is None
            assert time.monotonic() < deadline
        pv.open(new_pv(uniqueId=9).current())
        assert numbers_until(monitor, lambda got: got == [9]) == [(9, True)]


def test_a_pv_that_is_not_there_yet_is_waited_for() -> None:
    with Monitor("T:IMAGE", 100) as monitor:
        assert monitor.receive() is None
        assert not monitor.is_connected
        with served({"T:IMAGE": new_pv(uniqueId=5)}):
            assert numbers_until(monitor, lambda got: got == [5]) == [(5, True)]


@pytest.mark.parametrize(
    "environment",
    [
        {"EPICS_PVA_ADDR_LIST": "127.0.0.1 10.1.2.255"},
        {"EPICS_PVA_NAME_SERVERS": "gateway.facility.org:5075"},
        {"EPICS_PVA_ADDR_LIST": "192.168.1.4:5076"},
    ],
)
def test_other_computers_are_not_searched_unless_that_is_allowed(environment: dict[str, str]) -> None:
    with pytest.raises(PvaError, match="insecure: true"):
        private_search(environment)


def test_without_a_word_of_the_environment_this_computer_alone_is_searched() -> None:
    assert private_search({"EPICS_PVA_BROADCAST_PORT": "9999", "HOME": "/"}) == {
        "EPICS_PVA_BROADCAST_PORT": "9999",
        "EPICS_PVA_ADDR_LIST": "127.0.0.1",
        "EPICS_PVA_AUTO_ADDR_LIST": "NO",
    }
    assert private_search({"EPICS_PVA_ADDR_LIST": "localhost [::1] 127.0.0.1:5076"})
