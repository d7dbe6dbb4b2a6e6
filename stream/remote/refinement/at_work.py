"""A stage at work on the mirror of a scan: in a thread of its own, so that the line is answered meanwhile."""

import threading
import time
from collections.abc import Mapping
from pathlib import Path

from operators.arrays import release_memory
from stream.stages.cursor import Clock, LeftOut
from stream.stages.loop import WorkerLoop
from stream.stages.stage import Worker


class InTurn:
    """The stage does a piece of work whenever it is asked to.

    Parameters
    ----------
    stage : Worker
    scans : Path
        Folder with the mirror.
    clock : callable
        Monotonic seconds.

    Attributes
    ----------
    pause_s : float
        How long there is nothing to do after the last turn, seconds.
    """

    def __init__(self, stage: Worker, scans: Path, clock: Clock = time.monotonic) -> None:
        self._loop, self.pause_s = WorkerLoop(stage, scans, clock), 0.0
        self._counts: Mapping[str, int] = {}
        self._left_out: LeftOut | None = None

    def turn(self) -> bool:
        """Does a piece of work; says whether there is more to do at once."""
        self.pause_s = self._loop.turn()
        _, self._counts = self._loop.progress()
        if isinstance(self._loop.work, LeftOut):
            self._left_out = self._loop.work
        return self.pause_s == 0.0

    def left_out(self) -> str:
        """Returns why nothing can come of the scan, "" while something may.

        Raises
        ------
        MemoryError, DiskFullError
            If that is for this machine alone to say.
        """
        return "" if self._left_out is None else self._left_out.reason_for_others()

    def counts(self) -> Mapping[str, int]:
        """Returns how far it is."""
        return self._counts

    def close(self) -> None:
        """Lets go of the scan as it is."""
        release_memory()


class InThread:
    """The same, at work by itself; what the stage raises is raised by the next call of `left_out`."""

    def __init__(self, stage: Worker, scans: Path) -> None:
        self._work, self._is_over = InTurn(stage, scans), threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="refinement", daemon=True)
        self._thread.start()

    def turn(self) -> bool:
        """Does nothing: the stage is at work."""
        return False

    def left_out(self) -> str:
        """Returns and raises the same as `InTurn`, and whatever the stage has raised."""
        if self._error is not None:
            raise self._error
        return self._work.left_out()

    def counts(self) -> Mapping[str, int]:
        """Returns how far it is."""
        return self._work.counts()

    def close(self) -> None:
        """Has the stage stop after what it is at, and lets go of the scan."""
        self._is_over.set()
        self._thread.join()
        self._work.close()

    def _run(self) -> None:
        try:
            while not self._is_over.is_set():
                if not self._work.turn():
                    self._is_over.wait(self._work.pause_s)
        except BaseException as error:
            self._error = error
