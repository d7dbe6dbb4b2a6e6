"""A stitcher in its loop, the scan it works on, and somebody who watches."""

import numpy as np

from operators.geometry import Bounds
from operators.metrics.errors import nrmse
from stream.record.snapshot import write_snapshot
from stream.stages.config import LiveConfig
from stream.stages.inputs import ImageOrigin
from stream.stages.loop import WorkerLoop
from stream.stages.stitching.worker import Stitcher
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.scans import close, make_scan, snapshot_of
from tests.helpers.stream.stitcher_client import Watcher

INTERVAL_S = 0.04
INPUTS = ("subscriber", "positions", "inference")
UPPER, LOWER, BETWEEN = np.arange(6), np.arange(30, 36), np.arange(6, 30)  # of rows of 6 frames


class Bench:
    """A stitcher in its loop, the scan it works on and somebody who watches."""

    def __init__(self, folder, scanned, **origin):
        self.scanned, self.scans = scanned, folder / "scans"
        self.clock, self.worked = Clock(), Clock()  # of the wall, of the processor
        self.scans.mkdir()
        origin = {"uses_network": True, "uses_refinement": False, "run_id": "run-7", **origin}
        self._origin = ImageOrigin(optics=scanned.optics(folder), **origin)
        self.scan = make_scan(self.scans)
        self.restart()
        self.watcher = Watcher(self.stitcher)

    def restart(self):
        """Begin with a new process."""
        config = LiveConfig(tile_px=16, interval_s=INTERVAL_S)
        self.stitcher = Stitcher(config, self._origin, self.clock, work_clock=self.worked)
        self.loop = WorkerLoop(self.stitcher, self.scans, self.clock)

    def turns(self, n=12):
        for _ in range(n):
            self.loop.turn()
            self.clock.now += INTERVAL_S

    def ends(self, *others):
        close(self.scan, *INPUTS, *others)
        self.turns()

    def sees(self):
        return self.watcher.asks()


def error(image, scanned):
    """Return the error of a live image against the truth, where something is known."""
    (top, left), (n_rows, n_columns) = image.origin_px - scanned.origin, image.object.shape
    truth = scanned.truth[top : top + n_rows, left : left + n_columns]
    return nrmse(image.object, truth, image.coverage).c


def refine(bench, turn=1.0, version=1, **changes):
    """Publish the left half of the truth as refined, in a phase of its own."""
    scanned = bench.scanned
    (top, left), (n_rows, n_columns) = scanned.origin.tolist(), scanned.truth.shape
    bounds = Bounds(top, left, top + n_rows, left + n_columns // 2)
    object_ = (scanned.truth[:, : n_columns // 2] * np.exp(1j * turn)).astype(np.complex64)
    write_snapshot(bench.scan.folder, snapshot_of(object_, bounds, **{"n_updates": 30 * version, **changes}))
    bench.scan.counters("refinement", writable=True)["version"] = version
    return bounds
