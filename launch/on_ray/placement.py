"""The process of a run that places workers on a Ray cluster, looks after them, and says how many are there.

It is the only one of the run that is connected to the cluster. Its actors end with it, however it ends.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Protocol

from launch.child_process import ends_by_parent_alone
from launch.config.run_file import ResolvedRun
from launch.on_ray.actor import LEAVE_S, Job, PlacedStage, Seen
from launch.on_ray.cluster import LOOPBACK, Cluster, LostError, Needs, connected
from launch.on_ray.versions import own_version
from stream.record.handover import NETWORK
from stream.remote.placed import door_of_placed, follow, let_in
from stream.stages.link import Link
from stream.stages.stage import Service
from stream.wire.messages import StageLevel, StageState
from stream.wire.sockets import read_keys

log = logging.getLogger(__name__)

LOOK_S = 0.5  # between two looks at the workers
GONE_S = 5.0  # one that has not answered for so long is not there
RETRY_S = 3.0  # to reach a cluster that was away
AGAIN_S = 10.0  # without an answer but errors, before another actor takes the place


class Handle(Protocol):
    """An actor that was started, as `launch.on_ray.cluster.Actor`."""

    def ask(self, method: str) -> None:
        """Calls a method, whatever it was asked before."""

    def poll(self, method: str) -> Seen | None:
        """Returns what a method returns, once it has."""

    def end(self) -> None:
        """Ends it for good."""


class Place:
    """A worker that is wanted: the actor that takes its place, and what was seen of it.

    Attributes
    ----------
    name : str
    seen : Seen or None
        What it said last, None until it has said anything.
    trouble : str
        Why it is not there, "" where nobody knows.
    """

    def __init__(self, name: str, start: Callable[[], Handle]) -> None:
        self.name, self._start = name, start
        self.seen: Seen | None = None
        self.trouble = ""
        self._actor: Handle | None = None
        self._heard_at = float("-inf")
        self._lost_at: float | None = None
        self._is_leaving = False

    def is_there(self, now: float) -> bool:
        """Whether it has said lately that it works."""
        return self.seen is not None and not self.trouble and now - self._heard_at <= GONE_S

    def look(self, now: float) -> bool:
        """Takes what the actor says; says whether it is another one than before, or the first."""
        if self._actor is None:
            self._actor = self._start()
        try:
            seen = self._actor.poll("look")
        except LostError as error:
            self.trouble = str(error)
            self._lost_at = now if self._lost_at is None else self._lost_at
            if now - self._lost_at >= AGAIN_S:  # Ray has not started it again: it could not be
                self.end()
            return False
        if seen is None:
            return False
        before, self.seen = self.seen, seen
        self.trouble, self._heard_at, self._lost_at = seen.trouble, now, None
        return before is None or before.public_key != seen.public_key

    def leave(self) -> bool:
        """Asks the worker to leave; says whether it has, or nothing is to be waited for."""
        if self._actor is None or self.seen is None:
            return True
        try:
            if not self._is_leaving:
                self._actor.ask("leave")  # in place of the look that it may not have answered yet
                self._is_leaving = True
            return self._actor.poll("leave") is not None
        except LostError:
            return True

    def end(self) -> None:
        """Ends the actor."""
        if self._actor is not None:
            self._actor.end()
        self._actor = self._lost_at = None


class Placement:
    """The workers of a run on a cluster.

    Parameters
    ----------
    places : sequence of Place
    let_in : callable
        Gets the name of a worker and the public key with which it comes.
    refresh : callable
        Called again and again.
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self,
        places: Sequence[Place],
        let_in: Callable[[str, str], None],
        refresh: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.places = places
        self._let_in, self._refresh, self._clock = let_in, refresh, clock
        self._n_said = 0

    def run(self, link: Link) -> None:
        """Looks after the workers until the run ends."""
        try:
            while not link.is_stopped:
                link.wait(LOOK_S)
                self.turn()
                text, level = self.state()
                if (n := self.n_there) != self._n_said:
                    link.notice(logging.WARNING if n < self._n_said else logging.INFO, text)
                    self._n_said = n
                row = StageState(name=link.name, text=text, level=level)
                link.report("", {"workers": n}, self._clock(), state=row)
        finally:
            with suppress(ConnectionError):  # the cluster is away, and its workers with it
                self.close()

    def turn(self) -> None:
        """Looks at every worker once."""
        self._refresh()
        for place in self.places:
            if place.look(self._clock()) and place.seen is not None:
                self._let_in(place.name, place.seen.public_key)

    @property
    def n_there(self) -> int:
        """How many workers are there."""
        return sum(place.is_there(self._clock()) for place in self.places)

    def state(self) -> tuple[str, StageLevel]:
        """Returns how the workers stand, in words."""
        there = [place for place in self.places if place.is_there(self._clock())]
        hosts = ", ".join(sorted({place.seen.host for place in there if place.seen}))
        text = f"{len(there)} of {len(self.places)} workers are there" + f", on {hosts}" * bool(hosts)
        if len(there) == len(self.places):
            return text, "ok"
        missing = [place for place in self.places if place not in there]
        if trouble := next((place.trouble for place in missing if place.trouble), ""):
            return f"{text}: {trouble}", "warning"
        if all(place.seen is None for place in missing):
            return f"{text}; the others wait for room in the cluster", "busy"
        return f"{text}; the others do not answer", "warning"

    def close(self) -> None:
        """Lets the workers leave, and ends them."""
        deadline = self._clock() + LEAVE_S + 1.0
        left = list(self.places)
        while (left := [place for place in left if not place.leave()]) and self._clock() < deadline:
            time.sleep(0.05)
        for place in self.places:
            place.end()


def needs_of(
    nodes: Sequence[Mapping[str, float]], n_workers: int, threads: int, n_others: int = 0
) -> list[Needs]:
    """Returns what each worker gets: a GPU as long as there are some, then cores.

    Parameters
    ----------
    nodes : sequence of mapping
        What each node has, by the names of Ray.
    n_workers : int
        0 for one on each GPU, or on each node that has the cores if there is none.
    threads : int
        Cores of one that has no GPU.
    n_others : int
        Others that are placed as well, each of which takes a GPU first.
    """
    n_gpus = max(int(sum(node.get("GPU", 0) for node in nodes)) - n_others, 0)
    n_workers = n_workers or n_gpus or max(sum(node.get("CPU", 0) >= threads for node in nodes), 1)
    return [Needs(gpus=1) if number < n_gpus else Needs(cpus=threads) for number in range(n_workers)]


def seen_from_nodes(door: str, own_host: str) -> str:
    """Returns a bound address as the nodes connect to it, who know this computer as `own_host`.

    Raises
    ------
    ValueError
        If they cannot reach it.
    """
    host, _, port = door.removeprefix("tcp://").rpartition(":")
    if host in ("0.0.0.0", "*", "[::]"):
        return f"tcp://{own_host}:{port}"
    if host.startswith(LOOPBACK) and not own_host.startswith(LOOPBACK):
        raise ValueError(
            f"remote.address {door} is of this computer alone, and the nodes of the cluster know it as "
            f"{own_host}: leave it out, or give tcp://0.0.0.0:{port}"
        )
    return door


class PlacementService:
    """Service: connects to the cluster and keeps workers there.

    Parameters
    ----------
    run : ResolvedRun

    Raises
    ------
    ImportError, ConnectionError
        If the cluster cannot be used, before the run has ever been connected to it; later that may pass.
    """

    def __init__(self, run: ResolvedRun) -> None:
        self._run, self._held = run, ExitStack()
        self._cluster: Cluster | None = None
        self._why = ""
        try:
            self._connect()
        except ConnectionError as error:
            if "cluster" not in run.addresses:
                raise
            self._why = str(error)

    def _connect(self) -> None:
        self._cluster = self._held.enter_context(connected(self._run.config.remote.cluster))
        ends_by_parent_alone()  # Ray has taken SIGTERM for itself

    def run(self, link: Link) -> None:
        """Looks after the workers until the run ends."""
        with self._held:
            link.ready(self._run.config.remote.cluster)
            while self._cluster is None and not link.is_stopped:
                row = StageState(name=link.name, text=f"{self._why}; tried again and again", level="warning")
                link.report("", {"workers": 0}, time.monotonic(), state=row)
                link.wait(RETRY_S)
                try:
                    self._connect()
                except ConnectionError as error:
                    self._why = str(error)
            if self._cluster is not None:
                _placement(self._run, self._cluster).run(link)


def placement(run: ResolvedRun) -> Service:
    """Returns the process that places workers on the cluster `remote.cluster`."""
    return PlacementService(run)


def _placement(run: ResolvedRun, cluster: Cluster) -> Placement:
    remote = run.config.remote
    keys = read_keys(door_of_placed(remote.endpoint(), run.rendezvous))
    assert keys is not None  # noqa: S101 -- made just now
    run_key = keys[0].decode()

    def place(name: str, stage: str, door: str, needs: Needs, threads: int) -> Place:
        job = Job(
            version=own_version(),
            stage=stage,
            address=seen_from_nodes(run.addresses[door], cluster.own_host),
            run_key=run_key,
            threads=threads,
        )
        return Place(name, partial(cluster.start, PlacedStage, job, needs=needs))

    nodes, places, n_others = cluster.nodes(), list[Place](), 0
    if remote.lends_refinement:
        threads = run.config.refinement.threads
        (needs,) = needs_of(nodes, 1, threads)
        places, n_others = [place("refiner", "refinement", "refinement", needs, threads)], 1
    if run.config.network.weights:
        threads = run.config.network.threads
        for number, needs in enumerate(needs_of(nodes, remote.workers, threads, n_others), 1):
            places.append(place(f"placed-{number}", NETWORK, "gateway", needs, threads))
    return Placement(
        places,
        let_in=partial(let_in, run.rendezvous),
        refresh=partial(follow, run.rendezvous, remote.peers),
    )
