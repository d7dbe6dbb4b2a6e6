"""Tiles of a reconstruction on the nodes of a Ray cluster, each with its frames, which it gets from here."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from launch.offline.recorded import RecordedScan
from launch.offline.tile_process import DECODER, TileJob, TileMessage
from launch.on_ray.cluster import Actor, Cluster, LostError, Needs, Reservation, connected
from launch.on_ray.tile_actor import TileActor
from launch.on_ray.versions import own_version
from operators.optics.preprocess import Preprocess
from stream.wire.codec import decode_with, encode

GPU_DEVICES = ("auto", "cupy", "cupy-fused")


class TileOnNode:
    """A worker on some node, as `launch.offline.tile_places` talks to it."""

    pid: int | None = None  # on another computer

    def __init__(self, actor: Actor, job: TileJob) -> None:
        self.actor = actor
        self._why = "it was ended"
        actor.ask("begin", job)

    def send(self, message: TileMessage, arrays: Sequence[NDArray[Any]]) -> None:
        """Sends what all have agreed on."""
        self.actor.ask("exchange", [bytes(part) for part in encode(message, arrays)])

    def receive(self) -> tuple[TileMessage, list[NDArray[Any]]]:
        """Returns the answer; OSError if the node is gone."""
        try:
            return decode_with(DECODER, self.actor.answer())
        except LostError as error:
            self._why = str(error)
            raise ConnectionResetError(self._why) from error

    def end(self, *, at_once: bool = False) -> str:
        """Ends the actor; returns why it was lost, if it was."""
        self.actor.end()
        return f"was lost ({self._why})"


class TilesOnCluster:
    """Where tiles are refined: on nodes of a cluster, with room reserved for all of them or for none.

    Parameters
    ----------
    cluster : Cluster
    reservation : Reservation
    """

    def __init__(self, cluster: Cluster, reservation: Reservation) -> None:
        self._cluster, self._reservation = cluster, reservation

    def start(self, job: TileJob) -> TileOnNode:
        """Starts a worker and sends it the frames of its tile."""
        actor = self._cluster.start_in(self._reservation, job.number, TileActor, own_version())
        return TileOnNode(actor, with_frames(job))

    def wait(self, workers: Sequence[TileOnNode]) -> Sequence[TileOnNode]:
        """Returns those that have answered or are gone."""
        answered = self._cluster.wait([worker.actor for worker in workers])
        return [worker for worker in workers if worker.actor in answered]


@contextmanager
def tiles_on(on: str, n_tiles: int, threads: int, device: str | None) -> Iterator[TilesOnCluster]:
    """Yields where tiles are refined, when the cluster `on` has room for `n_tiles`.

    Parameters
    ----------
    on : str
        As of `connected`, which says what it raises.
    n_tiles, threads : int
        All tiles share the threads.
    device : str, optional
        Of the engine; a tile gets a GPU of its own where it may use one and there are enough.

    Raises
    ------
    ValueError
        If the cluster is too small, however long one waits.
    """
    with connected(on) as cluster:
        needs = tile_needs(cluster.nodes(), n_tiles, max(threads // n_tiles, 1), device)
        with cluster.reserved([needs] * n_tiles) as reservation:
            yield TilesOnCluster(cluster, reservation)


def tile_needs(nodes: Sequence[Mapping[str, float]], n_tiles: int, threads: int, device: str | None) -> Needs:
    """Returns what each tile gets: a GPU where there are enough, otherwise cores.

    Raises
    ------
    ValueError
        If there are not so many cores in the cluster.
    """
    may_use_gpu = device is None or device in GPU_DEVICES
    if may_use_gpu and sum(int(node.get("GPU", 0)) for node in nodes) >= n_tiles:
        return Needs(gpus=1)
    room = sum(int(node.get("CPU", 0) // threads) for node in nodes)
    if room < n_tiles:
        raise ValueError(
            f"{n_tiles} tiles with {threads} cores each do not fit on the cluster, which takes {room}: "
            "choose fewer --tiles or --threads"
        )
    return Needs(cpus=threads)


def with_frames(job: TileJob) -> TileJob:
    """Returns the job of a tile with its frames, for a node that cannot open the scan."""
    with job.reopen() as scan:
        preprocess = scan.preprocess() if scan.preprocess else None
        own = replace(
            scan,
            frames=np.asarray(scan.frames[job.used]),
            frame_numbers=scan.frame_numbers[job.used],
            positions_m=scan.positions_m[job.used],
            preprocess=None if preprocess is None else partial(_same, preprocess),
            config=None,
            reopen=None,
            events=(),
        )
    return replace(job, number=0, reopen=partial(_held, own), used=np.arange(len(job.used)))


def _same(preprocess: Preprocess) -> Preprocess:
    return preprocess


def _held(scan: RecordedScan) -> AbstractContextManager[RecordedScan]:
    return nullcontext(scan)
