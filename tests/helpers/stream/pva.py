"""PVs on the loopback alone, at ports of their own: no two tests see each other."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from p4p import Value
from p4p.nt import NTNDArray, NTScalar, NTTable
from p4p.server import Server
from p4p.server.raw import SharedPV

NDARRAY = NTNDArray().type
ARRAY = NTScalar.buildType("ad", display=True)
TABLE = NTTable([("frame", "i"), ("y", "d"), ("x", "d")]).type


@contextmanager
def own_network() -> Iterator[None]:
    """PVs of this process, and of those that it starts, find each other, and no others."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {
        "EPICS_PVA_ADDR_LIST": "127.0.0.1",
        "EPICS_PVA_AUTO_ADDR_LIST": "NO",
        "EPICS_PVA_BROADCAST_PORT": port,
        "EPICS_PVAS_BROADCAST_PORT": port,
        "EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1",
        "EPICS_PVAS_BEACON_ADDR_LIST": "127.0.0.1",
        "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
        "EPICS_PVAS_SERVER_PORT": "0",
        "EPICS_PVA_SERVER_PORT": "0",
    }
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in environment.items():
            patch.setenv(variable, value)
        yield


@contextmanager
def served(pvs: Mapping[str, SharedPV]) -> Iterator[None]:
    """Serves PVs in the network of the test."""
    with Server(providers=[dict(pvs)]):
        yield


def new_pv(**fields: Any) -> SharedPV:
    """A PV of an NTNDArray, as areaDetector's before the first image unless told otherwise."""
    return SharedPV(initial=Value(NDARRAY, fields))


def post(pv: SharedPV, fields: Mapping[str, Any]) -> None:
    """Renews a PV."""
    pv.post(Value(NDARRAY, dict(fields)))


class HeldPv:
    """A PV in the hands of a test, as `stream.wire.pva.Monitor` has one; its first value was there before."""

    def __init__(self, name: str) -> None:
        self.name, self.is_connected = name, True
        self._updates: list[tuple[Any, bool]] = []
        self._is_first = True

    def post(self, value: Value) -> None:
        """Renews it."""
        self._updates.append((value, self._is_first))
        self._is_first = False

    def receive(self) -> tuple[Any, bool] | None:
        return self._updates.pop(0) if self._updates else None

    def close(self) -> None:
        self.is_connected = False
