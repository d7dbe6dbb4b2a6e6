"""Which runs went on with a scan that an earlier one had begun and left unfinished.

The file `taken_up` in the folder of the scan has the id of each, a line each, in their order.
"""

import contextlib

from stream.atomic import write_atomically
from stream.record.scan import Scan

FILE_NAME = "taken_up"


def take_up(scan: Scan, run_id: str) -> None:
    """Notes that the run `run_id` goes on with `scan`; a full disk costs the note, not the scan."""
    ids = (*_taken_up_by(scan), run_id)
    with contextlib.suppress(OSError):
        write_atomically(scan.folder / FILE_NAME, "".join(f"{id_}\n" for id_ in ids).encode())


def runs_of(scan: Scan) -> tuple[str, ...]:
    """Returns the ids of the run that began `scan` and of those that went on with it, in their order."""
    return (scan.header.run_id, *_taken_up_by(scan))


def _taken_up_by(scan: Scan) -> list[str]:
    try:
        return (scan.folder / FILE_NAME).read_text().split()
    except FileNotFoundError:
        return []
