"""One tile of a scan in a process of its own: it refines the tile's frames and takes part in the exchanges.

A tile reads its frames itself, where the scan was recorded, and knows nothing of the others. What goes
through the pipe are the messages of this file and raw buffers.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from launch.child_process import ends_by_parent_alone
from launch.offline.recorded import RecordedScan
from launch.offline.task import ReconstructOptions, task_of
from operators.arrays import use_gpu
from operators.engine.backends import get_backend
from operators.engine.config import RefinerSnapshot
from operators.engine.refiner import Refiner
from operators.geometry import Bounds
from operators.reconstruct import refine
from stream.record.scan import Numbers
from stream.wire.codec import decode_with, encode
from stream.wire.handshake import rejection
from stream.wire.messages import Count, Message, Pixel, Reject


class TileReady(Message, frozen=True, tag=True, kw_only=True):
    """A tile's process holds its frames; once."""

    n_frames: Count
    mean_photons: Annotated[float, Meta(ge=0)]


class TileExchange(Message, frozen=True, tag=True, kw_only=True):
    """What all tiles of a reconstruction agree on, for one of them, which refines it until `stop`.

    Buffers: `object` (row, col) complex64; `illumination` (row, col) float32, photons per pixel from the
    tile's own frames; `probe` (mode, y, x) complex64.
    """

    BUFFERS: ClassVar[tuple[str, ...]] = ("object", "illumination", "probe")

    bounds: tuple[Pixel, Pixel, Pixel, Pixel]  # top, left, bottom, right
    epoch: Annotated[float, Meta(ge=0)]  # that all have reached
    stop: Annotated[float, Meta(gt=0)]
    n_epochs: Annotated[float, Meta(gt=0)]
    error: float  # of the tile's frames, when last visited


class TileState(Message, frozen=True, tag=True, kw_only=True):
    """What a tile found until `TileExchange.stop`.

    Buffers: as of `TileExchange`, and `positions_px` (frame, 2) float64, absolute object pixels.
    """

    BUFFERS: ClassVar[tuple[str, ...]] = (*TileExchange.BUFFERS, "positions_px")

    bounds: tuple[Pixel, Pixel, Pixel, Pixel]
    error: float
    n_divergences: Count


TileMessage = TileReady | TileExchange | TileState | Reject
DECODER = msgspec.msgpack.Decoder(TileMessage)
REFUSALS = ValueError, OSError, ImportError  # of a job: it would fail again


@dataclass(frozen=True, slots=True, kw_only=True)
class TileJob:
    """What a tile's process is told when it starts.

    Attributes
    ----------
    number : int
        Of the tile, from 0; also chooses its GPU.
    reopen : callable
        Opens the scan: a context manager that yields it.
    options : ReconstructOptions
    used : (frame,) int64
        Indices of the tile's frames in the scan.
    """

    number: int
    reopen: Callable[[], AbstractContextManager[RecordedScan]]
    options: ReconstructOptions
    used: Numbers


def send(connection: Connection, message: TileMessage, arrays: Sequence[NDArray[Any]] = ()) -> None:
    """Sends `message` and its arrays; blocks until the other end takes what the pipe does not hold."""
    parts = encode(message, arrays)
    connection.send_bytes(bytes([len(parts)]))
    for part in parts:
        connection.send_bytes(part)


def receive(connection: Connection) -> tuple[TileMessage, list[NDArray[Any]]]:
    """Returns the next message and read-only views of its arrays; EOFError or OSError if the peer is gone."""
    n_parts = connection.recv_bytes()[0]
    return decode_with(DECODER, [connection.recv_bytes() for _ in range(n_parts)])


class Tile:
    """One tile where it is refined: its frames, and what an exchange makes of them.

    Parameters
    ----------
    job : TileJob

    Raises
    ------
    ValueError, OSError, ImportError
        If the scan cannot be opened or reconstructed so.
    """

    def __init__(self, job: TileJob) -> None:
        self._used, self._refiner = job.used.tolist(), _refiner(job)

    def ready(self) -> TileReady:
        """Returns what the tile holds."""
        return TileReady(n_frames=self._refiner.n_frames, mean_photons=self._refiner.mean_photons)

    def exchanged(
        self, exchange: TileExchange, arrays: Sequence[NDArray[Any]]
    ) -> tuple[TileState, list[NDArray[Any]]]:
        """Goes on from what all tiles agree on, and returns what it has found at the next exchange."""
        _take(self._refiner, exchange, arrays)
        refine(self._refiner, exchange.stop, exchange.n_epochs)
        end, positions_px = self._refiner.snapshot(), self._refiner.positions_px(self._used)
        state = TileState(
            bounds=(end.bounds.top, end.bounds.left, end.bounds.bottom, end.bounds.right),
            error=end.error,
            n_divergences=end.n_divergences,
        )
        return state, [end.object, end.illumination, end.probe, positions_px]


def run_tile(connection: Connection, job: TileJob) -> None:
    """Holds the tile's frames and refines them, exchange after exchange, until the pipe is closed."""
    ends_by_parent_alone()
    try:
        tile = Tile(job)
    except REFUSALS as error:
        send(connection, rejection(error))
        return
    try:
        send(connection, tile.ready())
        while True:
            exchange, arrays = receive(connection)
            assert isinstance(exchange, TileExchange)  # noqa: S101 -- nothing else is sent
            send(connection, *tile.exchanged(exchange, arrays))
    except (EOFError, BrokenPipeError):  # the parent has what it wants, or is gone
        return


def _refiner(job: TileJob) -> Refiner:
    """Return a refiner that holds the frames of the tile; its probe comes with the first exchange."""
    options = job.options
    if options.device in ("auto", "cupy"):
        use_gpu(job.number)
    backend = get_backend(options.device, options.threads)
    with job.reopen() as scan:
        preprocess = scan.preprocess() if scan.preprocess else None
        task = task_of(scan, options, preprocess, job.used)
        return task.refiner(
            np.ones((1, task.geometry.n_pixels, task.geometry.n_pixels), np.complex64), backend
        )


def _take(refiner: Refiner, exchange: TileExchange, arrays: Sequence[NDArray[Any]]) -> None:
    """Go on from what all tiles agree on; a process that was started anew learns how far it had come."""
    object_, illumination, probe = arrays
    bounds = Bounds(*exchange.bounds)
    if refiner.epoch or not exchange.epoch:
        refiner.adopt(object_, bounds, probe)
        return
    before = RefinerSnapshot(
        object=object_,
        bounds=bounds,
        probe=probe,
        illumination=illumination,
        n_frames=refiner.n_frames,
        n_updates=round(exchange.epoch * refiner.n_frames),
        error=exchange.error,
        error_history=(),
        n_divergences=0,
    )
    refiner.restore(before)
