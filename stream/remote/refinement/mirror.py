"""A scan as a worker on another machine has it: a folder of its own, on which a stage runs as it would there.

It has the frames that were given, in that order, and of each what its stage reads. The stage finds it when
all is there that it begins with.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from operators.engine.config import RefinerSnapshot, RefinerState
from operators.geometry import Bounds
from stream.files.arrays import read_array
from stream.record.error_curve import read_error_curve
from stream.record.forerunner import FOLDER as EARLIER
from stream.record.forerunner import NAME as EARLIER_NAME
from stream.record.forerunner import PROBE as EARLIER_PROBE
from stream.record.probe import publish_probe
from stream.record.scan import PATCH_COLUMNS, Numbers, Scan, State
from stream.record.snapshot import FILE_NAME as SNAPSHOT
from stream.record.snapshot import Index, Layers, read_news, read_snapshot, tile_parts
from stream.remote.files import scan_as_told
from stream.remote.messages import Lend, Role
from stream.stages.refinement.setup import STAGE

_NAME = "0000-mirror"  # what the run calls its scan is no path here


class News(NamedTuple):
    """What the stage has published since it was asked last.

    Attributes
    ----------
    state : RefinerState
    tiles : dict
        By row and column: object and illumination of those that changed.
    numbers : (frame,) int64, ascending
        Frames that have taken part in more updates.
    visits : (frame,) uint32
    positions_px : (frame, 2) float64, or (0, 2) where positions are not refined
    curve : (epoch, 4) float64
        Further epochs: which, error, frames, monotonic seconds.
    counters : dict of str to int
        Of refinement.
    is_last : bool
        Whether the stage has closed the scan: nothing more will come, and all tiles are here.
    """

    state: RefinerState
    tiles: Mapping[Index, Layers]
    numbers: Numbers
    visits: NDArray[np.uint32]
    positions_px: NDArray[np.float64]
    curve: NDArray[np.float64]
    counters: Mapping[str, int]
    is_last: bool


class Mirror:
    """The folder of one scan that is lent.

    Parameters
    ----------
    folder : Path
        Its own; what lay there before is gone.
    lent : Lend
    inputs : sequence of str
        Stages whose frames the stage takes.

    Attributes
    ----------
    scans : Path
        Folder in which the stage finds the scan.
    has_begun : bool
        Whether it can.
    """

    def __init__(self, folder: Path, lent: Lend, inputs: Sequence[str]) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self._folder, self._lent, self._inputs = folder, lent, inputs
        self.scans, self.has_begun = folder / "scans", False
        self.scans.mkdir(parents=True)
        self._scan = scan_as_told(folder / "coming" / _NAME, lent)
        for stage in inputs:  # they may all close a scan in which they have marked nothing
            self._scan.counters(stage, writable=True)
            self._scan.ledger(stage, writable=True)
        subscriber = self._scan.counters(inputs[0], writable=True)
        subscriber["joined"], subscriber["announced"] = lent.joined, lent.announced
        counters = self._scan.counters(STAGE, writable=True)
        counters["started_over"], counters["closing_milli"] = int(lent.started_over), lent.closing_milli
        self._sent_visits = np.zeros(0, np.uint32)  # by frame number
        self._n_curve = self._tiles_at = self._sent_version = 0

    def put(self, file: Role, path: Path) -> None:
        """Leaves a file of the run where the stage looks for it; before the scan has begun."""
        folder = self._scan.folder
        if file == "found_probe":
            publish_probe(self._scan, read_array(path))
        elif file == "snapshot":
            shutil.copyfile(path, folder / SNAPSHOT)
        else:
            earlier = folder / EARLIER
            earlier.mkdir(exist_ok=True)
            (earlier / EARLIER_NAME).write_text(self._lent.earlier, encoding="utf-8")
            shutil.copyfile(path, earlier / (EARLIER_PROBE if file == "earlier_probe" else SNAPSHOT))

    def store(self, column: str, numbers: Numbers, values: NDArray[Any]) -> None:
        """Stores values that came; frames are there for the stage when they are given."""
        shape = values.shape[1:] if column in PATCH_COLUMNS else None
        self._scan.column(column, writable=True, shape=shape).write(numbers, values)

    def give(self, numbers: Numbers) -> None:
        """Has the stage take these frames, of which all is stored."""
        for stage in self._inputs:
            self._scan.mark(stage, numbers, State.DONE)
        counters = self._scan.counters(self._inputs[0], writable=True)
        counters["head"] = max(counters["head"], int(numbers.max()) + 1)

    def begin(self, refined: Numbers) -> None:
        """Has the stage find the scan, in which the frames `refined` have been refined before."""
        if refined.size:
            self._scan.mark(STAGE, refined, State.DONE)
            self._sent_visits = self._scan.column("visits").head(self._scan.n_frames)
        self._scan.close()
        (self._folder / "coming" / _NAME).rename(self.scans / _NAME)
        self._scan, self.has_begun = Scan(self.scans / _NAME), True

    def end(self) -> None:
        """Has the stage know that no more frames will come."""
        for stage in self._inputs:
            counters = self._scan.counters(stage, writable=True)
            counters["ended"] = counters["closed"] = 1

    def news(self) -> News | None:
        """Returns what the stage has published since the last call, None where it has not."""
        scan = self._scan
        is_last = bool(scan.count(STAGE, "closed"))
        version = scan.count(STAGE, "version")
        if (version == self._sent_version and not is_last) or not scan.has("visits"):
            return None
        # Read before the object, which may be newer: what has changed since comes with the next one.
        visits = scan.column("visits").head(scan.n_frames)
        before = np.pad(self._sent_visits, (0, len(visits) - len(self._sent_visits)))
        numbers = np.flatnonzero(visits != before)
        found = read_news(scan.folder, self._tiles_at)
        if found is not None:
            state, tiles, self._tiles_at = found.state, found.tiles, found.version
        elif (snapshot := read_snapshot(scan.folder)) is not None:  # it has become one file
            state, tiles = snapshot, dict(tile_parts(_part_of(snapshot), snapshot.bounds, None, 1.0))
        else:
            return None
        rows = read_error_curve(scan.folder)[self._n_curve :]
        self._n_curve += len(rows)
        self._sent_visits, self._sent_version = visits, version
        moves = scan.has("refined_px")
        return News(
            state=state,
            tiles=tiles,
            numbers=numbers,
            visits=visits[numbers],
            positions_px=scan.column("refined_px").read(numbers) if moves else np.zeros((0, 2)),
            curve=np.array([tuple(row) for row in rows.tolist()], np.float64).reshape(-1, 4),
            counters=scan.counters(STAGE).as_dict(),
            is_last=is_last,
        )

    def close(self) -> None:
        """Leaves the scan; nothing of it stays."""
        self._scan.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _part_of(snapshot: RefinerSnapshot) -> Callable[[Bounds], Layers]:
    """Return what gives object and illumination on some bounds, new ground where there is none."""

    def part(bounds: Bounds) -> Layers:
        object_, lit = np.ones(bounds.shape, np.complex64), np.zeros(bounds.shape, np.float32)
        if (shared := bounds.intersection(snapshot.bounds)) is not None:
            here, there = shared.slices_in(bounds), shared.slices_in(snapshot.bounds)
            object_[here], lit[here] = snapshot.object[there], snapshot.illumination[there]
        return object_, lit

    return part
