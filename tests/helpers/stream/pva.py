"""PVs on the loopback alone, at ports of their own: no two tests see each other."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

from p4p import Value
from p4p.nt import NTNDArray
from p4p.server import Server
from p4p.server.raw import SharedPV

NDARRAY = NTNDArray().type


@contextmanager
def served(pvs: Mapping[str, SharedPV]) -> Iterator[Server]:
    """Serves PVs; clients of this process, and of those that it starts, find them."""
    with Server(providers=[dict(pvs)], isolate=True) as server, environment_of(server):
        yield server


@contextmanager
def environment_of(server: Server) -> Iterator[None]:
    with mock.patch.dict(os.environ, client_environment(server)):
        yield


def client_environment(server: Server) -> dict[str, str]:
    """What a client must have in its environment to find the PVs of `server`, and no others."""
    return {key: value for key, value in server.conf().items() if key.startswith("EPICS_PVA_")}


def new_pv(**fields: Any) -> SharedPV:
    """A PV of an NTNDArray, as areaDetector's before the first image unless told otherwise."""
    return SharedPV(initial=Value(NDARRAY, fields))


def post(pv: SharedPV, fields: Mapping[str, Any]) -> None:
    pv.post(Value(NDARRAY, dict(fields)))
