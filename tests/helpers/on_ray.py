"""A scan whose network runs on a node of a Ray cluster, and what happens to that node."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stream.record.account import account
from tests.helpers.launch.ray_nodes import RayNodes
from tests.helpers.letter import ScannedSample
from tests.helpers.pipeline import Outcome, Pipeline
from tests.helpers.stream.documents import PositionRun

KILLED_AT, BACK_AT = 60, 120  # frames: before, and from then on, only the node infers
SERIES = "on-ray"
SETTINGS = (
    *("network.weights=demo-fast", "refinement.epochs=2", "remote.enabled=true", "remote.cluster=ray"),
    "remote.address=tcp://0.0.0.0:*",
)


class NodeTrouble:
    """The worker beside the detector stands still unless the node is away, which is killed and comes back."""

    def __init__(self, pipeline: Pipeline, nodes: RayNodes) -> None:
        self.pipeline, self.nodes = pipeline, nodes
        self.said: list[str] = []
        self.missed_s = self.back_s = np.inf

    def frames(self, sample: ScannedSample) -> Iterator[np.ndarray]:
        here = self.pipeline.supervisor.pid("inference-1")
        os.kill(here, signal.SIGSTOP)
        for number, frame in enumerate(sample.frames):
            if number == KILLED_AT:
                self.pipeline.until(lambda: self.n_done == KILLED_AT)
                began = time.monotonic()
                self.nodes.kill_node()
                os.kill(here, signal.SIGCONT)
                self.pipeline.until(lambda: self.row.startswith("0 of 1"))
                self.missed_s = time.monotonic() - began
            if number == BACK_AT:
                self.pipeline.until(lambda: self.n_done == BACK_AT)
                began = time.monotonic()
                self.nodes.start_node()
                self.pipeline.until(lambda: self.row.startswith("1 of 1") and self.n_workers == 1)
                self.back_s = time.monotonic() - began
                os.kill(here, signal.SIGSTOP)
            yield frame
        self.pipeline.until(lambda: self.n_done == len(sample))
        os.kill(here, signal.SIGCONT)

    @property
    def row(self) -> str:
        """What the run says of its workers on the cluster."""
        rows = self.pipeline.supervisor.state.stages
        return next((row.text for row in rows if row.name == "cluster"), "")

    @property
    def n_workers(self) -> int:
        gateway = self.pipeline.supervisor.progress.get("gateway")
        return gateway.counts["workers"] if gateway else 0

    @property
    def n_done(self) -> int:
        scan = self.pipeline.find(SERIES)
        return 0 if scan is None else account(scan, "inference").done


class OnRay(NamedTuple):
    """What such a scan came to.

    Attributes
    ----------
    outcome : Outcome
    missed_s, back_s : float
        Until the run said that the node was away, and from its start until its worker was at work again.
    n_restarts : int
        Of processes of the run.
    n_left : int
        Commands of workers that are still there after the run.
    """

    outcome: Outcome
    missed_s: float
    back_s: float
    n_restarts: int
    n_left: int


def scan_on_ray(folder: Path, sample: ScannedSample, nodes: RayNodes) -> OnRay:
    """Play a scan: the node infers alone, is killed, and is started again."""
    with Pipeline(folder, sample, *SETTINGS) as pipeline:
        trouble = NodeTrouble(pipeline, nodes)
        pipeline.until(lambda: trouble.row.startswith("1 of 1") and trouble.n_workers == 1)
        pipeline.publish(PositionRun(SERIES, sample.positions_m).documents())
        pipeline.play_frames(trouble.frames(sample), SERIES, len(sample), rate_hz=100)
        outcome, n_restarts = pipeline.outcome(SERIES), pipeline.supervisor.n_restarts
        door = pipeline.supervisor.address("gateway")
        assert n_workers_of(door) == 1
    return OnRay(outcome, trouble.missed_s, trouble.back_s, n_restarts, n_workers_of(door))


def n_workers_of(door: str) -> int:
    """How many commands on this computer work for the run at this address."""
    port = f":{door.rpartition(':')[2]}\0".encode()
    commands = list[bytes]()
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            commands.append(file.read_bytes())
    return sum(b"\0launch\0stage\0" in command and port in command for command in commands)
