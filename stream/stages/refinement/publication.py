"""What of one scan's object others can read, and refinement itself after a restart."""

from dataclasses import replace

import numpy as np

from operators.arrays import Corners
from operators.engine.config import Changes
from operators.engine.refiner import Refiner
from operators.geometry import window_corners
from operators.optics.probe import power_scale
from stream.record.error_curve import EpochError, read_error_curve, write_error_curve
from stream.record.scan import Scan
from stream.record.snapshot import SnapshotWriter, note_refined, tile_parts
from stream.stages.refinement.setup import STAGE, Setup

_MOST_MOVED_PX = 8  # between two states that are published, where positions are refined


class Publication:
    """Picture, error curve, columns and counters of one scan; goes on from what an earlier process left.

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
        self._setup, self._scan, self._n_pixels = setup, scan, setup.optics.geometry.n_pixels
        self._writer = SnapshotWriter(scan.folder)
        for name in ("refined_s", "visits"):  # which a scan may lack that an earlier version began
            scan.column(name, writable=True)
        self._counters = scan.counters(STAGE, writable=True)
        self._error_curve = [EpochError(*row) for row in read_error_curve(scan.folder).tolist()]
        self._closes_from = self._counters["closing_milli"] / 1000 or float("inf")
        self.at, self.n_updates = float("-inf"), 0

    @property
    def has_started_over(self) -> bool:
        """Whether the object published was started again when all frames were there."""
        return bool(self._counters["started_over"])

    def note_closing(self, epoch: float) -> float:
        """Returns the first epoch at which the object was closing: `epoch` unless it was before."""
        self._closes_from = min(self._closes_from, epoch)
        self._counters["closing_milli"] = max(1, int(1000 * self._closes_from))
        return self._closes_from

    def note_epoch(self, engine: Refiner) -> None:
        """Note the error at the end of an epoch; it is published with the next state."""
        row = EpochError(engine.epoch, engine.error_history[-1], engine.n_frames, self._setup.clock())
        self._error_curve.append(row)

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
        started_over : bool
            Whether the object is one that was started again.
        n_reused : int
            Frames that started from the object of an earlier scan.
        """
        changes, state = engine.take_changes(), replace(engine.state(), withheld=withheld)
        changes = changes._replace(is_all=changes.is_all or is_whole)
        scale = power_scale(state.probe, engine.mean_photons) if self._setup.scale_probe else 1.0
        state = replace(state, probe=state.probe * np.float32(scale))
        windows = None if changes.is_all else self._windows(engine, changes)
        self._writer.write(state, tile_parts(engine.part, state.bounds, windows, scale))
        self.at, self.n_updates = self._setup.clock(), engine.n_updates
        write_error_curve(self._scan.folder, self._error_curve)
        if self._setup.config.refines_positions:
            positions_px = engine.positions_px(changes.numbers.tolist())
            self._scan.column("refined_px", writable=True).write(changes.numbers, positions_px)
        self._counters["started_over"], self._counters["reused"] = int(started_over), n_reused
        note_refined(self._scan, STAGE, changes, state, self.at)

    def finish(self) -> None:
        """Leaves the picture as one file: nothing more will change."""
        self._writer.finish()

    def _windows(self, engine: Refiner, changes: Changes) -> tuple[Corners, int]:
        """Return the windows under which the object has changed."""
        margin = _MOST_MOVED_PX if self._setup.config.refines_positions else 0
        corners = window_corners(engine.positions_px(changes.numbers.tolist()))
        return corners - margin, self._n_pixels + 2 * margin
