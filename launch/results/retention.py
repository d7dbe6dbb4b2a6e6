"""Which finished scans are removed when a new one begins, where the configuration says how many stay.

Removed is the folder of a scan, frames and all; what was made of it in `results` stays. It goes only if it is
this program's own, finished with nothing left out, its result written and, where there is a store, registered
there, and nobody reads it. What went is listed in `SAVE/removed.jsonl`.
"""

import json
import logging
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launch.config.sections import Kept, kept
from launch.results.halves import awaits_measuring
from launch.results.summary import result_folder
from operators.optics.sampling import readable
from stream.files.in_use import left_alone
from stream.plain_json import plain_json
from stream.record.account import account, has_begun
from stream.record.columns import DamagedScanError
from stream.record.handover import awaits_finishing, have_closed
from stream.record.scan import NewScans, Scan, names_of_scans
from stream.stages.refusals import in_words

LIST, LEAVING = "removed.jsonl", ".removing"
_NAME = re.compile(r"\d{4,}-.+")  # as `new_scan_name` gives
_STAGES = ("inference", "refinement", "stitcher")

Tell = Callable[[int, str], None]  # logging level, text


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
        self._sizes: dict[str, int] = {}  # of scans that may go, bytes
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
        names = list(names_of_scans(scans))[:-1]
        for name in names:
            if name not in self._sizes and self._may_go(scans / name):
                self._sizes[name] = _size(scans / name)
        removable = [name for name in names if name in self._sizes]
        n_bytes = 0
        for n_newer, name in enumerate(reversed(removable)):
            n_bytes += self._sizes[name]
            if n_newer >= self._kept.n_scans or n_bytes > self._kept.n_bytes:
                removable = removable[: len(removable) - n_newer]
                break
        else:
            return False
        for name in removable:
            with left_alone(scans / name) as is_free:  # somebody may read it
                if is_free:
                    self._remove(scans / name, tell)
                    return True
        return False

    def _may_go(self, folder: Path) -> bool:
        if folder.name in self._stays or folder.is_symlink() or not _NAME.fullmatch(folder.name):
            return False
        try:
            scan = Scan(folder)
            is_ours = (
                bool(scan.header.run_id) and (self._save / "runs" / scan.header.run_id / "run.json").is_file()
            )
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
        scan, size = Scan(folder), self._sizes.pop(folder.name)
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
            leaving.mkdir(exist_ok=True)
            # In one step: a scan that is half gone would be taken for one.
            folder.rename(leaving / folder.name)
            with (self._save / LIST).open("ab") as file:
                file.write(plain_json(entry) + b"\n")
            shutil.rmtree(leaving)
        except OSError as error:
            self._stays.add(folder.name)
            tell(logging.WARNING, f"{folder.name} cannot be removed: {in_words(error)}")
            return
        result = result_folder(self._save) / f"{folder.name}.cxi"
        told = f"{folder.name} is removed, {entry['frames']} frames, {readable(size, 'B')}"
        tell(logging.INFO, f"{told}: {self._keep} are kept, and its result {result}")


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
