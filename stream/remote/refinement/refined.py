"""What a worker on another machine has made of a scan's object: checked, then written as it would be here."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.arrays import abs2
from operators.engine.config import Changes, RefinerState
from operators.engine.gate import tile_side
from operators.geometry import Bounds, Geometry, window_corners
from stream.record.error_curve import EpochError
from stream.record.scan import Numbers, Scan
from stream.record.snapshot import TILE_PX, Index, Layers, read_state
from stream.remote.asking import Arrays
from stream.remote.messages import Refined, Tiles
from stream.stages.inputs import read_positions_px
from stream.stages.refinement.publication import ObjectRecord
from stream.wire.foreign import in_short

MOST_MODES = 64

Layout = tuple[str, str, tuple[int | None, ...]]  # name, dtype, shape: None where any length will do


class RefinedElsewhere:
    """The object of one scan as it comes back: no larger than the ground that was given to be refined.

    Parameters
    ----------
    scan : Scan
    geometry : Geometry
    moves : bool
        Whether positions are refined.
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, scan: Scan, geometry: Geometry, *, moves: bool, clock: Callable[[], float]) -> None:
        self._scan, self._geometry, self._moves, self._clock = scan, geometry, moves, clock
        self._n_pixels = geometry.n_pixels
        state = read_state(scan.folder)
        self._ground = None if state is None else state.bounds
        self._is_given = np.zeros(0, bool)  # by frame number
        self._record: ObjectRecord | None = None
        self._tiles: dict[Index, Layers] = {}
        self._ready: list[tuple[Refined, Arrays, dict[Index, Layers], float]] = []
        self._version = 0

    def expect(self, numbers: Numbers) -> None:
        """Takes note of frames that are given to be refined, and of their ground."""
        if not numbers.size:
            return
        corners = window_corners(read_positions_px(self._scan, self._geometry, numbers))
        windows = Bounds.of_windows(corners, self._n_pixels)
        self._ground = windows if self._ground is None else self._ground.union(windows)
        if (n_more := int(numbers.max()) + 1 - len(self._is_given)) > 0:
            self._is_given = np.pad(self._is_given, (0, n_more + len(self._is_given)))
        self._is_given[numbers] = True

    def begin(self) -> None:
        """Expects the states of another worker, from the first version on."""
        self._tiles, self._version = {}, 0
        self._record = None  # it goes on from what is written by then

    def take_tiles(self, tiles: Tiles, arrays: Arrays) -> None:
        """Takes tiles of the next state.

        Raises
        ------
        ValueError
            If they are none, or lie beyond the ground.
        """
        if tiles.version <= self._version:  # asked again
            return
        side = (None, TILE_PX, TILE_PX)
        layout: tuple[Layout, ...] = (
            ("index", "<i8", (None, 2)),
            ("object", "<c8", side),
            ("illumination", "<f4", side),
        )
        index, object_, illumination = self._checked("tiles", arrays, layout)
        if not len(index) == len(object_) == len(illumination):
            raise ValueError(f"tiles of {self._scan.name} came as {len(index)} and {len(object_)}")
        self._check_within("tiles", index, TILE_PX)
        if not (np.isfinite(object_).all() and np.isfinite(illumination).all()):
            raise ValueError(f"tiles of {self._scan.name} came with values that are not finite")
        for which, tile, lit in zip(index.tolist(), object_, illumination, strict=True):
            self._tiles[which[0], which[1]] = tile, lit

    def take(self, refined: Refined, arrays: Arrays) -> None:
        """Takes a state; it is written by the next `write`.

        Raises
        ------
        ValueError
            If it cannot be one of the frames that were given.
        """
        if refined.version <= self._version:
            return
        if len(self._tiles) != refined.n_tiles:
            raise ValueError(f"{refined.n_tiles} tiles were sent, {len(self._tiles)} are here")
        n, n_visited = self._n_pixels, arrays[3].size if len(arrays) > 3 else 0
        layout: tuple[Layout, ...] = (
            ("probe", "<c8", (None, n, n)),
            ("error history", "<f8", (None,)),
            ("withheld tiles", "<i8", (None, 2)),
            ("frames", "<i8", (None,)),
            ("visits", "<u4", (n_visited,)),
            ("positions", "<f8", (n_visited if self._moves else 0, 2)),
            ("error curve", "<f8", (None, 4)),
        )
        self._check(refined, self._checked("a state", arrays, layout))
        self._ready.append((refined, arrays, self._tiles, self._clock()))
        self._tiles, self._version = {}, refined.version

    def write(self) -> None:
        """Writes what has been taken.

        Raises
        ------
        DiskFullError
            If there is no room.
        """
        ready, self._ready = self._ready, []
        for refined, arrays, tiles, came_at in ready:
            self._write(refined, arrays, tiles, came_at)

    def finish(self) -> None:
        """Leaves the picture as one file: nothing more will change."""
        self.write()
        self._opened().finish()

    def _opened(self) -> ObjectRecord:
        self._record = self._record or ObjectRecord(self._scan, self._clock)
        return self._record

    def _write(self, refined: Refined, arrays: Arrays, tiles: dict[Index, Layers], came_at: float) -> None:
        probe, history, withheld, numbers, visits, positions_px, curve = arrays
        record, visits = self._opened(), visits.astype(np.int64)
        record.error_curve += [
            EpochError(epoch, error, int(n), came_at - age_s) for epoch, error, n, age_s in curve.tolist()
        ]
        record.counters["closing_milli"] = refined.closing_milli
        state = RefinerState(
            bounds=Bounds(*refined.bounds),
            probe=probe,
            n_frames=refined.n_frames,
            n_updates=refined.n_updates,
            error=refined.error,
            error_history=tuple(history.tolist()),
            n_divergences=refined.n_divergences,
            withheld=withheld,
        )
        record.write(
            state,
            tiles.items(),
            Changes(numbers, visits, refined.is_last),
            positions_px if self._moves else None,
            started_over=refined.started_over,
            n_reused=refined.n_reused,
        )

    def _check(self, refined: Refined, arrays: Arrays) -> None:
        probe, history, withheld, numbers, _, positions_px, curve = arrays
        power, name = float(abs2(probe).sum(dtype=np.float64)), self._scan.name
        if not 0 < power < math.inf or len(probe) > MOST_MODES:
            raise ValueError(f"the probe of {name} came with {len(probe)} modes and a power of {power:g}")
        if not all(np.isfinite(it).all() for it in (history, positions_px, curve)):
            raise ValueError(f"a state of {name} came with values that are not finite")
        n_given = int(np.count_nonzero(self._is_given))
        is_known = (numbers >= 0) & (numbers < len(self._is_given))
        is_known[is_known] = self._is_given[numbers[is_known]]
        if not is_known.all() or len(np.unique(numbers)) != len(numbers):
            raise ValueError(f"frames of {name} came back that were not given, or twice")
        if not 1 <= refined.n_frames <= n_given:
            raise ValueError(f"a state of {refined.n_frames} frames of {name}: {n_given} were given")
        ground = self._widest()
        if not ground.contains(Bounds(*refined.bounds)):
            raise ValueError(f"an object of {name} on {refined.bounds}, its frames lie on {ground}")
        self._check_within("withheld tiles", withheld, tile_side(self._n_pixels))
        if len(positions_px) and not ground.contains(
            Bounds.of_windows(window_corners(positions_px), self._n_pixels)
        ):
            raise ValueError(f"positions of {name} were refined to beyond {ground}")

    def _checked(self, what: str, arrays: Arrays, layout: tuple[Layout, ...]) -> Arrays:
        if len(arrays) != len(layout):
            raise ValueError(f"{what} has {len(layout)} buffers, got {len(arrays)}")
        for array, (name, dtype, shape) in zip(arrays, layout, strict=True):
            is_of_shape = len(array.shape) == len(shape) and all(
                wanted in (None, n) for n, wanted in zip(array.shape, shape, strict=True)
            )
            if array.dtype.str != dtype or not is_of_shape:
                came = in_short((array.dtype.str, array.shape))
                raise ValueError(f"{name} of {self._scan.name} came as {came}, wanted {(dtype, shape)}")
        return arrays

    def _check_within(self, what: str, index: NDArray[Any], side: int) -> None:
        """Raise ValueError unless each tile shares a pixel with the ground: nothing is larger."""
        ground = self._widest()
        first = np.array([ground.top, ground.left]) // side
        last = (np.array([ground.bottom, ground.right]) - 1) // side
        if ((index < first) | (index > last)).any():
            raise ValueError(f"{what} of {self._scan.name} lie beyond its frames, which are on {ground}")

    def _widest(self) -> Bounds:
        if self._ground is None:
            raise ValueError(f"no frame of {self._scan.name} was given")
        # A position that is refined moves by a few pixels.
        return self._ground.padded(self._n_pixels) if self._moves else self._ground
