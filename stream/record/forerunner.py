"""The earlier scan of its run that a scan starts from: its object and probe as they were when this one began.

They lie in the scan's own folder. The earlier scan may be refined further or deleted: what this one starts
from stays the same, also after a restart and for every stage that asks.

    SCANS/0001-<name>/forerunner/   a snapshot, and the name of its scan in `scan`, "" where there was none
"""

import logging
import secrets
import shutil
from dataclasses import dataclass

from operators.engine.config import RefinerSnapshot
from stream.record.scan import Scan
from stream.record.snapshot import read_snapshot, write_snapshot

log = logging.getLogger(__name__)

FOLDER, NAME = "forerunner", "scan"
MOST_OFF_PX = 0.5  # by which a window of the earlier scan's pixels may be longer


@dataclass(frozen=True, slots=True)
class Forerunner:
    """What is known from an earlier scan.

    Attributes
    ----------
    scan : str
        Its name.
    snapshot : RefinerSnapshot
        The newest there was.
    """

    scan: str
    snapshot: RefinerSnapshot


def take_forerunner(scan: Scan, n_pixels: int) -> Forerunner | None:
    """Returns what `scan` starts from, None for nothing; decided by whoever asks first, once for all.

    It is the newest earlier scan of the run that has been refined by an epoch at least and has the object
    pixels of `scan`, which follow the photon energy. `n_pixels` is the side of a window.
    """
    folder = scan.folder / FOLDER
    if not folder.exists():
        found = _found(scan, n_pixels)
        temporary = scan.folder / f"{FOLDER}.{secrets.token_hex(4)}"
        temporary.mkdir()
        if found is not None:
            write_snapshot(temporary, found.snapshot)
        (temporary / NAME).write_text(found.scan if found else "", encoding="utf-8")
        try:
            temporary.rename(folder)
        except OSError:  # another stage was faster
            shutil.rmtree(temporary)
            if not folder.exists():
                raise
    name = forerunner_of(scan)
    snapshot = read_snapshot(folder) if name else None
    return None if snapshot is None else Forerunner(name, snapshot)


def forerunner_of(scan: Scan) -> str:
    """Returns the name of the scan that `scan` starts from, "" for none."""
    try:
        return (scan.folder / FOLDER / NAME).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _found(scan: Scan, n_pixels: int) -> Forerunner | None:
    names = (path.parent.name for path in scan.folder.parent.glob("*/scan.json"))
    others = []
    for name in sorted((name for name in names if name < scan.name), reverse=True):
        earlier = Scan(scan.folder.parent / name)
        if earlier.header.run_id != scan.header.run_id:
            continue
        if _off_px(earlier, scan, n_pixels) > MOST_OFF_PX:
            others.append(earlier)
            continue
        snapshot = read_snapshot(earlier.folder)
        if snapshot is not None and snapshot.is_finite and snapshot.epoch >= 1:
            return Forerunner(name, snapshot)
    if others:
        words = "%s starts from no earlier scan: %g eV, %s had %g eV, and object pixels follow the energy"
        energies = scan.header.energy_ev, others[0].name, others[0].header.energy_ev
        log.warning(words, scan.name, *energies)
    return None


def _off_px(earlier: Scan, scan: Scan, n_pixels: int) -> float:
    """Return by how many pixels a window is longer in the earlier scan, 0 where an energy is not known."""
    before_ev, now_ev = earlier.header.energy_ev, scan.header.energy_ev
    return abs(now_ev / before_ev - 1) * n_pixels if before_ev and now_ev else 0.0
