"""A scan that another machine refines, and what happens to that machine and to the line."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stream.record.account import account
from tests.helpers.launch.commands import running
from tests.helpers.letter import ScannedSample
from tests.helpers.other_machine import keys
from tests.helpers.pipeline import Outcome, Pipeline
from tests.helpers.stream.cut_line import CutLine
from tests.helpers.stream.documents import PositionRun

CUT_AT, MENDED_AT, DEAD_AT = 64, 132, 150  # a batch is seen before, one comes while the line is cut
CUT_S = 2.0
SERIES = "lent"


class Trouble:
    """What happens to a scan: the line to the worker that refines it is cut, then the worker dies."""

    def __init__(self, pipeline: Pipeline, line: CutLine, there: int) -> None:
        self.pipeline, self.line, self.there = pipeline, line, there
        self.mend_at, self.resumed_s, self.n_at_death = 0.0, np.inf, 0

    def frames(self, sample: ScannedSample) -> Iterator[np.ndarray]:
        for number, frame in enumerate(sample.frames):
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
                self.n_at_death = self.n_done
                assert self.is_elsewhere
                os.kill(self.there, signal.SIGKILL)
            yield frame

    @property
    def is_elsewhere(self) -> bool:
        progress = self.pipeline.supervisor.progress.get("refinement")
        return progress is not None and bool(progress.counts.get("elsewhere"))

    @property
    def n_done(self) -> int:
        scan = self.pipeline.find(SERIES)
        return 0 if scan is None else account(scan, "refinement").done


class LentScan(NamedTuple):
    """What such a scan came to.

    Attributes
    ----------
    outcome : Outcome
    resumed_s : float
        From the moment at which the line was whole again to the next frame refined there.
    n_at_death : int
        Frames refined when the worker was killed.
    n_restarts : int
        Of processes of the run.
    """

    outcome: Outcome
    resumed_s: float
    n_at_death: int
    n_restarts: int


def lent_scan(folder: Path, sample: ScannedSample) -> LentScan:
    """Play a scan: the line to the worker that refines it is cut for two seconds, then the worker dies."""
    there = folder / "elsewhere"
    keys(folder)
    settings = ("refinement.epochs=10", "remote.enabled=true", "remote.refinement=either")
    settings += ("remote.refinement_address=tcp://127.0.0.1:*", f"remote.peers={folder}/clients")
    settings += (f"remote.key={folder}/keys/run.key_secret",)
    with Pipeline(folder / "save", sample, *settings) as pipeline:
        door = pipeline.supervisor.address("refinement")
        with CutLine(int(door.rpartition(":")[2])) as line:
            options = ("--key", there / "worker.key_secret", "--peers", there / "run.key")
            address = f"tcp://127.0.0.1:{line.port}"
            with running(there / "log", "stage", "refinement", "--of", address, *options) as worker:
                pipeline.until(lambda: "ready: " in worker.output())
                trouble = Trouble(pipeline, line, worker.process.pid)
                pipeline.publish(PositionRun(SERIES, sample.positions_m).documents())
                pipeline.play_frames(trouble.frames(sample), SERIES, len(sample), rate_hz=100)
                outcome = pipeline.outcome(SERIES)
        return LentScan(outcome, trouble.resumed_s, trouble.n_at_death, pipeline.supervisor.n_restarts)
