"""Where tiles are refined, and how one there is talked to: here each in a process of its own."""

import multiprocessing
from collections.abc import Sequence
from multiprocessing.connection import wait
from typing import Any, Protocol

from numpy.typing import NDArray

from launch.child_process import describe_status
from launch.offline.tile_process import TileJob, TileMessage, receive, run_tile, send

LEAVE_S = 5.0  # for a process whose pipe is closed


class TileWorker(Protocol):
    """Who refines one tile."""

    @property
    def pid(self) -> int | None:
        """Its process, where that is one of this computer."""

    def send(self, message: TileMessage, arrays: Sequence[NDArray[Any]]) -> None:
        """Sends a message; OSError if nobody is there to take it."""

    def receive(self) -> tuple[TileMessage, list[NDArray[Any]]]:
        """Returns the next message; EOFError or OSError if the worker is gone."""

    def end(self, *, at_once: bool = False) -> str:
        """Ends it, in the middle of its work if need be; returns how it has ended, in words."""


class TilePlaces(Protocol):
    """Where workers of tiles are."""

    def start(self, job: TileJob) -> TileWorker:
        """Starts a worker, which sends `TileReady` once it holds its frames, or `Reject`."""

    def wait(self, workers: Sequence[Any]) -> Sequence[TileWorker]:
        """Returns those of `workers` that have something to say or are gone, when there are some."""


class _Process:
    """A worker in a process of its own on this computer."""

    def __init__(self, job: TileJob) -> None:
        # spawn: a fork would share what threads and GPUs of this process hold
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        name = f"tile {job.number}"
        self._process = context.Process(target=run_tile, args=(other, job), name=name, daemon=True)
        self._process.start()
        other.close()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def send(self, message: TileMessage, arrays: Sequence[NDArray[Any]]) -> None:
        send(self.connection, message, arrays)

    def receive(self) -> tuple[TileMessage, list[NDArray[Any]]]:
        return receive(self.connection)

    def end(self, *, at_once: bool = False) -> str:
        if at_once:
            self._process.kill()
        self.connection.close()
        self._process.join(LEAVE_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        return describe_status(self._process.exitcode or 0)


class _Here:
    """The computer that this process runs on."""

    def start(self, job: TileJob) -> _Process:
        return _Process(job)

    def wait(self, workers: Sequence[_Process]) -> Sequence[_Process]:
        by_connection: dict[object, _Process] = {worker.connection: worker for worker in workers}
        return [by_connection[connection] for connection in wait([worker.connection for worker in workers])]


HERE: TilePlaces = _Here()
"""Processes of this computer, which share its cores and take its GPUs in turn."""
