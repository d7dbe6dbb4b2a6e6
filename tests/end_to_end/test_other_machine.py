"""A worker of inference on another machine: a folder of its own, keys, TCP, and a line that is cut."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from launch.config.config import FAST_WEIGHTS
from stream.record.account import account
from stream.stages.config import NetworkConfig
from stream.stages.inference.worker import Inference, ScanPasses
from stream.stages.inputs import Optics
from stream.wire.sockets import create_keys
from tests.helpers.launch.commands import running
from tests.helpers.letter import ScannedSample
from tests.helpers.pipeline import Pipeline
from tests.helpers.stream.cut_line import CutLine
from tests.helpers.stream.documents import PositionRun

pytestmark = [pytest.mark.slow, pytest.mark.alone]

ALONE_AT, CUT_AT, MENDED_AT, DEAD_AT = 40, 90, 130, 160
CUT_S = 2.0
MOST_TO_RESUME_S = 0.5
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


@pytest.mark.timeout(300)
def test_a_worker_on_another_machine_does_its_share_survives_a_cut_and_may_vanish(
    run_folder: Path, demo_sample: ScannedSample
) -> None:
    sample, there = demo_sample, run_folder / "elsewhere"
    keys(run_folder)
    settings = ("network.weights=demo-fast", "refinement.epochs=2", "remote.enabled=true")
    settings += ("remote.address=tcp://127.0.0.1:*", f"remote.key={run_folder}/keys/run.key_secret")
    settings += (f"remote.peers={run_folder}/clients",)
    with Pipeline(run_folder / "save", sample, *settings) as pipeline:
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
        assert pipeline.supervisor.n_restarts == 0

    outcome.assert_accounted(recorded=len(sample))
    assert outcome.figures["is_complete"]
    scan, numbers = outcome.scan, np.arange(len(sample))
    by = scan.column("worker").read(numbers)
    assert set(by[ALONE_AT:DEAD_AT].tolist()) == {2}
    assert set(by[DEAD_AT:].tolist()) == {1}
    inference = Inference(
        NetworkConfig(weights=FAST_WEIGHTS, device="cpu"),
        Optics(pipeline.supervisor.run.config.geometry, run_folder / "save" / "known-probe.npy"),
    )
    passes = ScanPasses(inference, scan)
    ready = passes.weights.look()
    made = np.concatenate([passes.infer(ready, part).patches for part in np.array_split(numbers, 25)])
    passes.weights.close()
    difference = np.abs(scan.column("patches").read(numbers) - made).max(axis=(1, 2))
    assert difference.max() < 1e-3 * np.abs(made).max()
    assert trouble.resumed_s < MOST_TO_RESUME_S
