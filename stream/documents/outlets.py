"""Positions as their programs send them, by kind: where a replay puts them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from stream.documents.panda_server import PandaServer
from stream.documents.publisher import DocumentPublisher
from stream.documents.senders import Hdf5Sender, PvaArraysSender, RelaySender, TextSender
from stream.wire import addresses
from stream.wire.pva import ANYWHERE, LOOPBACK, PvServer
from stream.wire.sockets import Endpoint

Fields = tuple[str, str]  # names of y and x


class Outlet(Protocol):
    """Takes the documents of a run, and sends what they say."""

    def is_heard(self, timeout_s: float = 0.0) -> bool:
        """Says whether somebody listens, after waiting for it at most `timeout_s`."""

    def __call__(self, name: str, document: Mapping[str, Any]) -> None:
        """Sends what one document becomes."""

    def close(self) -> None:
        """Closes when what was sent has left."""


class OutletKind(NamedTuple):
    """How positions are sent.

    Attributes
    ----------
    names : (str, str)
        What y and x are called: `positions.y` and `positions.x` of the pipeline that takes them.
    where : str
        Address, or path of a file, where none is said.
    open : callable
        Gets where they go and their unit.
    """

    names: Fields
    where: str
    open: Callable[[Endpoint, str], Outlet]
    is_file: bool = False


FIELDS = "stage-y", "stage-x"  # of the documents that they take
_FLOWN = "INENC1.VAL.Value", "INENC2.VAL.Value"
_COLUMNS = "y", "x"


def _bluesky(where: Endpoint, unit: str) -> Outlet:
    return DocumentPublisher(where)


def _relay(where: Endpoint, unit: str) -> Outlet:
    return RelaySender(replace(where, bind=True), _FLOWN, FIELDS)


def _panda(where: Endpoint, unit: str) -> Outlet:
    host, _, port = where.address.removeprefix("tcp://").rpartition(":")
    return PandaServer(_FLOWN, FIELDS, unit, host, int(port))


def _pva(where: Endpoint, unit: str) -> Outlet:
    names = where.address.split(",")
    if len(names) != 2:
        raise ValueError(f"--positions {where.address}: wanted the names of two PVs, Y,X")
    server = PvServer(ANYWHERE if where.insecure else LOOPBACK, insecure=where.insecure)
    return PvaArraysSender(server, names, FIELDS)


def _text(where: Endpoint, unit: str) -> Outlet:
    return TextSender(Path(where.address), _COLUMNS, FIELDS)


def _hdf5(where: Endpoint, unit: str) -> Outlet:
    return Hdf5Sender(Path(where.address), _COLUMNS, FIELDS, unit)


def _cxi(where: Endpoint, unit: str) -> Outlet:
    return Hdf5Sender(Path(where.address), _COLUMNS, FIELDS, unit, is_cxi=True)


OUTLETS: Mapping[str, OutletKind] = {
    "documents": OutletKind(FIELDS, addresses.POSITIONS, _bluesky),
    "panda-json": OutletKind(_FLOWN, "tcp://127.0.0.1:5556", _relay),
    "panda": OutletKind(_FLOWN, "tcp://127.0.0.1:8889", _panda),
    "pva": OutletKind(_COLUMNS, "SCAN:Y,SCAN:X", _pva),
    "csv": OutletKind(_COLUMNS, "positions.csv", _text, is_file=True),
    "hdf5": OutletKind(_COLUMNS, "positions.h5", _hdf5, is_file=True),
    "cxi": OutletKind(_COLUMNS, "positions.cxi", _cxi, is_file=True),
}
