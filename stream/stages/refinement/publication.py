"""What of one scan's object others can read, and refinement itself after a restart."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from operators.arrays import Corners, Positions
from operators.engine.config import Changes, RefinerState
from operators.engine.refiner import Refiner
from operators.geometry import window_corners
from operators.optics.probe import power_scale
from stream.record.error_curve import EpochError, read_error_curve, write_error_curve
from stream.record.scan import Scan
from stream.record.snapshot import ChangedTile, SnapshotWriter, note_refined, tile_parts
from stream.stages.refinement.setup import STAGE, Setup

_MOST_MOVED_PX = 8  # between two states that are published, where positions are refined


class ObjectRecord:
    """Picture, error curve, columns and counters of one scan; goes on from what an earlier process left.

    Parameters
    ----------
    scan : Scan
    clock : callable
        Monotonic seconds.

    Attributes
    ----------
    counters : Counters
    error_curve : list of EpochError
        Published with the next state.
    """

    def __init__(self, scan: Scan, clock: Callable[[], float]) -> None:
        self._scan, self._clock, self._writer = scan, clock, SnapshotWriter(scan.folder)
        for name in ("refined_s", "visits"):  # which a scan may lack that an earlier version began
            scan.column(name, writable=True)
        self.counters = scan.counters(STAGE, writable=True)
        self.error_curve = [EpochError(*row) for row in read_error_curve(scan.folder).tolist()]

    def write(
        self,
        state: RefinerState,
        tiles: Iterable[ChangedTile],
        changes: Changes,
        positions_px: Positions | None,
        *,
        started_over: bool,
        n_reused: int,
    ) -> float:
        """Publishes `state` with the `tiles` that changed, marks the frames in it, and returns when that was.

        Parameters
        ----------
        state : RefinerState
        tiles : iterable of tuple
            As `SnapshotWriter.write` takes them.
        changes : Changes
        positions_px : (frame, 2) float64, or None
            Of the frames of `changes`, absolute object pixels, where positions are refined.
        started_over : bool
            Whether the object is one that was started again.
        n_reused : int
            Frames that started from the object of an earlier scan.
        """
        self._writer.write(state, tiles)
        write_error_curve(self._scan.folder, self.error_curve)
        if positions_px is not None:
            self._scan.column("refined_px", writable=True).write(changes.numbers, positions_px)
        self.counters["started_over"], self.counters["reused"] = int(started_over), n_reused
        note_refined(self._scan, STAGE, changes, state, now := self._clock())
        return now

    def finish(self) -> None:
        """Leaves the picture as one file: nothing more will change."""
        self._writer.finish()


class Publication:
    """What one engine leaves of its scan.

    Parameters
    ----------
    setup : Setup
    scan : Scan

    Attributes
    ----------
    at : float
        When a state was published last, monotonic seconds.
    n_updates : int
        Of that state.
    """

    def __init__(self, setup: Setup, scan: Scan) -> None:
        self._setup, self._n_pixels = setup, setup.optics.geometry.n_pixels
        self._record = ObjectRecord(scan, setup.clock)
        self._closes_from = self._record.counters["closing_milli"] / 1000 or float("inf")
        self.at, self.n_updates = float("-inf"), 0

    @property
    def has_started_over(self) -> bool:
        """Whether the object published was started again when all frames were there."""
        return bool(self._record.counters["started_over"])

    def note_closing(self, epoch: float) -> float:
        """Returns the first epoch at which the object was closing: `epoch` unless it was before."""
        self._closes_from = min(self._closes_from, epoch)
        self._record.counters["closing_milli"] = max(1, int(1000 * self._closes_from))
        return self._closes_from

    def note_epoch(self, engine: Refiner) -> None:
        """Note the error at the end of an epoch; it is published with the next state."""
        row = EpochError(engine.epoch, engine.error_history[-1], engine.n_frames, self._setup.clock())
        self._record.error_curve.append(row)

    def write(
        self, engine: Refiner, withheld: np.ndarray, *, is_whole: bool, started_over: bool, n_reused: int
    ) -> None:
        """Publishes what is new, and marks the frames that have taken part in it.

        Parameters
        ----------
        engine : Refiner
        withheld : (tile, 2) int64
            Tiles that are not to be shown.
        is_whole : bool
            Whether all tiles are written, in one gauge.
        started_over, n_reused
            As of `ObjectRecord.write`.
        """
        changes, state = engine.take_changes(), replace(engine.state(), withheld=withheld)
        changes = changes._replace(is_all=changes.is_all or is_whole)
        scale = power_scale(state.probe, engine.mean_photons) if self._setup.scale_probe else 1.0
        state = replace(state, probe=state.probe * np.float32(scale))
        windows = None if changes.is_all else self._windows(engine, changes)
        moves = self._setup.config.refines_positions
        self.at = self._record.write(
            state,
            tile_parts(engine.part, state.bounds, windows, scale),
            changes,
            engine.positions_px(changes.numbers.tolist()) if moves else None,
            started_over=started_over,
            n_reused=n_reused,
        )
        self.n_updates = engine.n_updates

    def finish(self) -> None:
        """Leaves the picture as one file: nothing more will change."""
        self._record.finish()

    def _windows(self, engine: Refiner, changes: Changes) -> tuple[Corners, int]:
        """Return the windows under which the object has changed."""
        margin = _MOST_MOVED_PX if self._setup.config.refines_positions else 0
        corners = window_corners(engine.positions_px(changes.numbers.tolist()))
        return corners - margin, self._n_pixels + 2 * margin
