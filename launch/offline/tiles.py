"""A reconstruction by several processes: each refines one tile of the scan, and once an epoch they agree.

Each tile may have a GPU of its own, or part of the cores. A process that is lost does not stop the others:
until it is started again, once, from what all had agreed on, its tile stays as it was.
"""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Literal, Self

import numpy as np

from launch.offline.task import ReconstructOptions, Task, ranges
from launch.offline.tile_places import HERE, TilePlaces
from launch.offline.tile_process import TileExchange, TileJob, TileReady, TileState
from operators.arrays import Positions, Probe
from operators.engine.backends import Backend
from operators.engine.tiling import TileObject, combine_objects, combine_probes, match_gauge, partition
from operators.geometry import Bounds, window_corners
from operators.optics.probe import with_power
from operators.reconstruct import Progress, Solution
from stream.wire.messages import Reject

log = logging.getLogger(__name__)

MOST_STARTS = 2


class TileRefinement:
    """One tile as the others see it: its process, and what it has found; a context manager that ends it.

    Parameters
    ----------
    job : TileJob
    positions_px : (frame, 2) float64, absolute object pixels
        Of its frames.
    probe : (mode, y, x) complex64
        Any of the right shape.
    places : TilePlaces
        Where it is refined.
    """

    def __init__(self, job: TileJob, positions_px: Positions, probe: Probe, places: TilePlaces) -> None:
        bounds = Bounds.of_windows(window_corners(positions_px), probe.shape[-1])
        dark = np.zeros(bounds.shape, np.float32)
        self.job, self.positions_px, self.probe = job, positions_px, probe
        self.found = TileObject(np.ones(bounds.shape, np.complex64), bounds, dark)
        self.state: Literal["loading", "ready", "refining", "lost"] = "loading"
        self.photons, self.error = 0.0, float("nan")
        self.epochs, self.n_divergences = 0.0, 0
        self._stop, self._n_starts, self._places = 0.0, 0, places

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self.worker.end(at_once=kind is not None)  # it may be in the middle of an epoch

    def _start(self) -> None:
        self.worker = self._places.start(self.job)
        self.state, self._n_starts = "loading", self._n_starts + 1

    @property
    def n_frames(self) -> int:
        """Of the tile."""
        return len(self.job.used)

    @property
    def pid(self) -> int | None:
        """Of its process, where that is one of this computer."""
        return self.worker.pid

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
            self.worker.send(message, [self.found.object, self.found.illumination, probe])
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
            message, arrays = self.worker.receive()
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
        status = self.worker.end()
        if self._n_starts < MOST_STARTS:
            log.warning("tile %d %s; starts again from the last exchange", self.job.number, status)
            self._start()
        else:
            log.warning("tile %d %s again; the others go on without it", self.job.number, status)
            self.state = "lost"


def refined_in_tiles(
    task: Task, probe: Probe, backend: Backend, progress: Progress | None, *, places: TilePlaces = HERE
) -> Solution:
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
    places : TilePlaces
        Where the processes are.

    Raises
    ------
    ValueError
        If the scan cannot be opened in another process, or there are fewer frames than tiles.
    RuntimeError
        If all tiles are lost.
    """
    n_epochs, epoch, history = task.options.epochs, 0.0, list[float]()
    with ExitStack() as stack:
        tiles = [stack.enter_context(tile) for tile in _tiles(task, probe, places)]
        while any(tile.state == "loading" for tile in tiles):
            _listen(tiles, places)
        if task.scales_probe:
            held = [tile for tile in tiles if tile.photons]
            probe = with_power(probe, sum(t.photons for t in held) / sum(t.n_frames for t in held))
        while epoch < n_epochs:
            stop = min(epoch + 1, n_epochs)
            refined = _refine(tiles, places, probe, epoch, stop, n_epochs)
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


def _tiles(task: Task, probe: Probe, places: TilePlaces) -> list[TileRefinement]:
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
            places,
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
    tiles: Sequence[TileRefinement],
    places: TilePlaces,
    probe: Probe,
    epoch: float,
    stop: float,
    n_epochs: float,
) -> list[TileRefinement]:
    """Let all tiles that are ready refine, and return those that came to the end."""
    while not (ready := [tile for tile in tiles if tile.state == "ready"]):
        _listen(tiles, places)
    for tile in ready:
        tile.refine(probe, epoch, stop, n_epochs)
    while any(tile.state == "refining" for tile in tiles):
        _listen(tiles, places)
    return [tile for tile in ready if tile.state == "ready"]


def _listen(tiles: Sequence[TileRefinement], places: TilePlaces) -> None:
    """Wait until a process has something to say or is gone, and take it."""
    awaited = {id(tile.worker): tile for tile in tiles if tile.state in ("loading", "refining")}
    if not awaited:
        raise RuntimeError(f"the processes of all {len(tiles)} tiles are lost: nothing more can be refined")
    for worker in places.wait([tile.worker for tile in awaited.values()]):
        awaited[id(worker)].take()


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
