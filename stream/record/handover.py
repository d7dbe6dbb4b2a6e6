"""How a scan passes from the live stages to the finisher, which closes it while the next one is scanned.

A stage that hands over sets its counter `handed_over` when nothing of the scan is in its memory any more, and
does not look at the scan again. Whoever goes on is the one writer of the stage's columns, ledger and counters
from then on. The folder of scans is the finisher's queue: nothing else has to survive a crash.

A run that was killed leaves a scan without results. The file `taken_up` in its folder has the id of each
later run that went on with it, a line each, in their order.
"""

import contextlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from stream.atomic import write_atomically
from stream.record.scan import FINISHED, NewScans, Scan, finished_names, order_of

NETWORK = "inference"
FINISHED_LATER = (NETWORK, "refinement", "stitcher")
"""The stages that may hand a scan over, in the order in which the finisher closes it for them."""


PROBE = "probe"
"""A stage that does not hand over, and is the finisher's, too, where an earlier run has left its scan."""

_TAKEN_UP = "taken_up"
_STILL_NAMED = 16  # newest scans: late frames and documents may still name them


def is_left_behind(scan: Scan, run_id: str, config_hash: str) -> bool:
    """Says whether an earlier run has left this scan to the finisher, which goes on as that run would have.

    Its last scan may still be going on: the live stages of a run that is configured alike take it up.
    """
    header = scan.header
    return header.run_id != run_id and (header.config_hash != config_hash or has_successor(scan))


def hand_over(scan: Scan, stage: str) -> None:
    """Leaves what `stage` has still to do in this scan to the finisher."""
    scan.counters(stage, writable=True)["handed_over"] = 1


def is_handed_over(scan: Scan, stage: str) -> bool:
    """Says whether `stage` has left this scan to the finisher, which may have finished it since."""
    return bool(scan.count(stage, "handed_over"))


def was_handed_over(scan: Scan) -> bool:
    """Says whether any stage has left this scan to the finisher, which may have finished it since."""
    return any(is_handed_over(scan, stage) for stage in FINISHED_LATER)


def has_left(scan: Scan, stage: str) -> bool:
    """Says whether the live process of `stage` is through with this scan: closed, or handed over."""
    return bool(scan.count(stage, "closed") or scan.count(stage, "handed_over"))


def have_closed(scan: Scan, stages: Iterable[str]) -> bool:
    """Says whether each of `stages` has closed this scan, or the finisher for it."""
    return all(scan.count(stage, "closed") for stage in stages)


def awaits_finishing(scan: Scan) -> bool:
    """Says whether a stage has handed this scan over and nobody has closed it for that stage yet."""
    return any(is_handed_over(scan, stage) and not scan.count(stage, "closed") for stage in FINISHED_LATER)


def has_successor(scan: Scan) -> bool:
    """Says whether a later scan has begun."""
    return order_of(_newest_in(scan.folder.parent).name()) > order_of(scan.name)


class _Newest:
    """The newest scan of a folder; stages ask at every turn."""

    def __init__(self, scans: Path) -> None:
        self._new, self._name = NewScans(scans), ""

    def name(self) -> str:
        self._name = max([self._name, *self._new.names()], key=order_of)
        return self._name


_newest_in = lru_cache(maxsize=8)(_Newest)


def note_finished(scans: Path, names: Iterable[str]) -> None:
    """Notes that nobody has anything left to do in the scans `names`, which `NewScans` then leaves out.

    For who has the folder to itself. The newest scans are never noted; a full disk costs the note.
    """
    there = sorted((folder.name for folder in scans.iterdir()), key=order_of)
    finished = finished_names(scans) | set(names)
    noted = [name for name in there[:-_STILL_NAMED] if name in finished]
    with contextlib.suppress(OSError):
        write_atomically(scans.parent / FINISHED, "".join(f"{name}\n" for name in noted).encode())


def take_up(scan: Scan, run_id: str) -> None:
    """Notes that the run `run_id` goes on with `scan`; a full disk costs the note, not the scan."""
    ids = (*_taken_up_by(scan), run_id)
    with contextlib.suppress(OSError):
        write_atomically(scan.folder / _TAKEN_UP, "".join(f"{id_}\n" for id_ in ids).encode())


def runs_of(scan: Scan) -> tuple[str, ...]:
    """Returns the ids of the run that began `scan` and of those that went on with it, in their order."""
    return (scan.header.run_id, *_taken_up_by(scan))


def _taken_up_by(scan: Scan) -> list[str]:
    try:
        return (scan.folder / _TAKEN_UP).read_text().split()
    except FileNotFoundError:
        return []
