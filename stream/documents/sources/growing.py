"""A file of positions that is written while the scan runs: text, HDF5, CXI."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stream.documents.codec import Document
from stream.documents.config import HDF5_SUFFIXES, PositionsConfig
from stream.documents.sources.arrivals import Arrivals, FoundFile
from stream.documents.sources.growing_hdf5 import GrowingDatasets
from stream.documents.sources.growing_text import GrowingText
from stream.documents.sources.protocol import PolledSource, Said
from stream.documents.sources.run import RunDocuments
from stream.documents.stream_files import NotYetError

LOOK_S = 0.1  # between two looks into a file that had nothing new
LINGER_S = 1.0  # a file that has had nothing new for so long is left for another one


class GrowingRows(Protocol):
    """Rows of a file that grows."""

    def is_same(self) -> bool:
        """Whether the file goes on where it was left, and was not written anew."""

    def read(self) -> NDArray[np.float64]:
        """Returns rows that have come since the last time, (row, column) float64, some thousands at most."""

    def read_rest(self) -> NDArray[np.float64]:
        """Returns what was waited for to become whole, and will not."""

    def close(self) -> None:
        """Lets go of the file."""


class GrowingFile(PolledSource):
    """Makes a run of each file that appears where the configuration says, or is written anew there.

    Parameters
    ----------
    config : PositionsConfig
    clock : callable
        Monotonic seconds.
    """

    hears_ends = False

    def __init__(self, config: PositionsConfig, clock: Callable[[], float] = time.monotonic) -> None:
        assert config.growing_path is not None  # noqa: S101 -- checked by the configuration
        self._arrivals = Arrivals(config.growing_path, take_existing=config.take_existing)
        self._columns = [config.y, config.x, *filter(None, (config.settled, config.numbers))]
        self._has_numbers, self._first_number = bool(config.numbers), config.first_number
        self._units = ["m", "m"] if config.is_cxi else []
        self._run, self._clock = RunDocuments("growing-file", config), clock
        self._file: FoundFile | None = None
        self._rows: GrowingRows | None = None
        self._n_rows = self._n_before = 0  # read of the file; of them by a process before this one
        self._is_over = False  # the scan that the file is of
        self._resumes: tuple[int, int] | None = None  # the file that such a process has read
        self._looks_at = self._had_news_at = float("-inf")

    def receive(self) -> Sequence[Said]:
        """Returns what has been written since the last look; looks into a silent file now and then."""
        now = self._clock()
        if now < self._looks_at:
            return ()
        self._looks_at = now + LOOK_S
        said: list[Said] = []
        if self._rows is not None and not self._rows.is_same():
            said = self._leave(is_anew=True)
        if self._rows is None or self._is_over or now - self._had_news_at > LINGER_S:
            said += self._look_for_another()
        said += self._read()
        if said:
            self._looks_at = self._had_news_at = now
        return said

    def finish(self) -> Sequence[Said]:
        """Returns the last row, if the end of its line is missing, and the end of the run.

        What the file gets after that is of no scan.
        """
        rest = [] if self._rows is None else self._documents_of(self._rows.read_rest())
        self._is_over = True
        return [*rest, *self._run.stop()]

    def resume(self, name: str, document: Document) -> None:
        """Goes on with the file that a process before this one has read."""
        self._run.resume(name, document)
        identity = document.get("positions_file_id")
        if (
            name == "start"
            and self._run.is_open
            and isinstance(identity, list | tuple)
            and len(identity) == 2
        ):
            self._resumes = identity[0], identity[1]
            self._arrivals.go_on(self._resumes)

    def close(self) -> None:
        """Lets go of the file."""
        if self._rows is not None:
            self._rows.close()

    def _read(self) -> list[Said]:
        self.waits_for = ""
        if self._rows is None or self._file is None:
            self.waits_for = f"there is no new file {self._arrivals.pattern}"
            return []
        try:
            return self._documents_of(self._rows.read())
        except NotYetError as error:
            self.waits_for = str(error)
        except OSError as error:
            self.waits_for = f"{self._file.path}: {error.strerror or error}"
        return []

    def _documents_of(self, rows: NDArray[np.float64]) -> list[Said]:
        if not len(rows) or self._file is None or self._is_over:
            return []
        first, self._n_rows = self._n_rows, self._n_rows + len(rows)
        new = rows[max(self._n_before - first, 0) :]
        if not len(new):
            return []
        said: list[Said] = []
        if not self._run.is_open:
            said = self._run.start(
                series=self._arrivals.series_of(self._file.path),
                units=self._units,
                sources=self._columns,
                positions_file=str(self._file.path),
                positions_file_id=list(self._file.identity),
            )
        if self._has_numbers:
            self._run.add_numbered(new, self._first_number)
        else:
            self._run.add_rows(np.arange(self._n_rows - len(new), self._n_rows), new)
        return [*said, *self._run.pages()]

    def _look_for_another(self) -> list[Said]:
        """Turn to the newest file, if that is another than the one that is read; end the run of that."""
        newest = self._arrivals.newest()
        if newest is None or (self._file is not None and newest.identity == self._file.identity):
            return []
        is_resumed = self._run.is_open and newest.identity == self._resumes
        said = [] if is_resumed else self._leave()
        try:
            reader = GrowingDatasets if newest.path.suffix in HDF5_SUFFIXES else GrowingText
            self._rows = reader(newest.path, self._columns)
        except OSError:  # it is gone again
            return said
        self._file, self._n_rows, self._is_over = newest, 0, False
        # Numbered rows that were read before are known by their numbers.
        self._n_before = self._run.n_captures if is_resumed and not self._has_numbers else 0
        return said

    def _leave(self, *, is_anew: bool = False) -> list[Said]:
        """Let go of the file and end its run."""
        if self._rows is not None and self._file is not None:
            self._rows.close()
            if not is_anew:
                self._arrivals.leave(self._file.identity, self._file.n_bytes)
        self._rows = self._file = None
        return self._run.stop()
