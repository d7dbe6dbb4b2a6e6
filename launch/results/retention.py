"""Which finished scans are removed when a new one begins, where the configuration says how many stay.

Removed is the folder of a scan, frames and all; what was made of it in `results` stays. It goes only if it is
this program's own, finished with nothing left out, its result written and, where there is a store, registered
there, and nobody reads it. Each is listed before it goes, in `SAVE/removed.jsonl`.
"""

import json
import logging
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from launch.results.halves import awaits_measuring
from launch.results.summary import result_folder
from operators.optics.sampling import readable
from stream.files.in_use import left_alone
from stream.plain_json import plain_json
from stream.record.account import account, has_begun
from stream.record.columns import DamagedScanError
from stream.record.handover import awaits_finishing, have_closed
from stream.record.scan import NewScans, Scan, names_of_scans

LIST, LEAVING = "removed.jsonl", "removing"
_UNITS = {"MB": 1e6, "GB": 1e9, "TB": 1e12}
_NAME = re.compile(r"\d{4,}-.+")  # as `new_scan_name` gives
_STAGES = ("inference", "refinement", "stitcher")

Tell = Callable[[int, str], None]  # logging level, text


class Kept(NamedTuple):
    """How much stays of what may go: scans, or bytes on the disk."""

    n_scans: float = float("inf")
    n_bytes: float = float("inf")


def kept(keep: str) -> Kept:
    """Returns what `20 scans` or `500 GB` says.

    Raises
    ------
    ValueError
        If it says something else.
    """
    if (found := re.fullmatch(r"([1-9]\d*) scans?", keep)) is not None:
        return Kept(n_scans=int(found[1]))
    if (found := re.fullmatch(r"(\d+(?:\.\d+)?) ?([MGT]B)", keep)) is not None:
        return Kept(n_bytes=float(found[1]) * _UNITS[found[2]])
    raise ValueError(f"keep: {keep!r}: wanted a number of scans such as '20 scans', or a size such as '500 GB'")


class Retention:
    """Removes scans of one save folder.

    Parameters
    ----------
    save : Path
    keep : str
        As `kept` takes it, "" for everything.
    run_id : str
        Whose scans make others go when they begin.
    needs_store : bool
        Whether a scan that is not registered in the store stays.
    """

    def __init__(self, save: Path, keep: str, run_id: str, *, needs_store: bool = False) -> None:
        self._save, self._keep, self._run_id, self._needs_store = save, keep, run_id, needs_store
        self._kept = kept(keep) if keep else Kept()
        self._new = NewScans(save / "scans")
        self._is_due = False
        self._sizes: dict[str, int] = {}  # of scans that nobody writes any more
        self._stays: set[str] = set()  # could not be removed

    def turn(self, tell: Tell) -> None:
        """Removes one scan, if a new one has begun and there are more than are to stay."""
        if not self._keep:
            return
        self._is_due |= any(scan.header.run_id == self._run_id for scan in self._new.look())
        if self._is_due:
            self._is_due = self._remove_oldest(tell)

    def _remove_oldest(self, tell: Tell) -> bool:
        """Remove the oldest that may go, if too many may; say whether there may be another."""
        scans = self._save / "scans"
        removable = [name for name in names_of_scans(scans)[:-1] if self._may_go(scans / name)]
        for name in removable:
            if name not in self._sizes:
                self._sizes[name] = _size(scans / name)
        n_bytes = sum(self._sizes[name] for name in removable)
        if len(removable) <= self._kept.n_scans and n_bytes <= self._kept.n_bytes:
            return False
        with left_alone(scans / removable[0]) as is_free:
            # Another process may have begun to read it.
            if is_free:
                self._remove(scans / removable[0], tell)
        return True

    def _may_go(self, folder: Path) -> bool:
        if folder.name in self._stays or not _NAME.fullmatch(folder.name):
            return False
        with left_alone(folder) as is_free:
            if not is_free:
                return False
        try:
            scan = Scan(folder)
            is_ours = bool(scan.header.run_id) and (
                self._save / "runs" / scan.header.run_id / "run.json"
            ).is_file()
            may_go = is_ours and _is_finished(scan) and self._is_exported(scan)
            scan.close()
        except (OSError, DamagedScanError):
            return False
        return may_go

    def _is_exported(self, scan: Scan) -> bool:
        stem = result_folder(self._save) / scan.name
        try:
            figures: dict[str, Any] = json.loads(stem.with_suffix(".json").read_text())
            has_result = stem.with_suffix(".cxi").stat().st_size > 0
        except (OSError, ValueError):
            return False
        return has_result and (not self._needs_store or bool(figures.get("uid")))

    def _remove(self, folder: Path, tell: Tell) -> None:
        scan, size = Scan(folder), self._sizes[folder.name]
        entry = {
            "time_s": time.time(),
            "scan": scan.name,
            "series": scan.header.series_uid or str(scan.header.series_id),
            "started_s": scan.header.started_s,
            "run": scan.header.run_id,
            "frames": scan.n_frames,
            "bytes": size,
        }
        scan.close()
        leaving = self._save / LEAVING
        try:
            with (self._save / LIST).open("ab") as file:
                file.write(plain_json(entry) + b"\n")
            leaving.mkdir(exist_ok=True)
            # In one step: a scan that is half gone would be taken for one.
            moved = folder.rename(leaving / folder.name)
            shutil.rmtree(moved)
            leaving.rmdir()
        except OSError as error:
            self._stays.add(folder.name)
            tell(logging.WARNING, f"{folder.name} cannot be removed, and stays: {error}")
            return
        tell(
            logging.INFO,
            f"{folder.name} is removed, {entry['frames']} frames, {readable(size, 'B')}: {self._keep} are kept; "
            f"its result stays, {result_folder(self._save) / folder.name}.cxi",
        )


def _is_finished(scan: Scan) -> bool:
    """Whether no stage has anything left to do in the scan, nor has left anything out."""
    if not have_closed(scan, ("subscriber", "positions", "stitcher", "recorder")):
        return False
    if awaits_finishing(scan) or awaits_measuring(scan):
        return False
    accounts = [account(scan, stage) for stage in _STAGES if has_begun(scan, stage)]
    return not any(of.pending or {"no_room", "unfinished"} & set(of.dropped) for of in accounts)


def _size(folder: Path) -> int:
    return sum(512 * path.lstat().st_blocks for path in folder.rglob("*"))
