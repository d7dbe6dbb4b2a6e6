"""Positions that the detector's own messages tell: in the user data of each image, or of the start.

The process that takes the frames stores what it is told in the column `told` of the scan
(`stream.stages.ingest.told`); here that becomes a run.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stream.documents.codec import Document
from stream.documents.config import PositionsConfig
from stream.documents.sources.protocol import PolledSource, Said
from stream.documents.sources.run import RunDocuments
from stream.record.passage import Passage
from stream.record.scan import INGESTS, NewScans, Scan

MOST_FRAMES = 1 << 14  # that are taken at once


class DetectorPositions(PolledSource):
    """Makes a run of each scan, of the frames whose messages told a position.

    Parameters
    ----------
    config : PositionsConfig
        `y`, `x` and `settled` are keys of the user data.
    scans : Path
        Folder of scans.
    """

    def __init__(self, config: PositionsConfig, scans: Path) -> None:
        self._run, self._new = RunDocuments("detector", config), NewScans(scans)
        self._waiting = [scan for scan in self._new.look() if not scan.count(INGESTS[0], "closed")]
        self._scan: Scan | None = None
        self._passage: Passage | None = None
        self._left = np.zeros(0, np.int64)  # frames that are recorded and not looked at yet
        self._known = set[int]()  # frames of the scan that a process before this one has told of

    def receive(self) -> Sequence[Said]:
        """Returns the positions of frames that were recorded since the last look."""
        self._waiting += self._new.look()
        if self._scan is None and not self._begin():
            return ()
        scan = self._scan
        assert scan is not None and self._passage is not None  # noqa: S101 -- begun
        is_over = bool(scan.count(INGESTS[0], "closed"))
        done = self._passage.look()
        waiting = np.concatenate([self._left, done])
        numbers, self._left = waiting[:MOST_FRAMES], waiting[MOST_FRAMES:]
        said = self._documents_of(scan, numbers)
        if is_over and not self._left.size:
            said += self._run.stop()
            scan.close()
            self._scan, self._passage, self._known = None, None, set()
        return said

    def resume(self, name: str, document: Document) -> None:
        """Goes on with the scan that a process before this one has left open."""
        self._run.resume(name, document)
        if name == "start":
            self._known = set()
        elif name == "event_page" and self._run.is_open and isinstance(document.get("seq_num"), list):
            self._known |= {number - 1 for number in document["seq_num"] if isinstance(number, int)}

    def _begin(self) -> bool:
        if not self._waiting:
            return False
        self._scan = self._waiting.pop(0)
        self._passage = Passage(self._scan, INGESTS[:1])
        return True

    def _documents_of(self, scan: Scan, numbers: np.ndarray) -> list[Said]:
        if self._run.is_open and self._run.told.get("scan") == scan.name:
            numbers = numbers[[int(number) not in self._known for number in numbers]]
        if not numbers.size or not scan.has("told"):
            return []
        told = scan.column("told").read(numbers)
        is_told = told[:, -1] > 0
        numbers, values = numbers[is_told], told[is_told, : len(self._run.axes)]
        if not numbers.size:
            return []
        said: list[Said] = []
        if not self._run.is_open or self._run.told.get("scan") != scan.name:
            header = scan.header
            series = header.series_uid or str(header.series_id)
            said = self._run.start(series=series, sources=self._run.names, scan=scan.name)
        self._run.add_rows(numbers, values)
        return [*said, *self._run.pages()]
