"""A scan that a worker on another machine shares in, and what happens to that worker and to the line."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stream.record.account import account
from stream.wire.keys import create_keys
from tests.helpers.launch.commands import running
from tests.helpers.letter import ScannedSample
from tests.helpers.pipeline import Outcome, Pipeline
from tests.helpers.stream.cut_line import CutLine
from tests.helpers.stream.documents import PositionRun

ALONE_AT, CUT_AT, MENDED_AT, DEAD_AT = 40, 90, 130, 160
CUT_S = 2.0
SERIES = "shared"


class Trouble:
    """What happens to a scan: the worker beside the detector freezes, the line is cut, the other one dies."""

    def __init__(self, pipeline: Pipeline, line: CutLine, there: int) -> None:
        self.pipeline, self.line, self.there = pipeline, line, there
        self.mend_at, self.resumed_s = 0.0, np.inf

    def frames(self, sample: ScannedSample) -> Iterator[np.ndarray]:
        here = self.pipeline.supervisor.pid("inference-1")
        for number, frame in enumerate(sample.frames):
            if number == ALONE_AT:
                self.pipeline.until(lambda: self.n_done == ALONE_AT)
                os.kill(here, signal.SIGSTOP)
            if number == CUT_AT:
                self.pipeline.until(lambda: self.n_done == CUT_AT)
                self.line.cut()
                self.mend_at = time.monotonic() + CUT_S
            if number == MENDED_AT:
                self.pipeline.until(lambda: time.monotonic() > self.mend_at)
                n_before, mended_at = self.n_done, time.monotonic()
                self.line.mend()
                self.pipeline.until(lambda n=n_before: self.n_done > n)
                self.resumed_s = time.monotonic() - mended_at
            if number == DEAD_AT:
                self.pipeline.until(lambda: self.n_done == DEAD_AT)
                os.kill(self.there, signal.SIGKILL)
                os.kill(here, signal.SIGCONT)
            yield frame

    @property
    def n_done(self) -> int:
        scan = self.pipeline.find(SERIES)
        return 0 if scan is None else account(scan, "inference").done


def keys(folder: Path) -> None:
    """The run's keys, and what a worker gets of them into a folder of its own."""
    create_keys(folder / "keys", "run")
    create_keys(folder / "elsewhere", "worker")
    (folder / "clients").mkdir()
    shutil.copy(folder / "elsewhere" / "worker.key", folder / "clients")
    shutil.copy(folder / "keys" / "run.key", folder / "elsewhere")


class Shared(NamedTuple):
    """What a shared scan came to.

    Attributes
    ----------
    outcome : Outcome
    resumed_s : float
        From the moment at which the line was whole again to the next frame from the other machine.
    n_restarts : int
        Of processes of the run.
    """

    outcome: Outcome
    resumed_s: float
    n_restarts: int


def shared_scan(folder: Path, sample: ScannedSample) -> Shared:
    """Play a scan: the worker beside the detector freezes, the line is cut, the other worker dies."""
    there = folder / "elsewhere"
    keys(folder)
    settings = ("network.weights=demo-fast", "refinement.epochs=2", "remote.enabled=true")
    settings += ("remote.address=tcp://127.0.0.1:*", f"remote.key={folder}/keys/run.key_secret")
    settings += (f"remote.peers={folder}/clients",)
    with Pipeline(folder / "save", sample, *settings) as pipeline:
        door = pipeline.supervisor.address("gateway")
        with CutLine(int(door.rpartition(":")[2])) as line:
            options = ("--key", there / "worker.key_secret", "--peers", there / "run.key")
            address = f"tcp://127.0.0.1:{line.port}"
            with running(there / "log", "stage", "inference", "--of", address, *options) as worker:
                pipeline.until(lambda: "ready: " in worker.output())
                trouble = Trouble(pipeline, line, worker.process.pid)
                pipeline.publish(PositionRun(SERIES, sample.positions_m).documents())
                pipeline.play_frames(trouble.frames(sample), SERIES, len(sample), rate_hz=100)
                outcome = pipeline.outcome(SERIES)
        return Shared(outcome, trouble.resumed_s, pipeline.supervisor.n_restarts)
