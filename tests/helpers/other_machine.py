"""A scan that a worker on another machine takes part in, and what happens to that worker and to the line."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from stream.record.account import account
from stream.wire.keys import create_keys
from tests.helpers.launch.commands import running
from tests.helpers.letter import ScannedSample
from tests.helpers.pipeline import Outcome, Pipeline
from tests.helpers.stream.cut_line import CutLine
from tests.helpers.stream.documents import PositionRun

CUT_S = 2.0


class Trouble:
    """What happens to a scan on the way: the line to the worker is cut and mended, then the worker dies.

    Attributes
    ----------
    resumed_s : float
        From the moment at which the line was whole again to the next frame from the other machine.
    """

    stage, series = "", ""
    cut_at, mended_at = 0, 0  # frames

    def __init__(self, pipeline: Pipeline, line: CutLine, there: int) -> None:
        self.pipeline, self.line, self.there = pipeline, line, there
        self._whole_at, self.resumed_s = 0.0, np.inf

    def frames(self, sample: ScannedSample) -> Iterator[np.ndarray]:
        for number, frame in enumerate(sample.frames):
            if number == self.cut_at:
                self.until_done(number)
                self.line.cut()
                self._whole_at = time.monotonic() + CUT_S
            if number == self.mended_at:
                self.pipeline.until(lambda: time.monotonic() > self._whole_at)
                n_before, mended_at = self.n_done, time.monotonic()
                self.line.mend()
                self.pipeline.until(lambda n=n_before: self.n_done > n)
                self.resumed_s = time.monotonic() - mended_at
            self.happens(number)
            yield frame

    def happens(self, number: int) -> None:
        """What else happens before a frame is sent."""

    def until_done(self, n_frames: int) -> None:
        self.pipeline.until(lambda: self.n_done == n_frames)

    @property
    def n_done(self) -> int:
        scan = self.pipeline.find(self.series)
        return 0 if scan is None else account(scan, self.stage).done


class SharedTrouble(Trouble):
    """The worker beside the detector freezes, the line is cut, the other worker dies."""

    stage, series = "inference", "shared"
    alone_at, cut_at, mended_at, dead_at = 40, 90, 130, 160

    def happens(self, number: int) -> None:
        here = self.pipeline.supervisor.pid("inference-1")
        if number == self.alone_at:
            self.until_done(number)
            os.kill(here, signal.SIGSTOP)
        if number == self.dead_at:
            self.until_done(number)
            os.kill(self.there, signal.SIGKILL)
            os.kill(here, signal.SIGCONT)


class LentTrouble(Trouble):
    """The line to the worker that refines a scan is cut, then that worker dies.

    Attributes
    ----------
    n_at_death : int
        Frames refined when it was killed.
    """

    stage, series = "refinement", "lent"
    cut_at, mended_at, dead_at = 64, 132, 150  # a batch is seen before, one comes while the line is cut
    n_at_death = 0

    def happens(self, number: int) -> None:
        if number == self.dead_at:
            self.n_at_death = self.n_done
            progress = self.pipeline.supervisor.progress.get(self.stage)
            assert progress is not None and progress.counts.get("elsewhere"), "it is refined there"
            os.kill(self.there, signal.SIGKILL)


T = TypeVar("T", bound=Trouble)


def keys(folder: Path) -> None:
    """The run's keys, and what a worker gets of them into a folder of its own."""
    create_keys(folder / "keys", "run")
    create_keys(folder / "elsewhere", "worker")
    (folder / "clients").mkdir()
    shutil.copy(folder / "elsewhere" / "worker.key", folder / "clients")
    shutil.copy(folder / "keys" / "run.key", folder / "elsewhere")


class Played(NamedTuple, Generic[T]):
    """What such a scan came to.

    Attributes
    ----------
    outcome : Outcome
    trouble : Trouble
    n_restarts : int
        Of processes of the run.
    """

    outcome: Outcome
    trouble: T
    n_restarts: int


def shared_scan(folder: Path, sample: ScannedSample) -> Played[SharedTrouble]:
    """Play a scan of which a worker on another machine infers a part."""
    settings = ("network.weights=demo-fast", "refinement.epochs=2", "remote.address=tcp://127.0.0.1:*")
    return _played(folder, sample, SharedTrouble, "gateway", *settings)


def lent_scan(folder: Path, sample: ScannedSample) -> Played[LentTrouble]:
    """Play a scan that a worker on another machine refines."""
    address = "remote.refinement_address=tcp://127.0.0.1:*"
    settings = ("refinement.epochs=10", "remote.refinement=either", address)
    return _played(folder, sample, LentTrouble, "refinement", *settings)


def _played(folder: Path, sample: ScannedSample, kind: type[T], process: str, *settings: str) -> Played[T]:
    """Play a scan with keys; the worker comes to the door of `process` by a line that can be cut."""
    there = folder / "elsewhere"
    keys(folder)
    settings += ("remote.enabled=true", f"remote.key={folder}/keys/run.key_secret")
    settings += (f"remote.peers={folder}/clients",)
    with Pipeline(folder / "save", sample, *settings) as pipeline:
        door = pipeline.supervisor.address(process)
        with CutLine(int(door.rpartition(":")[2])) as line:
            options = ("--key", there / "worker.key_secret", "--peers", there / "run.key")
            address = f"tcp://127.0.0.1:{line.port}"
            with running(there / "log", "stage", kind.stage, "--of", address, *options) as worker:
                pipeline.until(lambda: "ready: " in worker.output())
                trouble = kind(pipeline, line, worker.process.pid)
                pipeline.publish(PositionRun(kind.series, sample.positions_m).documents())
                pipeline.play_frames(trouble.frames(sample), kind.series, len(sample), rate_hz=100)
                outcome = pipeline.outcome(kind.series)
        return Played(outcome, trouble, pipeline.supervisor.n_restarts)
