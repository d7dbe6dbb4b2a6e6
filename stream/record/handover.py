"""How a scan passes from the live stages to the finisher, which closes it while the next one is scanned.

A stage that hands over sets its counter `handed_over` when nothing of the scan is in its memory any more, and
does not look at the scan again. Whoever goes on is the one writer of the stage's columns, ledger and counters
from then on. The folder of scans is the finisher's queue: nothing else has to survive a crash.

A run that was killed leaves a scan without results. The file `taken_up` in its folder has the id of each
later run that went on with it, a line each, in their order.
"""

import contextlib
import os
from collections.abc import Iterable

from stream.atomic import write_atomically
from stream.record.scan import Scan, order_of

NETWORK = "inference"
FINISHED_LATER = (NETWORK, "refinement", "stitcher")
"""The stages that may hand a scan over, in the order in which the finisher closes it for them."""


PROBE = "probe"
"""A stage that does not hand over, and is the finisher's, too, where an earlier run has left its scan."""

_TAKEN_UP = "taken_up"


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
    scans, own = scan.folder.parent, order_of(scan.name)
    with os.scandir(scans) as entries:
        later = [entry.name for entry in entries if order_of(entry.name) > own]
    return any((scans / name / "scan.json").exists() for name in later)


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
