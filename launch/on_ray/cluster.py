"""A Ray cluster as those see it who place something on it. Ray is imported here, when one is asked for."""

import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from launch.extras import missing_extra
from launch.on_ray.versions import why_not_connected, why_not_started

log = logging.getLogger(__name__)

PATIENCE_S = 5.0  # for the client server of a head to be reached
CLIENT_PORT = 10001
LOOPBACK = "127."
TELL_S = 3.0  # of waiting for room, before somebody is told
_NONE_HERE = "Could not find any running Ray instance"
_NOT_YET = "Starting Ray client server failed"  # a busy head may take longer than it gives itself
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # it would report to its authors what it is used for
    "RAY_DEDUP_LOGS": "0",  # each worker says for itself what it does
    "RAY_COLOR_PREFIX": "0",
}


class Needs(NamedTuple):
    """What an actor has of its node for itself."""

    cpus: int = 0
    gpus: int = 0

    @property
    def options(self) -> dict[str, float]:
        """The same in the words of Ray."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus}


class LostError(Exception):
    """An actor that does not answer any more, and why."""


class Actor:
    """One actor, and the question that it is asked at the moment.

    Parameters
    ----------
    handle : ActorHandle
        Of Ray.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self.asked: Any = None

    def ask(self, method: str, *arguments: object) -> None:
        """Calls a method; `answer` gets what it returns."""
        self.asked = getattr(self._handle, method).remote(*arguments)

    def answer(self) -> Any:
        """Returns the answer to what was asked last, when it has come.

        Raises
        ------
        LostError
            If the actor is gone; Ray may be starting it again.
        """
        import ray

        asked, self.asked = self.asked, None
        try:
            return ray.get(asked)
        except ray.exceptions.RayError as error:
            raise LostError(why_not_started(error)) from error

    def poll(self, method: str) -> Any:
        """Returns what a method returns once it has, None before; the next time it is called anew."""
        import ray

        if self.asked is None:
            self.ask(method)
        done, _ = ray.wait([self.asked], timeout=0)
        return self.answer() if done else None

    def end(self) -> None:
        """Ends it for good."""
        import ray

        ray.kill(self._handle, no_restart=True)


class Reservation(NamedTuple):
    """Room on a cluster for several actors at once: a placement group of Ray."""

    group: Any
    needs: Sequence[Needs]


class Cluster:
    """The cluster that this process is connected to.

    Parameters
    ----------
    on : str
        As it was asked for.
    own_host : str
        This computer, as the nodes reach it.
    """

    def __init__(self, on: str, own_host: str) -> None:
        self.on, self.own_host = on, own_host

    def nodes(self) -> list[Mapping[str, float]]:
        """Returns what each node that is there has, by the names of Ray: CPU, GPU ..."""
        import ray

        return [node["Resources"] for node in ray.nodes() if node["Alive"]]

    def start(self, kind: type, *arguments: object, needs: Needs) -> Actor:
        """Returns an actor that begins as soon as there is room, and again wherever there is when it is lost.

        Nodes import its class by its name.
        """
        import ray

        options = {"max_restarts": -1, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}
        return Actor(ray.remote(kind).options(**options, **needs.options).remote(*arguments))

    @contextmanager
    def reserved(self, needs: Sequence[Needs]) -> Iterator[Reservation]:
        """Yields room for several actors, spread over the nodes, when there is room for all of them."""
        import ray

        bundles = [{name: n for name, n in (("CPU", each.cpus), ("GPU", each.gpus)) if n} for each in needs]
        group = ray.util.placement_group(bundles, strategy="SPREAD")
        try:
            there = group.ready()
            if not ray.wait([there], timeout=TELL_S)[0]:
                log.warning("%s has no room for all %d actors yet: they wait", self.on, len(needs))
            ray.get(there)
            yield Reservation(group, needs)
        finally:
            ray.util.remove_placement_group(group)

    def start_in(self, reservation: Reservation, index: int, kind: type, *arguments: object) -> Actor:
        """Returns an actor that has all of one part of a reservation; when it is lost, it is lost."""
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        place = PlacementGroupSchedulingStrategy(reservation.group, index)
        options = reservation.needs[index].options
        return Actor(ray.remote(kind).options(scheduling_strategy=place, **options).remote(*arguments))

    def wait(self, actors: Sequence[Actor]) -> list[Actor]:
        """Returns those that have answered or are gone, when there are some."""
        import ray

        asked = {actor.asked: actor for actor in actors}
        done, _ = ray.wait(list(asked), num_returns=1)
        return [asked[question] for question in done]


@contextmanager
def connected(on: str) -> Iterator[Cluster]:
    """Connects this process to a cluster: `ray`, the one of this computer or a new one, or ray://HOST:PORT.

    Raises
    ------
    ImportError
        Without Ray.
    ConnectionError
        If there is no such cluster, or it has other versions of Ray or Python.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise ImportError(f"{on}: {missing_extra(error) or error}", name=error.name) from error
    try:
        _connect(ray, on)
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        raise ConnectionError(why_not_connected(on, error)) from error
    try:
        yield Cluster(on, _own_host(ray, on))
    finally:
        ray.shutdown()


def _connect(ray: Any, on: str) -> None:
    if on == "ray":
        try:
            ray.init(address="auto", logging_level="warning")
        except ConnectionError as error:
            if _NONE_HERE not in str(error):  # it is named, and does not answer
                raise
            ray.init(address="local", include_dashboard=False, logging_level="warning")
        return
    place = urlsplit(on)
    host, port = place.hostname or "", place.port or CLIENT_PORT
    try:
        socket.create_connection((host, port), PATIENCE_S).close()
    except OSError as error:
        raise ConnectionError(
            f"nobody answers at {host}:{port} ({error.strerror or error}); the head of a cluster does, "
            "`ray start --head` there"
        ) from error
    try:
        ray.init(f"ray://{host}:{port}", logging_level="warning")
    except RuntimeError as error:
        if _NOT_YET not in str(error):
            raise
        ray.init(f"ray://{host}:{port}", logging_level="warning")


def _own_host(ray: Any, on: str) -> str:
    if on == "ray":
        return str(ray.util.get_node_ip_address())
    own = own_address_towards(urlsplit(on).hostname or "")
    others = [node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]]
    beyond = [address for address in others if not address.startswith(LOOPBACK)]
    # A head on this computer is reached over the loopback, and its nodes elsewhere are not.
    return own_address_towards(beyond[0]) if own.startswith(LOOPBACK) and beyond else own


def own_address_towards(host: str) -> str:
    """Returns the address of this computer on the network that leads to a host."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:  # nothing is sent
        asking.connect((host, CLIENT_PORT))
        return str(asking.getsockname()[0])
