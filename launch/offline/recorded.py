"""A recorded scan from wherever it lies: a file, a scan folder of an earlier run, or the store.

All are read into a `stream.files.base.ScanFile`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from launch.config.config import Config
from launch.config.run_file import ResolvedRun, optics
from operators.arrays import Frames, Mask, Positions, Probe
from operators.geometry import Geometry
from operators.optics.preprocess import Preprocess
from stream.files.base import ScanFile
from stream.files.in_use import in_use
from stream.record.columns import Column
from stream.record.events import Event, events_of
from stream.record.scan import Numbers, Scan
from stream.stages.inputs import read_flux


class ColumnFrames:
    """The recorded frames of a scan folder, read when they are sliced."""

    def __init__(self, column: Column, numbers: Numbers, shape: tuple[int, int]) -> None:
        self._column, self._numbers = column, numbers
        self.shape = (len(numbers), *shape)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: Any) -> Frames:
        """Returns the frames that `index` selects along the first axis."""
        numbers = self._numbers[index]
        frames = self._column.read(np.atleast_1d(numbers))
        return frames if np.ndim(numbers) else frames[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedScan:
    """One recorded scan.

    Attributes
    ----------
    frames : (frame, row, col) unsigned integer, counts
        Read as they are sliced; zero frequency at the array centre.
    frame_numbers : (frame,) int64
        Numbers that the detector gave; those of lost frames are missing.
    positions_m : (frame, 2) float64, metres
        Probe on the sample, (y, x); NaN where none is known.
    geometry : Geometry or None
    probe : (mode, y, x) complex64 or None
    mask : (row, col) bool or None
        True = valid; a scan folder has it in `preprocess`.
    name : str
    preprocess : callable or None
        Makes the preparation of frames that the recording run was configured for. Not made at once: a scan
        that was recorded with a wrong configuration can be replayed.
    trusts_probe : bool
        Whether the power of `probe` is right, so that the object's amplitude is its transmission.
    config : Config or None
        What the run that recorded the scan was told.
    reopen : callable or None
        Opens it again, in another process as well: a context manager that yields the scan.
    told : mapping of str to float
        What is known of the geometry, by the names of `Geometry`, where not all is.
    notes : tuple of str
        What a user should know of how it was read.
    events : tuple of Event
        What happened while it was recorded, as far as that is on record.
    source : str
        What it was opened by, "" if it was not opened.
    travel_m, spread_m : (frame, 2) float64, metres, or None
        Way of the probe during the exposure and standard deviation of the captures, (y, x), where there are
        several of a frame.
    flux : (frame,) float64 or None
        Of the beam, relative, where a monitor told it.
    """

    frames: Any
    frame_numbers: NDArray[np.int64]
    positions_m: Positions
    geometry: Geometry | None
    probe: Probe | None
    mask: Mask | None
    name: str
    preprocess: Callable[[], Preprocess] | None = None
    trusts_probe: bool = False
    config: Config | None = None
    reopen: Callable[[], AbstractContextManager["RecordedScan"]] | None = None
    told: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()
    source: str = ""
    travel_m: Positions | None = None
    spread_m: Positions | None = None
    flux: NDArray[np.float64] | None = None

    @property
    def called(self) -> str:
        """What errors call it: file, folder or uid, as the user did."""
        return self.source or f"scan {self.name!r}"


@contextmanager
def open_recorded(source: str, store: Path | None = None) -> Iterator[RecordedScan]:
    """Yields the scan called `source`.

    Parameters
    ----------
    source : str
        A file that `stream.files.cxi.read_scan` reads (CXI, ptypy, ptychodus), a scan folder
        (`recordings/scans/0000-...`), or the beginning of a uid in the store.
    store : Path, optional
        Folder of the store; `default_store` without.

    Raises
    ------
    ValueError
        If it is none of the three, or holds no frames.
    """
    with _opened(source, store) as scan:
        yield replace(scan, source=source, reopen=partial(open_recorded, source, store))


@contextmanager
def _opened(source: str, store: Path | None) -> Iterator[RecordedScan]:
    path = Path(source)
    if path.is_file():
        from stream.files.cxi import read_scan

        with read_scan(path) as scan:
            yield of_file(scan)
    elif (path / "scan.json").is_file():
        with in_use(path):
            yield read_scan_folder(path)
    elif path.suffix or len(path.parts) != 1:  # no uid
        raise ValueError(f"{source}: neither a file nor a scan folder, which has a scan.json")
    elif (folder := store or default_store()) is not None:
        from launch.results.store.catalogue import open_store

        with open_store(folder) as opened:
            # The probe in the store is that of a reconstruction, which has settled its power.
            yield replace(of_file(opened.scan(source)), trusts_probe=True)
    else:
        raise ValueError(f"{source}: neither a file nor a scan folder; for a uid, give the store's folder")


def default_store() -> Path | None:
    """Returns the store that a run or the demo left below the current folder, None if there is none."""
    folders = (Path(save) / "store" for save in ("recordings", "demo"))
    return next((folder for folder in folders if folder.is_dir()), None)


def read_scan_folder(folder: Path) -> RecordedScan:
    """Returns the scan that a run recorded in `folder`.

    Raises
    ------
    ValueError
        If no frame was recorded.
    """
    scan = Scan(folder)
    numbers = scan.done("subscriber")
    if not numbers.size:
        raise ValueError(f"{folder}: no frame was recorded")
    run = _run_of(scan)
    known = optics(run) if run else None
    return RecordedScan(
        frames=ColumnFrames(scan.column("frames"), numbers, scan.header.frame_shape),
        frame_numbers=numbers,
        positions_m=scan.positions_m(numbers),
        geometry=known.geometry if known else None,
        probe=known.probe_of(scan) if known else None,
        mask=None,
        name=scan.name,
        preprocess=partial(known.preprocess, scan) if known else None,
        trusts_probe=run is not None and not run.config.scales_probe,
        config=run.config if run else None,
        events=tuple(events_of(scan)),
        travel_m=scan.column("travel_m").read(numbers) if scan.has("travel_m") else None,
        spread_m=scan.column("spread_m").read(numbers) if scan.has("spread_m") else None,
        flux=read_flux(scan, numbers),
    )


def _run_of(scan: Scan) -> ResolvedRun | None:
    file = scan.folder.parents[1] / "runs" / scan.header.run_id / "run.json"
    return ResolvedRun.read(file) if scan.header.run_id and file.is_file() else None


def of_file(scan: ScanFile) -> RecordedScan:
    """Returns the scan of an open file, its frames numbered as there, or from 0."""
    numbers = scan.frame_numbers
    return RecordedScan(
        frames=scan.frames,
        frame_numbers=np.arange(len(scan.positions_m)) if numbers is None else numbers,
        positions_m=scan.positions_m,
        geometry=scan.geometry,
        probe=scan.probe,
        mask=scan.mask,
        name=scan.name,
        preprocess=_with_background(scan),
        told=scan.told,
        notes=scan.notes,
    )


def _with_background(scan: ScanFile) -> Callable[[], Preprocess] | None:
    """Return the preparation of a file's frames where the file says what they have without sample."""
    if scan.background is None or scan.geometry is None:
        return None
    return partial(
        Preprocess,
        frame_shape=tuple(scan.frames.shape[1:]),
        n_pixels=scan.geometry.n_pixels,
        valid_pixels=scan.mask,
        background=scan.background,
    )
