"""EPICS PV Access, by p4p: the only place that knows it. It comes with the extra `pva`.

PV Access has neither passwords nor encryption, and whoever answers first is believed. Without `insecure`
nothing is searched for, and nothing served, beyond this computer.
"""

import ipaddress
import logging
import os
import time
from collections.abc import Mapping
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

LOOPBACK, ANYWHERE = "127.0.0.1", "0.0.0.0"
LEAST_QUEUE = 2  # servers refuse less
_SEARCHED = ("EPICS_PVA_ADDR_LIST", "EPICS_PVA_NAME_SERVERS")  # variables that say where


class PvaError(ValueError):
    """A PV that must not be searched for or served, or that refuses to be listened to."""


def private_search(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns where PVs are searched for by a client that must not ask beyond this computer.

    Raises
    ------
    PvaError
        If the environment names other computers.
    """
    for variable in _SEARCHED:
        for address in environment.get(variable, "").split():
            if not _is_here(address):
                raise PvaError(
                    f"{variable} has {address}: PVs of other computers are believed without a password, so "
                    "say `insecure: true` where the network is trusted, or search on 127.0.0.1 alone"
                )
    own = {key: value for key, value in environment.items() if key.startswith("EPICS_PVA_")}
    addresses = environment.get(_SEARCHED[0], "") or LOOPBACK
    return own | {"EPICS_PVA_ADDR_LIST": addresses, "EPICS_PVA_AUTO_ADDR_LIST": "NO"}


def _is_here(address: str) -> bool:
    host = address.rpartition(":")[0] if address.count(":") == 1 else address.strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Updates(Protocol):
    """What a PV becomes: `Monitor`, or a list in its place."""

    name: str
    is_connected: bool

    def receive(self) -> tuple[Any, bool] | None:
        """Returns the next update, and whether it is what the PV held when it was connected to."""

    def close(self) -> None:
        """Stops listening."""


class Monitor:
    """What a PV has become since it was last asked for; a context manager.

    Parameters
    ----------
    name : str
        Of the PV. Where there is none yet, it is waited for.
    queue : int
        Updates that wait here. Of those that a full queue has no room for, only the newest stays.
    insecure : bool
        Allows PVs of other computers, as `EPICS_PVA_ADDR_LIST` and its neighbours say where.

    Attributes
    ----------
    is_connected : bool
        Whether the PV was there when it was last asked for.

    Raises
    ------
    PvaError
        If the environment has other computers searched without `insecure`.
    ImportError
        If p4p is missing.
    """

    def __init__(self, name: str, queue: int, *, insecure: bool = False) -> None:
        where = {} if insecure else private_search(os.environ)
        from p4p.client.raw import Context

        self.name, self.is_connected = name, False
        # No threads of ours: updates wait in the library until they are taken. With `pipeline` a server was
        # seen to keep back what its queue holds, after an acknowledgement, until the next update.
        self._context = Context("pva", conf=where, useenv=insecure, nt=False)
        request = f"field()record[queueSize={max(queue, LEAST_QUEUE)}]"
        self._updates = self._context.monitor(name, _ignore, request=request)

    def receive(self) -> tuple[Any, bool] | None:
        """Returns the next update, and whether it is what the PV held when it was connected to.

        None where there is no more; never waits.

        Raises
        ------
        PvaError
            If the server refuses.
        """
        while (update := self._updates.pop()) is not None:
            if not isinstance(update, Exception):
                is_first, self.is_connected = not self.is_connected, True
                return update, is_first
            was_connected, self.is_connected = self.is_connected, False
            if type(update).__name__ == "RemoteError":
                raise PvaError(f"PV {self.name} cannot be listened to: {update}")
            if was_connected:
                log.warning("PV %s is gone; it is waited for", self.name)
        return None

    def close(self) -> None:
        """Stops listening."""
        self._updates.close()
        self._context.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class PvServer:
    """Serves PVs that nobody can write to; a context manager.

    Who reads slowly misses updates and delays nobody.

    Parameters
    ----------
    host : str
        Address of this computer that is listened on; ports are those of the environment, or EPICS's own.
    insecure : bool
        Allows a host that other computers can reach.

    Raises
    ------
    PvaError
        If the host is open to others without `insecure`, or cannot be listened on.
    ImportError
        If p4p is missing.
    """

    def __init__(self, host: str = LOOPBACK, *, insecure: bool = False) -> None:
        check_host(host, insecure=insecure)
        from p4p import Value
        from p4p.nt import NTNDArray, NTScalar
        from p4p.server import Server, StaticProvider
        from p4p.server.raw import SharedPV

        self._value, self._new_pv = Value, SharedPV
        self._image_type, self._array_type = NTNDArray().type, NTScalar.buildType("ad")
        self._scalar_types = {int: NTScalar.buildType("l"), str: NTScalar.buildType("s")}
        self._provider, self._pvs = StaticProvider(), dict[str, Any]()
        self._readers: dict[str, _Readers] = {}
        names = ("EPICS_PVAS_INTF_ADDR_LIST", "EPICS_PVAS_BEACON_ADDR_LIST")
        where = dict.fromkeys(names, host) | {"EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO"}
        try:
            self._server = Server([self._provider], conf={} if host == ANYWHERE else where, useenv=True)
        except RuntimeError as error:
            raise PvaError(f"PVs cannot be served at {host}: {error}") from error

    def post_image(self, name: str, fields: Mapping[str, Any]) -> None:
        """Renews the NTNDArray `name` by all its fields."""
        self._post(name, self._value(self._image_type, dict(fields)))

    def post_scalar(self, name: str, value: int | str) -> None:
        """Renews the NTScalar `name`."""
        fields = {"value": value, "timeStamp": time_stamp(time.time())}
        self._post(name, self._value(self._scalar_types[type(value)], fields))

    def post_array(self, name: str, values: NDArray[np.float64]) -> None:
        """Renews the NTScalarArray `name`."""
        self._post(name, self._value(self._array_type, {"value": np.ascontiguousarray(values)}))

    def _post(self, name: str, value: Any) -> None:
        if (pv := self._pvs.get(name)) is not None:
            pv.post(value)
            return
        self._readers[name] = readers = _Readers()
        self._pvs[name] = pv = self._new_pv(handler=readers, initial=value)
        self._provider.add(name, pv)

    def is_read(self, name: str) -> bool:
        """Whether somebody is connected to a PV."""
        return name in self._readers and self._readers[name].are_there

    def close(self) -> None:
        """Stops serving."""
        self._server.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def time_stamp(seconds: float) -> dict[str, int]:
    """Returns the fields of EPICS's time of so many seconds since 1970."""
    whole, rest = divmod(seconds, 1)
    return {"secondsPastEpoch": int(whole), "nanoseconds": int(rest * 1e9)}


class _Readers:
    """Whether a PV has readers, as the library tells."""

    def __init__(self) -> None:
        self.are_there = False

    def onFirstConnect(self, pv: Any) -> None:  # noqa: N802 -- of the library
        self.are_there = True

    def onLastDisconnect(self, pv: Any) -> None:  # noqa: N802 -- of the library
        self.are_there = False


def check_host(host: str, *, insecure: bool) -> None:
    """Raises PvaError if PVs served at `host` can be read by other computers and that is not allowed."""
    if not insecure and not _is_here(host):
        raise PvaError(
            f"PVs at {host} can be read from other computers, without a password: use host {LOOPBACK}, or "
            "say `insecure: true` where the network is trusted"
        )


def _ignore() -> None:
    """Takes note of nothing: updates are asked for."""
