"""The scan: columns addressed by frame number, and a ledger with one byte per stage and frame.

Everything a stage knows about a frame is here, so a stage that dies restarts by looking, frame and position
meet by number, and a scan directory is a complete record. Every stage opens the same directory; each frame
of a column or ledger has one writer.

    SCANS/0000-<name>/scan.json            what the detector announced
                      columns/<name>/      values per frame (stream.record.columns)
                      ledger/<stage>/      one byte per frame: a `State`
                      counters/<writer>    a few numbers per writer: head, ended, closed, duplicates ...
"""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.atomic import write_atomically
from stream.record.columns import Column, check_item, fence, mapped, read_description

Numbers = NDArray[np.int64]

COLUMNS: dict[str, tuple[str, tuple[int, ...] | None]] = {
    # name: dtype, shape per frame; None stands for the shape the scan announces
    "frames": ("", None),
    "exposed_s": ("<f8", ()),  # end of the exposure on the detector's clock, from the start of the series
    "received_s": ("<f8", ()),  # monotonic clock of this machine
    "told": ("<f8", (4,)),  # what the detector's message says: y, x, whether at rest; and whether it says so
    "positions_m": ("<f8", (2,)),
    "spread_m": ("<f8", (2,)),  # standard deviation of a frame's captures; where it has several
    "travel_m": ("<f8", (2,)),  # of the probe from the first of them to the last
    "flux": ("<f8", ()),  # of the beam during the frame, by a monitor, relative to its reference
    "placed_s": ("<f8", ()),  # when the position was stored, as `received_s`
    "moments": ("<f4", (4,)),  # of the pattern: photons, centroid (y, x), width (operators.optics.moments)
    "inferred_s": ("<f8", ()),
    "model": ("<u8", ()),  # which weights made the patch
    "worker": ("|u1", ()),  # which of several processes of inference made it, from 1 on
    "mosaicked_s": ("<f8", ()),  # when an image with this frame's patch was published
    "refined_s": ("<f8", ()),
    "refined_px": ("<f8", (2,)),  # where refinement has moved the frame's window to: top-left, object pixels
    "visits": ("<u4", ()),  # updates of the newest published object that the frame took part in
}
PATCH_COLUMNS = {"patches": "<c8", "sigma": "<f2"}
COUNTERS = (
    "head",  # largest frame number seen + 1
    "announced",  # frames the detector promised, -1 unknown
    "ended",  # no more input will come
    "closed",  # this writer is done with the scan
    "duplicates",
    "conflicts",  # duplicates with another value: the first stays
    "rejected",  # input that could not be understood
    "late",  # arrived after the end
    "version",
    "epochs_milli",
    "divergences",
    "wanted",  # frames that a search needs
    "step",  # of a search, 0 before it begins
    "steps",
    "handed_over",  # the finisher does what this writer has left to do
    "started_over",  # the published object was started again when all frames were there
    "reused",  # frames that start from the object of an earlier scan
    "joined",  # first frame of a series whose start was missed: those before were never received
    "closing_milli",  # thousandths of the epoch from which the closing of the object counts, at least 1
)
INGESTS = "subscriber", "subscriber-2"
"""The processes that may take the frames of one detector. All but frames is written by the first alone."""

COUNTERS_BYTES, _INDEX = 512, {name: index for index, name in enumerate(COUNTERS)}
SETTLED_S = 1.0  # longer than a tick of any file system's clock
FEW, PAUSE_S = 500, 1e-5  # names that are listed at any time; a pause after more, for each ten times the work
FINISHED = "finished"  # beside the folder of scans


class State(IntEnum):
    """What a stage has done with a frame; everything above DONE is a reason why it did nothing."""

    PENDING = 0
    DONE = 1
    LOST = 2  # never arrived
    BAD = 3  # arrived and could not be used
    NO_POSITION = 4
    NO_ROOM = 5  # the disk was full
    UNFINISHED = 6  # the stage was stopped before it came to this frame
    SETTLING = 7  # the probe was not at rest yet, as the configuration or the beamline says


class ScanHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What is known when a series starts.

    Attributes
    ----------
    series_id, series_uid
        The detector's own names of the series.
    frame_shape, frame_dtype
        Of the frames as sent.
    started_s : float
        Wall clock, for people; nothing is computed from it.
    run_id, config_hash
        Which run of which configuration recorded it.
    energy_ev : float
        Of the photons as the detector announced it, 0 where it did not.
    stages : tuple of str
        Which that run has, () in a scan of an earlier version.
    n_subscribers : int
        How many processes may store frames: each frame has one writer, and each of them a counter `head`.
    """

    series_id: int
    series_uid: str
    frame_shape: tuple[int, int]
    frame_dtype: str
    started_s: float
    run_id: str = ""
    config_hash: str = ""
    energy_ev: float = 0.0
    stages: tuple[str, ...] = ()
    n_subscribers: Annotated[int, msgspec.Meta(ge=1, le=len(INGESTS))] = 1

    def __post_init__(self) -> None:
        check_item(self.frame_dtype, self.frame_shape)
        if min(self.frame_shape) < 1:
            raise ValueError(f"frames of shape {self.frame_shape}: wanted rows and columns")


class Counters:
    """A few named integers of one writer that other processes can read at any time."""

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        self.is_writable, self._path = writable, path
        if writable and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, bytes(COUNTERS_BYTES))
        self._mapped: NDArray[np.int64] | None = mapped(path, "<i8", writable=writable)

    @property
    def _values(self) -> NDArray[np.int64]:
        if self._mapped is None:
            self._mapped = mapped(self._path, "<i8", writable=self.is_writable)
        return self._mapped

    def __getitem__(self, name: str) -> int:
        return int(self._values[_INDEX[name]])

    def __setitem__(self, name: str, value: int) -> None:
        fence()
        self._values[_INDEX[name]] = value

    def close(self) -> None:
        """Lets go of the file; whoever asks again opens it anew."""
        self._mapped = None

    def as_dict(self) -> dict[str, int]:
        """Returns all counters by name."""
        return {name: self[name] for name in COUNTERS}


class Scan:
    """One series of frames and all that became of it.

    Raises
    ------
    FileNotFoundError
        If there is no scan in `folder`.
    DamagedScanError
        If its header cannot be one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        self.header = read_description(folder / "scan.json", ScanHeader)
        self._open: dict[str, Column] = {}
        self._counters: dict[str, Counters] = {}

    @classmethod
    def create(cls, folder: Path, header: ScanHeader, reserve: int = 0) -> "Scan":
        """Returns a new scan in `folder` with room for `reserve` frames; it appears to others all at once.

        Raises
        ------
        DiskFullError
            If the announced frames do not fit: better known now than in the middle of the scan. What was
            allocated is given back.
        FileExistsError
            If there is a scan already.
        """
        if (folder / "scan.json").exists():
            raise FileExistsError(f"{folder} holds a scan already: open it with Scan(folder)")
        try:
            frames = Column.create(folder / "columns" / "frames", header.frame_dtype, header.frame_shape)
            frames.reserve(reserve)
            write_atomically(folder / "scan.json", msgspec.json.encode(header))
        except OSError:
            # Half of the room for a scan that is not there would keep the disk full.
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return cls(folder)

    def column(self, name: str, *, writable: bool = False, shape: Sequence[int] | None = None) -> Column:
        """Returns the column `name`; its one writer asks for it `writable` and creates it.

        Raises
        ------
        FileNotFoundError
            If its writer has not created it yet.
        """
        column = self._cached(f"columns/{name}", writable, *self._layout(name, shape))
        if writable:
            column.first_frame = self.count("subscriber", "joined")
        return column

    def ledger(self, stage: str, *, writable: bool = False) -> Column:
        """Returns the ledger of `stage`: a `State` per frame."""
        return self._cached(f"ledger/{stage}", writable, "|u1", ())

    def counters(self, writer: str, *, writable: bool = False) -> Counters:
        """Returns the counters of `writer`; only that writer asks for them `writable`."""
        if writer not in self._counters or (writable and not self._counters[writer].is_writable):
            self._counters[writer] = Counters(self.folder / "counters" / writer, writable=writable)
        return self._counters[writer]

    def close(self) -> None:
        """Lets go of all files of the scan; whoever asks for something again opens it anew."""
        for column in self._open.values():
            column.close()
        for counters in self._counters.values():
            counters.close()

    def has(self, column: str) -> bool:
        """Says whether somebody has begun to write `column`."""
        return (self.folder / "columns" / column / "column.json").exists()

    def has_stage(self, stage: str) -> bool:
        """Says whether the run that recorded the scan has `stage`; in older scans, whether that has begun."""
        stages = self.header.stages
        return stage in stages if stages else (self.folder / "counters" / stage).exists()

    @property
    def n_frames(self) -> int:
        """Frames that exist or should exist: one more than the largest number known."""
        return max(self.count(ingest, "head") for ingest in INGESTS[: self.header.n_subscribers])

    def count(self, writer: str, counter: str) -> int:
        """Returns one counter of `writer`, zero where the writer has not begun."""
        try:
            value = self.counters(writer)[counter]
        except FileNotFoundError:
            return 0
        fence()  # what is read after a counter is at least as new
        return value

    def states(self, stage: str, numbers: Numbers | None = None) -> NDArray[np.uint8]:
        """Returns (frame,) uint8, the `State` of the frames `numbers`, or of every frame, for `stage`."""
        n_frames = self.n_frames if numbers is None else len(numbers)
        try:
            ledger = self.ledger(stage)
        except FileNotFoundError:
            return np.zeros(n_frames, np.uint8)
        states = ledger.head(n_frames) if numbers is None else ledger.read(numbers)
        fence()  # values read after a byte are at least as new
        return states

    def done(self, stage: str) -> Numbers:
        """Returns the numbers of the frames that `stage` is done with, ascending."""
        return np.flatnonzero(self.states(stage) == State.DONE)

    def positions_m(self, numbers: Numbers) -> NDArray[np.float64]:
        """Returns (frame, 2) float64, metres, (y, x): where the probe was; NaN where that is not known."""
        positions_m = np.full((len(numbers), 2), np.nan)
        is_known = self.states("positions", numbers) == State.DONE
        if is_known.any():
            positions_m[is_known] = self.column("positions_m").read(numbers[is_known])
        return positions_m

    def mark(self, stage: str, numbers: Any, state: State) -> None:
        """Writes the byte of `stage` for frames whose column values are already stored."""
        fence()
        self.ledger(stage, writable=True).write(numbers, int(state))

    def _layout(self, name: str, shape: Sequence[int] | None) -> tuple[str, Sequence[int]]:
        if name in PATCH_COLUMNS:
            return PATCH_COLUMNS[name], tuple(shape or ())
        dtype, item_shape = COLUMNS[name]
        if item_shape is None:
            return self.header.frame_dtype, self.header.frame_shape
        return dtype, item_shape

    def _cached(self, key: str, writable: bool, dtype: str, shape: Sequence[int]) -> Column:
        if key not in self._open or (writable and not self._open[key].is_writable):
            folder = self.folder / key
            self._open[key] = Column.create(folder, dtype, shape) if writable else Column(folder)
        return self._open[key]


class NewScans:
    """The scans of a folder as they begin; a look at one in which nothing was made costs next to nothing.

    Stages look at every turn, and a folder may hold thousands; those noted as finished are left out.

    Parameters
    ----------
    folder : Path
    clock : callable
        Wall clock, seconds, as the times of files are.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._clock = folder, clock
        self._known = finished_names(folder)
        self._awaited: list[str] = []  # names that are there, of scans that have not begun
        self._listed_ns = -1  # the folder's time of change when all in it was seen
        self._listed_s, self._pause_s = float("-inf"), 0.0

    def look(self) -> list[Scan]:
        """Returns the scans that are new since the last look, in the order in which they began."""
        return [Scan(self._folder / name) for name in self.names()]

    def names(self) -> list[str]:
        """Returns their names instead."""
        self._list()
        begun = [name for name in self._awaited if _has_begun(self._folder, name)]
        if begun:
            self._known.update(begun)
            self._awaited = [name for name in self._awaited if name not in self._known]
        return begun

    def _list(self) -> None:
        """See what was made in the folder; of thousands not at every look, while it changes."""
        try:
            changed_ns = self._folder.stat().st_mtime_ns
        except FileNotFoundError:
            return
        now = self._clock()
        if changed_ns == self._listed_ns or abs(now - self._listed_s) < self._pause_s:
            return
        names = _listed(self._folder)
        self._awaited = sorted(set(names) - self._known, key=order_of)
        self._listed_s, self._pause_s = now, PAUSE_S * len(names) if len(names) > FEW else 0.0
        # What is made within a tick of the file system's clock leaves no trace.
        self._listed_ns = changed_ns if now - changed_ns / 1e9 > SETTLED_S else -1


def scans_in(folder: Path) -> Iterator[Scan]:
    """Returns the scans below `folder`, one after the other in the order in which they began."""
    return (Scan(folder / name) for name in names_of_scans(folder))


def names_of_scans(folder: Path, *, after: str = "", newest_first: bool = False) -> Iterator[str]:
    """Yields the names of the scans below `folder` that began after `after`, in their order or against it.

    Each is looked at when it is asked for: who needs one alone does not wait for thousands.
    """
    later = [name for name in _listed(folder) if not after or order_of(name) > order_of(after)]
    for name in sorted(later, key=order_of, reverse=newest_first):
        if _has_begun(folder, name):
            yield name


def finished_names(scans: Path) -> set[str]:
    """Returns the names of the scans that no stage has to look at again, as `note_finished` leaves them."""
    with suppress(FileNotFoundError):
        return set((scans.parent / FINISHED).read_text(errors="replace").splitlines())
    return set()


def order_of(name: str) -> tuple[int, str]:
    """Returns what puts names of scans in the order in which they began: 10000-a comes after 9999-b."""
    return name.find("-"), name


def _has_begun(folder: Path, name: str) -> bool:
    return os.path.exists(f"{folder}/{name}/scan.json")  # noqa: PTH110 -- a Path would take twice as long


def new_scan_name(series: str, folders: Sequence[Path]) -> str:
    """Returns a name for the scan of `series` with a number above those of all names in `folders`."""
    index = max(map(_highest, folders), default=-1) + 1
    return f"{index:04d}-{re.sub(r'[^A-Za-z0-9._-]+', '_', series)[:80]}"


def _highest(folder: Path) -> int:
    """Return the highest number with which a name in `folder` begins, -1 where there is none."""
    heads = {name.partition("-")[0] for name in _listed(folder) if "-" in name}
    return max((int(head) for head in heads if head.isascii() and head.isdigit()), default=-1)


def _listed(folder: Path) -> list[str]:
    """Return all names in `folder`, none where there is no folder."""
    with suppress(FileNotFoundError):
        return os.listdir(folder)  # noqa: PTH208 -- a Path of each would take ten times as long
    return []
