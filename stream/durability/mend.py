"""What a run does with the scans of its folder before its stages open them: what cannot be used is set aside.

Whatever stopped the run before, a crash, a full disk, a power cut: a stage finds files that are as they were
written, or none. A scan whose frames cannot be read is set aside whole. Of any other, all that stages have
made from the frames is set aside as soon as a part of it is damaged, and made again; so it is after a power
cut, when nobody knows which of it is on the disk.
"""

import contextlib
import shutil
import zipfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

import msgspec
import numpy as np

from stream.durability.keeper import COLUMNS, STAGE, kept_states
from stream.record import calibration, error_curve, forerunner, snapshot
from stream.record.account import frames_in_words
from stream.record.columns import Column, DamagedScanError
from stream.record.scan import COUNTERS_BYTES, INGESTS, Numbers, Scan, State, finished_names, names_of_scans

DAMAGED = "damaged"  # beside the folder of scans
PAGE_BYTES = 4096  # the disk gets memory by whole pages
_PLACED = {"positions", "positions_m", "placed_s"}
_MADE = (
    *(snapshot.FOLDER, snapshot.FILE_NAME, error_curve.FILE_NAME, calibration.FILE_NAME, forerunner.FOLDER),
    *("probe", "weights"),
)
_UNREADABLE = (ValueError, EOFError, KeyError, OSError, zipfile.BadZipFile)


def mend_scans(scans: Path, was_cut_off: Callable[[Scan], bool]) -> list[str]:
    """Sets aside what cannot be used of the scans below `scans`; says what and why.

    For who has the folder to itself. Nothing is deleted: it goes into a folder `damaged` beside `scans`.
    Scans that were noted as finished have been looked through before that.

    Parameters
    ----------
    scans : Path
    was_cut_off : callable
        Says whether the power may have failed since anybody worked on a scan.
    """
    finished = finished_names(scans)
    left = (name for name in names_of_scans(scans) if name not in finished)
    mended = (_mended(scans / name, was_cut_off) for name in left)
    return [sentence for sentence in mended if sentence]


def _mended(folder: Path, was_cut_off: Callable[[Scan], bool]) -> str:
    """Return what was done with a scan, "" for nothing."""
    if damage := _damage_of_frames(folder):
        aside = _aside(folder)
        folder.rename(aside)
        return f"scan {folder.name} cannot be read and lies in {aside} now: {damage}"
    scan = Scan(folder)
    is_cut_off = not scan.count("recorder", "closed") and was_cut_off(scan)
    if is_cut_off:
        lost = _lost_with_the_power(scan)
        damage = "the computer was switched off"
        damage += f" before {frames_in_words(lost)} had come to the disk" * bool(lost.size)
    else:
        damage = _damage_of_the_rest(scan)
    scan.close()
    if not damage:
        return ""
    aside = _begin_again(folder, keeps_positions=not (is_cut_off or _damage_of_columns(folder, _PLACED)))
    if is_cut_off:
        _forget_arrivals(scan, aside)
    return f"scan {folder.name} is made again from its frames, what there was lies in {aside} now: {damage}"


def _aside(folder: Path) -> Path:
    """Return a free place for a scan, or for a part of it."""
    damaged = folder.parents[1] / DAMAGED
    damaged.mkdir(exist_ok=True)
    taken = {path.name for path in damaged.iterdir()}
    names = (f"{folder.name}.{n}" if n else folder.name for n in count())
    return damaged / next(name for name in names if name not in taken)


def damage_of(folder: Path) -> str:
    """Returns what keeps columns, ledgers or counters of a scan from being read, "" if nothing does."""
    return _damage_of_frames(folder) or _damage_of_columns(folder)


def _damage_of_frames(folder: Path) -> str:
    """Return what keeps the frames of a scan from being read, "" if nothing does."""
    try:
        scan = Scan(folder)
        frames = scan.column("frames").item_shape if scan.has("frames") else scan.header.frame_shape
    except DamagedScanError as error:
        return str(error)
    shape = scan.header.frame_shape
    if frames != shape:
        return f"its frames are {frames}, its scan.json says {shape}"
    return _damage_of_columns(folder, {*COLUMNS, STAGE})


def _damage_of_columns(folder: Path, names: set[str] | None = None) -> str:
    """Return what is wrong with the columns, ledgers and counters of these names, or of all."""
    parts = [path for part in ("columns", "ledger", "counters") for path in folder.glob(f"{part}/[!.]*")]
    for path in parts:
        if names is not None and path.name not in names:
            continue
        if path.is_dir():
            try:
                with contextlib.suppress(FileNotFoundError):  # one that was being made
                    Column(path).check_segments()
            except DamagedScanError as error:
                return str(error)
        elif (n_bytes := path.stat().st_size) != COUNTERS_BYTES:
            return f"{path} has {n_bytes} bytes, not {COUNTERS_BYTES}"
    return ""


def _damage_of_the_rest(scan: Scan) -> str:
    """Return what keeps that which was made from the frames of a scan from being used, "" if nothing does."""
    folder = scan.folder
    if damage := _damage_of_columns(folder):
        return damage
    reading: dict[Path, Callable[[Path], object]] = {
        # All of a file that nothing will be done with any more need not be read at every start.
        folder / snapshot.FILE_NAME: _listed if scan.count("recorder", "closed") else _refined,
        folder / snapshot.FOLDER: _refined,
        folder / error_curve.FILE_NAME: _array,
        folder / forerunner.FOLDER / forerunner.PROBE: _array,
        folder / calibration.FILE_NAME: lambda path: calibration.read_calibration(path.parent),
    }
    for path, read in (reading | dict.fromkeys(folder.glob("probe/[!.]*"), _array)).items():
        try:
            if path.exists():
                read(path)
        except (*_UNREADABLE, msgspec.DecodeError) as error:
            return f"{path} is damaged: {error}"
    return ""


def _array(path: Path) -> None:
    np.load(path, allow_pickle=False)


def _listed(path: Path) -> None:
    zipfile.ZipFile(path).close()


def _refined(path: Path) -> None:
    with zipfile.ZipFile(path / snapshot.STATE if path.is_dir() else path) as file:
        if bad := file.testzip():
            raise zipfile.BadZipFile(f"{bad} is not what was written")
    snapshot.read_snapshot(path.parent)


def _begin_again(folder: Path, *, keeps_positions: bool) -> Path:
    """Set aside all that stages have made of a scan; return where it lies."""
    kept = {*COLUMNS, *INGESTS, *(_PLACED if keeps_positions else ())}
    made = [path for part in ("columns", "ledger", "counters") for path in (folder / part).glob("*")]
    made = [path for path in made if path.name not in kept]
    made += [folder / name for name in _MADE if (folder / name).exists()]
    aside = _aside(folder)
    aside.mkdir()
    for path in made:
        place = aside / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(place)
    return aside


def _forget_arrivals(scan: Scan, aside: Path) -> None:
    """Set aside when the frames came, and leave NaN: that clock has begun anew with the computer."""
    column = scan.column("received_s", writable=True)
    with contextlib.suppress(OSError):  # without room for the copy the times stay, for what they are worth
        shutil.copytree(column.folder, aside / "columns" / column.folder.name)
        column.write(scan.done(STAGE), np.nan)
    scan.close()


def _lost_with_the_power(scan: Scan) -> Numbers:
    """Correct the detector's ledger of a scan after a power cut; return the frames that are BAD by it.

    A frame is there if its note says so, or if every page of it has something: room that was given to a file
    and never written reads as zero.
    """
    counters, ledger = scan.counters(STAGE, writable=True), scan.ledger(STAGE, writable=True)
    kept, n_room = kept_states(scan), len(list(ledger.folder.glob("*.bin"))) * ledger.segment_frames
    states = ledger.head(max(n_room, len(kept)))
    is_noted = np.zeros(len(states), bool)
    is_noted[: len(kept)] = kept != State.PENDING
    states[is_noted] = kept[is_noted[: len(kept)]]
    doubtful = np.flatnonzero((states == State.DONE) & ~is_noted)
    lost = np.array([number for number in doubtful.tolist() if _has_hole(scan, number)], np.int64)
    states[lost] = State.BAD
    for state in np.unique(states[states != State.PENDING]):
        scan.mark(STAGE, np.flatnonzero(states == state), State(int(state)))
    counters["head"] = max(counters["head"], int(np.flatnonzero(states).max(initial=-1)) + 1)
    return lost


def _has_hole(scan: Scan, number: int) -> bool:
    """Say whether a page of a frame, or what the frame has of it, is nothing but zero."""
    frames = scan.column("frames")
    pixels = frames.get(number).reshape(-1).view(np.uint8)
    begin = number % frames.segment_frames * pixels.nbytes
    edges = [0, *range(-begin % PAGE_BYTES or PAGE_BYTES, pixels.nbytes, PAGE_BYTES)]
    return not np.logical_or.reduceat(pixels != 0, edges).all()
