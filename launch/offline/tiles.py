"""A reconstruction by several processes: each refines one tile of the scan, and once an epoch they agree.

Each tile may have a GPU of its own, or part of the cores. A process that is lost does not stop the others:
until it is started again, once, from what all had agreed on, its tile stays as it was.
"""

import logging
import multiprocessing
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing.connection import wait
from typing import Literal, Self

import numpy as np

from launch.child_process import describe_status
from launch.offline.task import ReconstructOptions, Task, ranges
from launch.offline.tile_process import TileExchange, TileJob, TileReady, TileState, receive, run_tile, send
from operators.arrays import Positions, Probe
from operators.engine.backends import Backend
from operators.engine.tiling import TileObject, combine_objects, combine_probes, match_gauge, partition
from operators.geometry import Bounds, window_corners
from operators.optics.probe import with_power
from operators.reconstruct import Progress, Solution
from stream.wire.messages import Reject

log = logging.getLogger(__name__)

MOST_STARTS = 2
LEAVE_S = 5.0  # for a process whose pipe is closed


class TileRefinement:
    """One tile as the others see it: its process, and what it has found; a context manager that ends it.

    Parameters
    ----------
    job : TileJob
    positions_px : (frame, 2) float64, absolute object pixels
        Of its frames.
    probe : (mode, y, x) complex64
        Any of the right shape.
    """

    def __init__(self, job: TileJob, positions_px: Positions, probe: Probe) -> None:
        bounds = Bounds.of_windows(window_corners(positions_px), probe.shape[-1])
        dark = np.zeros(bounds.shape, np.float32)
        self.job, self.positions_px, self.probe = job, positions_px, probe
        self.found = TileObject(np.ones(bounds.shape, np.complex64), bounds, dark)
        self.state: Literal["loading", "ready", "refining", "lost"] = "loading"
        self.photons, self.error = 0.0, float("nan")
        self.epochs, self.n_divergences = 0.0, 0
        self._stop, self._n_starts = 0.0, 0

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:  # it may be in the middle of an epoch
            self._process.kill()
        self._end()

    def _start(self) -> None:
        # spawn: a fork would share what threads and GPUs of this process hold
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        name = f"tile {self.job.number}"
        self._process = context.Process(target=run_tile, args=(other, self.job), name=name, daemon=True)
        self._process.start()
        other.close()
        self.state, self._n_starts = "loading", self._n_starts + 1

    def _end(self) -> None:
        self.connection.close()
        self._process.join(LEAVE_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    @property
    def n_frames(self) -> int:
        """Of the tile."""
        return len(self.job.used)

    @property
    def pid(self) -> int | None:
        """Of its process."""
        return self._process.pid

    def refine(self, probe: Probe, epoch: float, stop: float, n_epochs: float) -> None:
        """Lets the process refine `found` and `probe` from one epoch of the reconstruction to another."""
        bounds, self._stop = self.found.bounds, stop - epoch
        message = TileExchange(
            bounds=(bounds.top, bounds.left, bounds.bottom, bounds.right),
            epoch=epoch,
            stop=stop,
            n_epochs=n_epochs,
            error=self.error,
        )
        self.state = "refining"
        try:
            send(self.connection, message, [self.found.object, self.found.illumination, probe])
        except OSError:
            self._bury()

    def take(self) -> None:
        """Takes what the process has to say, or that it is gone.

        Raises
        ------
        ValueError
            If it refuses its job: it would again.
        """
        try:
            message, arrays = receive(self.connection)
        except (EOFError, OSError):
            self._bury()
            return
        if isinstance(message, Reject):
            raise ValueError(f"tile {self.job.number}: {message.reason}")  # noqa: TRY004 -- a user's mistake
        self.state = "ready"
        if isinstance(message, TileReady):
            self.photons = message.n_frames * message.mean_photons
        elif isinstance(message, TileState):
            object_, illumination, self.probe, self.positions_px = arrays
            self.found = TileObject(object_, Bounds(*message.bounds), illumination)
            self.error, self.n_divergences = message.error, message.n_divergences
            self.epochs += self._stop

    def _bury(self) -> None:
        self._end()
        status = describe_status(self._process.exitcode or 0)
        if self._n_starts < MOST_STARTS:
            log.warning("tile %d %s; starts again from the last exchange", self.job.number, status)
            self._start()
        else:
            log.warning("tile %d %s again; the others go on without it", self.job.number, status)
            self.state = "lost"


def refined_in_tiles(task: Task, probe: Probe, backend: Backend, progress: Progress | None) -> Solution:
    """Returns what as many processes as `task.options.tiles` find together.

    Parameters
    ----------
    task : Task
        Of a scan that `open_recorded` opened; each process prepares its frames as that scan says.
    probe : (mode, y, x) complex64
        Start.
    backend : Backend
        Not used: each process opens its own.
    progress : callable, optional

    Raises
    ------
    ValueError
        If the scan cannot be opened in another process, or there are fewer frames than tiles.
    RuntimeError
        If all tiles are lost.
    """
    n_epochs, epoch, history = task.options.epochs, 0.0, list[float]()
    with ExitStack() as stack:
        tiles = [stack.enter_context(tile) for tile in _tiles(task, probe)]
        while any(tile.state == "loading" for tile in tiles):
            _listen(tiles)
        if task.scales_probe:
            held = [tile for tile in tiles if tile.photons]
            probe = with_power(probe, sum(t.photons for t in held) / sum(t.n_frames for t in held))
        while epoch < n_epochs:
            stop = min(epoch + 1, n_epochs)
            refined = _refine(tiles, probe, epoch, stop, n_epochs)
            if not refined:
                continue
            for tile in refined:
                tile.found, tile.probe = match_gauge(tile.found, tile.probe, probe)
            probe = combine_probes([t.probe for t in refined], [t.n_frames for t in refined])
            whole = _exchange(tiles)
            epoch = stop
            history.append(_error(tiles))
            if progress is not None and progress(epoch, history[-1]):
                break
    _warn(tiles, task, epoch)
    positions_px = task.positions_px.copy()
    for tile in tiles:
        positions_px[tile.job.used] = tile.positions_px
    return Solution(whole.object, whole.bounds, probe, whole.illumination, positions_px[task.used], history)


def _tiles(task: Task, probe: Probe) -> list[TileRefinement]:
    if task.scan.reopen is None:
        raise ValueError(f"{task.scan.called} is not in a file that other processes could open: use 1 tile")
    reopen = task.scan.reopen
    options = _share(task.options)
    placed_px = task.positions_px[task.used]
    return [
        TileRefinement(
            TileJob(number=number, reopen=reopen, options=options, used=task.used[chosen]),
            placed_px[chosen],
            probe,
        )
        for number, chosen in enumerate(partition(placed_px, options.tiles))
    ]


def _share(options: ReconstructOptions) -> ReconstructOptions:
    """Return what one of the tiles gets: its share of the cores, and of each batch.

    With whole batches a tile would take fewer and coarser steps in an epoch than one process does.
    """
    n_tiles = options.tiles
    refiner = options.refiner.changed(batch_size=max(1, options.refiner.batch_size // n_tiles))
    return replace(options, refiner=refiner, threads=max(1, options.threads // n_tiles))


def _refine(
    tiles: Sequence[TileRefinement], probe: Probe, epoch: float, stop: float, n_epochs: float
) -> list[TileRefinement]:
    """Let all tiles that are ready refine, and return those that came to the end."""
    while not (ready := [tile for tile in tiles if tile.state == "ready"]):
        _listen(tiles)
    for tile in ready:
        tile.refine(probe, epoch, stop, n_epochs)
    while any(tile.state == "refining" for tile in tiles):
        _listen(tiles)
    return [tile for tile in ready if tile.state == "ready"]


def _listen(tiles: Sequence[TileRefinement]) -> None:
    """Wait until a process has something to say or is gone, and take it."""
    awaited: dict[object, TileRefinement] = {
        t.connection: t for t in tiles if t.state in ("loading", "refining")
    }
    if not awaited:
        raise RuntimeError(f"the processes of all {len(tiles)} tiles are lost: nothing more can be refined")
    for connection in wait([tile.connection for tile in awaited.values()]):
        awaited[connection].take()


def _exchange(tiles: Sequence[TileRefinement]) -> TileObject:
    """Return the object of all tiles, and give each its part of it, halo included."""
    whole = combine_objects([tile.found for tile in tiles])
    for tile in tiles:
        tile.found = tile.found._replace(object=whole.object[tile.found.bounds.slices_in(whole.bounds)])
    return whole


def _error(tiles: Sequence[TileRefinement]) -> float:
    """Return the amplitude error of all frames that have been refined."""
    known = [tile for tile in tiles if np.isfinite(tile.error)]
    return sum(tile.error * tile.photons for tile in known) / sum(tile.photons for tile in known)


def _warn(tiles: Sequence[TileRefinement], task: Task, n_epochs: float) -> None:
    n_divergences = sum(tile.n_divergences for tile in tiles)
    if n_divergences:
        log.warning("refinement diverged %d times and went back, with halved steps", n_divergences)
    for tile in tiles:
        n_missed = n_epochs - tile.epochs
        if n_missed > 0:
            log.warning(
                "tile %d missed %g of %g epochs, its process was lost: its %d frames were refined less: %s",
                tile.job.number,
                n_missed,
                n_epochs,
                tile.n_frames,
                ranges(task.scan.frame_numbers[tile.job.used]),
            )
