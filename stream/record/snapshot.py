"""The refined object beside the columns: written by refinement, read by stitcher, recorder and page.

While a scan is refined it lies in tiles, of which only those that changed are written and read; when it is
done one file takes their place.

    SCANS/0000-<name>/refined/tiles.bin    slots of one tile each: object, then illumination
                      refined/state.npz    all else, and which slot holds which tile since which version
                      refined.npz          when the scan is done: all in one

A tile that changed goes into a slot that the newest state does not name, and then the state is replaced in
one step: a writer that is killed in between leaves the old one. A slot that was given up is used again two
versions later, so whoever has read tiles, and finds the state at most one version newer, has read those that
it named.
"""

import contextlib
import io
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from operators.arrays import Corners
from operators.engine.config import Changes, RefinerSnapshot, RefinerState
from operators.geometry import Bounds
from stream.atomic import full_disk_named, write_atomically, written_atomically
from stream.record.scan import Scan, State

FILE_NAME, FOLDER = "refined.npz", "refined"
TILE_PX = 64
KEPT_VERSIONS = 2
STATE, _TILES = "state.npz", "tiles.bin"
_LAYERS = (np.dtype("<c8"), np.dtype("<f4"))  # object, illumination
_SLOT_BYTES = TILE_PX**2 * sum(dtype.itemsize for dtype in _LAYERS)
_SLOTS_AT_ONCE, _MOST_TRIES = 32, 20

_T = TypeVar("_T")
Index = tuple[int, int]
Layers = tuple[NDArray[Any], NDArray[Any]]
ChangedTile = tuple[Index, Layers]


class SnapshotMovedError(RuntimeError):
    """Tiles were replaced while they were read, again and again."""


@dataclass(frozen=True, slots=True)
class SnapshotNews:
    """What is newer than a version.

    Attributes
    ----------
    version : int
    state : RefinerState
    tiles : dict
        By row and column: object (y, x) complex64 and illumination (y, x) float32 of those that changed.
    n_tiles : int
        That there are.
    """

    version: int
    state: RefinerState
    tiles: dict[Index, Layers]
    n_tiles: int

    def snapshot(self) -> RefinerSnapshot:
        """Returns the snapshot of all tiles, if all are here."""
        return _assembled(self.state, self.tiles.items())


def tile_bounds(index: Index) -> Bounds:
    """Returns the absolute object pixels of a tile."""
    top, left = index[0] * TILE_PX, index[1] * TILE_PX
    return Bounds(top, left, top + TILE_PX, left + TILE_PX)


def tiles_on(bounds: Bounds) -> list[Index]:
    """Returns the tiles that share a pixel with `bounds`."""
    rows = range(bounds.top // TILE_PX, -(-bounds.bottom // TILE_PX))
    columns = range(bounds.left // TILE_PX, -(-bounds.right // TILE_PX))
    return [(row, column) for row in rows for column in columns]


def tiles_under(corners: Corners, n_pixels: int) -> list[Index]:
    """Returns the tiles that share a pixel with windows of `n_pixels` at `corners`, (frame, 2)."""
    first, last = corners // TILE_PX, (corners + n_pixels - 1) // TILE_PX
    offsets = np.ndindex(*(-(-n_pixels // TILE_PX) + 1,) * 2)
    found = [(tiles := first + offset)[(tiles <= last).all(axis=1)] for offset in offsets]
    return [(row, column) for row, column in np.unique(np.concatenate(found), axis=0).tolist()]


def tile_parts(
    part: Callable[[Bounds], Layers], bounds: Bounds, windows: tuple[Corners, int] | None, scale: float
) -> Iterator[ChangedTile]:
    """Yields the tiles under `windows`, corners and side, or all on `bounds`, as `SnapshotWriter` takes them.

    `part` returns object and illumination on some bounds; the object is divided by `scale`.
    """
    for index in tiles_on(bounds) if windows is None else tiles_under(*windows):
        object_, illumination = part(tile_bounds(index))
        yield index, (object_ / np.float32(scale), illumination)


class SnapshotWriter:
    """The one writer of a scan's refined object; goes on from what an earlier process left.

    Parameters
    ----------
    folder : Path
        Of the scan.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        table = _read_table(self._folder) or _Table(0, {}, {})
        self._version, self._slots, self._versions = table.version, dict(table.slots), dict(table.versions)
        self._n_slots = max(self._slots.values(), default=-1) + 1
        left = set(range(self._n_slots)) - set(self._slots.values())
        self._given_up = [(self._version, slot) for slot in left]  # somebody may be reading them
        self._free: list[int] = []

    def write(self, state: RefinerState, tiles: Iterable[ChangedTile]) -> None:
        """Publishes `state` with the `tiles` that changed.

        Raises
        ------
        DiskFullError
            If there is no room; what was published stays.
        """
        self._folder.mkdir(exist_ok=True)
        version, slots, versions = self._version + 1, dict(self._slots), dict(self._versions)
        self._free += [slot for at, slot in self._given_up if at <= version - KEPT_VERSIONS]
        self._given_up = [(at, slot) for at, slot in self._given_up if at > version - KEPT_VERSIONS]
        path = self._folder / _TILES
        with path.open("r+b" if path.exists() else "w+b", buffering=0) as file:
            for index, layers in tiles:
                if not self._free:
                    self._make_slots(file)
                slot = self._free.pop()
                data = b"".join(
                    layer.astype(dtype).tobytes() for layer, dtype in zip(layers, _LAYERS, strict=True)
                )
                os.pwrite(file.fileno(), data, slot * _SLOT_BYTES)
                if index in slots:
                    self._given_up.append((version, slots[index]))
                slots[index], versions[index] = slot, version
        table = _Table(version, slots, versions)
        content = io.BytesIO()
        _pack(content, state, **table.arrays())
        write_atomically(self._folder / STATE, content.getvalue())
        self._version, self._slots, self._versions = version, slots, versions

    def finish(self) -> None:
        """Leaves what is published as one file, in place of the tiles: nothing more will change."""
        snapshot = _read_tiles(self._folder.parent, _whole)
        if snapshot is not None:
            write_snapshot(self._folder.parent, snapshot)

    def _make_slots(self, file: FileIO) -> None:
        first, self._n_slots = self._n_slots, self._n_slots + _SLOTS_AT_ONCE
        with full_disk_named("tiles of the refined object", self._folder):
            os.posix_fallocate(file.fileno(), first * _SLOT_BYTES, _SLOTS_AT_ONCE * _SLOT_BYTES)
        self._free += range(first, self._n_slots)


def write_snapshot(folder: Path, snapshot: RefinerSnapshot) -> None:
    """Leaves the refined object in the scan's `folder` as one file, in place of what is there."""
    with written_atomically(folder / FILE_NAME) as file:
        _pack(file, snapshot, object=snapshot.object, illumination=snapshot.illumination)
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def read_snapshot(folder: Path) -> RefinerSnapshot | None:
    """Returns the newest snapshot in the scan's `folder`, None if refinement has not published yet."""
    snapshot = _read_tiles(folder, _whole)
    if snapshot is not None:
        return snapshot
    try:
        with np.load(folder / FILE_NAME, allow_pickle=False) as file:
            return _state(file).with_object(file["object"], file["illumination"])
    except FileNotFoundError:
        return None


def read_news(folder: Path, after: int = 0) -> SnapshotNews | None:
    """Returns the state with the tiles that are newer than version `after`; None where there are no tiles.

    Raises
    ------
    SnapshotMovedError
        If they were written faster than they could be read, again and again.
    """

    def news(state: RefinerState, table: _Table, file: FileIO) -> SnapshotNews:
        changed = {index: slot for index, slot in table.slots.items() if table.versions[index] > after}
        found = {index: _read_slot(file, slot) for index, slot in changed.items()}
        return SnapshotNews(table.version, state, found, len(table.slots))

    return _read_tiles(folder, news)


def note_refined(scan: Scan, stage: str, changes: Changes, state: RefinerState, now: float) -> None:
    """Notes in the columns, ledger and counters of `stage` what has just been written, at the time `now`."""
    numbers, n_visits, _ = changes
    scan.column("visits", writable=True).write(numbers, n_visits)
    counters = scan.counters(stage, writable=True)
    counters["version"] = counters["version"] + 1
    counters["epochs_milli"] = int(1000 * state.epoch)
    counters["divergences"] = state.n_divergences
    visited = numbers[n_visits > 0]
    first = visited[scan.states(stage, visited) == State.PENDING]
    scan.column("refined_s", writable=True).write(first, now)
    scan.mark(stage, first, State.DONE)


def read_state(folder: Path) -> RefinerState | None:
    """Returns the newest snapshot without its object, which may be large; None if there is none."""
    for path in _state_files(folder):
        with contextlib.suppress(FileNotFoundError), np.load(path, allow_pickle=False) as file:
            return _state(file)
    return None


def read_error(folder: Path) -> float:
    """Returns the error of the newest snapshot, NaN if there is none."""
    for path in _state_files(folder):
        with contextlib.suppress(FileNotFoundError), np.load(path, allow_pickle=False) as file:
            return float(file["error"])
    return float("nan")


def written_at(folder: Path) -> float | None:
    """Returns when the refined object in the scan's `folder` was written last, Unix time; None if never."""
    for path in _state_files(folder):
        with contextlib.suppress(FileNotFoundError):
            return path.stat().st_mtime
    return None


def _state_files(folder: Path) -> tuple[Path, Path]:
    """Return where the state lies while tiles are written, and once they have become one file."""
    return folder / FOLDER / STATE, folder / FILE_NAME


class _Table(NamedTuple):
    """Which slot holds which tile, and since which version."""

    version: int
    slots: dict[Index, int]
    versions: dict[Index, int]

    def arrays(self) -> dict[str, Any]:
        rows = [(*index, slot, self.versions[index]) for index, slot in self.slots.items()]
        return {"version": self.version, "tiles": np.array(rows, np.int64).reshape(-1, 4)}

    @classmethod
    def of(cls, file: Mapping[str, Any]) -> "_Table":
        rows = file["tiles"].tolist()
        slots = {(row, column): slot for row, column, slot, _ in rows}
        return cls(int(file["version"]), slots, {(row, column): at for row, column, _, at in rows})


def _read_table(folder: Path) -> _Table | None:
    if not (folder / _TILES).exists():
        return None
    try:
        with np.load(folder / STATE, allow_pickle=False) as file:
            return _Table.of(file)
    except FileNotFoundError:
        return None


def _read_tiles(folder: Path, read: Callable[[RefinerState, _Table, FileIO], _T]) -> _T | None:
    """Return what `read` makes of a state and its file of tiles, none of them replaced meanwhile."""
    for _ in range(_MOST_TRIES):
        try:
            with np.load(folder / FOLDER / STATE, allow_pickle=False) as file:
                table, state = _Table.of(file), _state(file)
            with (folder / FOLDER / _TILES).open("rb", buffering=0) as tiles:
                found = read(state, table, tiles)
            with np.load(folder / FOLDER / STATE, allow_pickle=False) as file:
                newest = int(file["version"])
        except FileNotFoundError:  # none yet, or they have become one file
            return None
        if newest < table.version + KEPT_VERSIONS:
            return found
    raise SnapshotMovedError(f"{folder / FOLDER} was written faster than it could be read")


def _whole(state: RefinerState, table: _Table, file: FileIO) -> RefinerSnapshot:
    return _assembled(state, ((index, _read_slot(file, slot)) for index, slot in table.slots.items()))


def _assembled(state: RefinerState, tiles: Iterable[ChangedTile]) -> RefinerSnapshot:
    object_, illumination = (
        np.ones(state.bounds.shape, np.complex64),
        np.zeros(state.bounds.shape, np.float32),
    )
    for index, (tile, lit) in tiles:
        if (shared := tile_bounds(index).intersection(state.bounds)) is not None:
            here, there = shared.slices_in(state.bounds), shared.slices_in(tile_bounds(index))
            object_[here], illumination[here] = tile[there], lit[there]
    return state.with_object(object_, illumination)


def _read_slot(file: FileIO, slot: int) -> Layers:
    data, n_pixels, layers = os.pread(file.fileno(), _SLOT_BYTES, slot * _SLOT_BYTES), TILE_PX**2, []
    offset = 0
    for dtype in _LAYERS:
        layers.append(np.frombuffer(data, dtype, n_pixels, offset).reshape(TILE_PX, TILE_PX))
        offset += n_pixels * dtype.itemsize
    return layers[0], layers[1]


def _pack(file: BinaryIO, state: RefinerState, **arrays: Any) -> None:
    bounds = state.bounds
    np.savez(
        file,
        probe=state.probe,
        bounds=np.array([bounds.top, bounds.left, bounds.bottom, bounds.right]),
        error_history=np.asarray(state.error_history, np.float64),
        n_frames=state.n_frames,
        n_updates=state.n_updates,
        error=state.error,
        n_divergences=state.n_divergences,
        withheld=state.withheld,
        **arrays,
    )


def _state(file: Mapping[str, Any]) -> RefinerState:
    return RefinerState(
        probe=file["probe"],
        bounds=Bounds(*(int(edge) for edge in file["bounds"])),
        error_history=tuple(float(error) for error in file["error_history"]),
        n_frames=int(file["n_frames"]),
        n_updates=int(file["n_updates"]),
        error=float(file["error"]),
        n_divergences=int(file["n_divergences"]),
        withheld=file["withheld"] if "withheld" in file else np.zeros((0, 2), np.int64),
    )
