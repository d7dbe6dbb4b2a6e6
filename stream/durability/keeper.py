"""What of a scan is on the disk, whatever becomes of the power: brought there and noted while frames arrive.

Killing a process loses nothing that it has written: the system has it. A power cut loses what is not on the
disk, in any order: the ledger may say of a frame that it is there, whose pixels are not. Here both get there
in order: a segment of frames, then a note of what the ledger had said of them before.

    SCANS/0000-<name>/kept      notes, one after the other: which segment, how many frames, their bytes of the
                                detector's ledger, a checksum over all of it; of a segment the last one counts
"""

import logging
import os
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from stream.atomic import sync
from stream.documents.codec import RECORD_FILE
from stream.record.columns import Column
from stream.record.scan import NewScans, Scan, State

log = logging.getLogger(__name__)

FILE_NAME = "kept"
STAGE = "subscriber"
COLUMNS = ("frames", "exposed_s", "received_s")  # what only the detector can give
LOOK_S = 1.0
_HEAD_BYTES, _CHECK_BYTES = 8, 4  # segment and length; checksum


def kept_states(scan: Scan) -> NDArray[np.uint8]:
    """Returns (frame,) uint8, what the detector's ledger said of the frames whose pixels are on the disk.

    PENDING where that is not known, as of every frame of a scan of an earlier version.
    """
    try:
        content = (scan.folder / FILE_NAME).read_bytes()
    except FileNotFoundError:
        return np.zeros(0, np.uint8)
    n, notes = scan.column("frames").segment_frames, {index: noted for index, noted, _ in _notes(content)}
    states = np.zeros((max(notes, default=-1) + 1) * n, np.uint8)
    for index, noted in notes.items():
        states[index * n :][: len(noted)] = noted
    return states


def _notes(content: bytes) -> Iterator[tuple[int, NDArray[np.uint8], int]]:
    """Yield segment and bytes of each note and where it ends, up to the first that is not whole."""
    at = 0
    while at + _HEAD_BYTES < len(content):
        index, n = np.frombuffer(content, "<u4", 2, at).tolist()
        end = at + _HEAD_BYTES + n
        if content[end : end + _CHECK_BYTES] != _checksum(content[at:end]):
            return
        noted, at = np.frombuffer(content, np.uint8, n, at + _HEAD_BYTES), end + _CHECK_BYTES
        yield index, noted, at


def _note(index: int, states: bytes) -> bytes:
    content = np.array([index, len(states)], "<u4").tobytes() + states
    return content + _checksum(content)


def _checksum(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(_CHECK_BYTES, "little")


class _KeptScan:
    """How much of one scan is on the disk."""

    def __init__(self, scan: Scan) -> None:
        self.scan, self._file = scan, scan.folder / FILE_NAME
        self._noted: dict[int, bytes] = {}
        self._n_document_bytes = 0
        self._is_begun = False

    @property
    def is_over(self) -> bool:
        """Whether no frame and no position comes any more."""
        return all(self.scan.count(stage, "closed") for stage in (STAGE, "positions"))

    def look(self) -> bool:
        """Brings to the disk what has come since the last look; says whether more may come."""
        is_over, states = self.is_over, self.scan.states(STAGE)
        frames = self.scan.column("frames")
        if not self._is_begun:
            self._begin(frames)
        self._keep_documents()
        n, news = frames.segment_frames, dict[int, bytes]()
        for index in range(-(-len(states) // n)):
            part = states[index * n : (index + 1) * n]
            if (part == State.DONE).any() and self._noted.get(index) != part.tobytes():
                sync(frames.path(index))
                news[index] = part.tobytes()
        if news:
            self._write(news)
        return not is_over

    def _begin(self, frames: Column) -> None:
        """Bring what a reader needs before anything else to the disk."""
        folder = self.scan.folder
        for path in (*(folder / "columns" / name for name in COLUMNS), folder / "ledger" / STAGE):
            sync(path / "column.json")
        for path in (folder / "counters" / STAGE, folder / "scan.json"):
            sync(path)
        for path in (frames.folder, folder / "columns", folder, folder.parent):
            sync(path)
        with self._file.open("a+b") as file:  # half a note at its end would hide what comes behind it
            file.seek(0)
            file.truncate(max((end for *_, end in _notes(file.read())), default=0))
        self._is_begun = True

    def _keep_documents(self) -> None:
        path = self.scan.folder / RECORD_FILE
        n_bytes = path.stat().st_size if path.exists() else 0
        if n_bytes != self._n_document_bytes:
            sync(path)
            self._n_document_bytes = n_bytes

    def _write(self, news: dict[int, bytes]) -> None:
        for name in COLUMNS[1:]:
            for path in (self.scan.folder / "columns" / name).glob("*.bin"):
                sync(path)
        with self._file.open("ab", buffering=0) as file:
            file.write(b"".join(_note(index, states) for index, states in news.items()))
            os.fsync(file.fileno())
        sync(self.scan.folder)
        self._noted |= news


class Keeper:
    """Looks after the scans of a folder in a thread of its own; a context manager.

    What cannot be brought to the disk is left, with one line in the log: the run goes on as it would without.

    Parameters
    ----------
    scans : Path
        Folder of scans.
    """

    def __init__(self, scans: Path) -> None:
        self._new, self._open = NewScans(scans), list[_KeptScan]()
        self._stopping, self._has_complained = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def look(self) -> None:
        """Brings to the disk what has come since the last look."""
        for kept in map(_KeptScan, self._new.look()):
            if not kept.is_over:
                self._open.append(kept)
            kept.scan.close()  # there may be more than a process may have open
        self._open = [kept for kept in self._open if self._goes_on(kept)]

    def _goes_on(self, kept: _KeptScan) -> bool:
        try:
            return kept.look()
        except FileNotFoundError:  # its writer is about to make it, or the scan was deleted
            return kept.scan.folder.exists()
        except OSError as error:
            if not self._has_complained:
                log.warning("frames are not brought to the disk as they come: %s", error)
            self._has_complained = True
            return not kept.is_over
        finally:
            kept.scan.close()

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_S):
            self.look()
        self.look()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopping.set()
        self._thread.join()
