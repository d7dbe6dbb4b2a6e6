"""The earlier scan of its run that a scan starts from: its probe and object as they were when this one began.

They lie in the scan's own folder. The earlier scan may be refined further or deleted: what this one starts
from stays the same, also after a restart and for every stage that asks.

    SCANS/0001-<name>/forerunner/scan        its name, "" where there was none
                                 probe.npy
                                 refined.npz ...   a snapshot, where the object is taken over, too
"""

import logging
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from operators.arrays import Probe
from operators.engine.config import RefinerSnapshot
from stream.record.scan import Scan, names_of_scans, order_of
from stream.record.snapshot import read_snapshot, write_snapshot

log = logging.getLogger(__name__)

FOLDER, NAME, PROBE = "forerunner", "scan", "probe.npy"
MOST_OFF_PX = 0.5  # by which a window of the earlier scan's pixels may be longer
MOST_ERROR = 0.5  # amplitude error: of a scan in the dark nothing is explained, and its probe is noise


@dataclass(frozen=True, slots=True)
class Forerunner:
    """What is known from an earlier scan.

    Attributes
    ----------
    scan : str
        Its name.
    probe : (mode, y, x) complex64
    snapshot : RefinerSnapshot or None
        The newest there was, where the object is taken over, too.
    """

    scan: str
    probe: Probe
    snapshot: RefinerSnapshot | None


def take_forerunner(
    scan: Scan, n_pixels: int, *, with_object: bool, is_final: bool = True
) -> Forerunner | None:
    """Returns what `scan` starts from, None for nothing; decided by whoever asks first, once for all.

    It is the newest earlier scan of the run that has been refined by an epoch at least, explains its frames,
    and has the object pixels of `scan`, which follow the photon energy.

    Parameters
    ----------
    scan : Scan
    n_pixels : int
        Side of a window.
    with_object : bool
        Whether more than the probe is taken over; to be the same for all that ask.
    is_final : bool
        Whether `scan` starts without, where there is none by now; otherwise it may be asked for again.
    """
    folder = scan.folder / FOLDER
    if not folder.exists():
        name, snapshot = _found(scan, n_pixels, says_why=is_final)
        if snapshot is not None or is_final:
            _keep(folder, name, snapshot, with_object=with_object)
    name = forerunner_of(scan)
    if not name:
        return None
    snapshot = read_snapshot(folder) if with_object else None
    return Forerunner(name, np.load(folder / PROBE, allow_pickle=False), snapshot)


def forerunner_of(scan: Scan) -> str:
    """Returns the name of the scan that `scan` starts from, "" for none."""
    try:
        return (scan.folder / FOLDER / NAME).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _keep(folder: Path, name: str, snapshot: RefinerSnapshot | None, *, with_object: bool) -> None:
    """Write down what was decided, unless another stage was faster."""
    temporary = folder.with_suffix(f".{secrets.token_hex(4)}")
    temporary.mkdir()
    if snapshot is not None:
        np.save(temporary / PROBE, snapshot.probe)
        if with_object:
            write_snapshot(temporary, snapshot)
    (temporary / NAME).write_text(name, encoding="utf-8")
    try:
        temporary.rename(folder)
    except OSError:
        shutil.rmtree(temporary)
        if not folder.exists():
            raise


def _found(scan: Scan, n_pixels: int, *, says_why: bool) -> tuple[str, RefinerSnapshot | None]:
    others = []
    for name in names_of_scans(scan.folder.parent, newest_first=True):
        if order_of(name) >= order_of(scan.name):
            continue
        earlier = Scan(scan.folder.parent / name)
        if earlier.header.run_id != scan.header.run_id:
            break  # one run after the other writes into a folder
        if _off_px(earlier, scan, n_pixels) > MOST_OFF_PX:
            others.append(earlier)
            continue
        snapshot = read_snapshot(earlier.folder)
        if snapshot is not None and _is_usable(snapshot):
            return name, snapshot
    if others and says_why:
        words = "%s starts from no earlier scan: %g eV, %s had %g eV, and object pixels follow the energy"
        energies = scan.header.energy_ev, others[0].name, others[0].header.energy_ev
        log.warning(words, scan.name, *energies)
    return "", None


def _is_usable(snapshot: RefinerSnapshot) -> bool:
    return snapshot.is_finite and snapshot.epoch >= 1 and snapshot.error <= MOST_ERROR


def _off_px(earlier: Scan, scan: Scan, n_pixels: int) -> float:
    """Return by how many pixels a window is longer in the earlier scan, 0 where an energy is not known."""
    before_ev, now_ev = earlier.header.energy_ev, scan.header.energy_ev
    return abs(now_ev / before_ev - 1) * n_pixels if before_ev and now_ev else 0.0
