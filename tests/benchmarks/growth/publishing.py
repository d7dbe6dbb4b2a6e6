"""What it costs to publish a change of the image, on a small and on a large canvas."""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from operators.geometry import Bounds
from stream.record.scan import Numbers
from stream.record.snapshot import write_snapshot
from stream.stages.config import LiveConfig
from stream.stages.inputs import ImageOrigin
from stream.stages.stitcher import LivePicture
from stream.wire.codec import encode
from tests.benchmarks.growth.scans import Frames, GrowingScan, snapshot_on
from tests.benchmarks.growth.turns import Ticks

SMALL_PX, LARGE_PX, CHANGED_PX = 512, 4096, 512
FRAMES = Frames(64)  # as large as a tile, and on the grid of tiles: a frame changes one
N_CHANGED, ROUNDS = 64, 9


def publishing_figures(folder: Path) -> dict[str, float]:
    """Return what 64 changed tiles cost until a client can be sent them, milliseconds.

    `publish_ms`: 64 frames are new in the mosaic. `handover_ms`: 64 tiles of the refined object have changed,
    from their handing over by refinement on.
    """
    figures = {}
    for side in (SMALL_PX, LARGE_PX):
        bench = Bench(folder / str(side), side)
        figures[f"publish_ms_{side}"] = bench.median_ms(bench.mosaic_changes, N_CHANGED)
        figures[f"handover_ms_{side}"] = bench.median_ms(bench.object_changes)
    for name in ("publish_ms", "handover_ms"):
        figures[f"{name}_4096_over_512"] = figures[f"{name}_{LARGE_PX}"] / figures[f"{name}_{SMALL_PX}"]
    return figures


class Bench:
    """A picture that covers a canvas, and a client that has all of it."""

    def __init__(self, folder: Path, side: int) -> None:
        n, self._per_row = FRAMES.n_pixels, side // FRAMES.n_pixels
        folder.mkdir(parents=True)
        self._growing = GrowingScan(folder / "scans", FRAMES, self._places)
        self._counters = self._growing.scan.counters("refinement", writable=True)
        origin = ImageOrigin(optics=FRAMES.optics(folder), uses_network=True, uses_refinement=True)
        self._picture = LivePicture(LiveConfig(tile_px=n), origin, self._growing.scan, Ticks())
        for _ in range(self._per_row**2 // N_CHANGED):
            self._picture.handle(self._growing.add(N_CHANGED))
        self._snapshot = snapshot_on(Bounds(0, 0, side, side), FRAMES.probe(), 1000, 1000)

    def median_ms(self, change: Callable[[], Callable[[], None]], n_tiles: int = 0) -> float:
        """Return how long it takes from a change until it is ready to be sent."""
        times = []
        for _ in range(ROUNDS):
            publish, after = change(), self._picture.version
            begin = time.perf_counter()
            publish()
            news = self._picture.news_after(self._growing.scan.name, after)
            parts = encode(*news) if news else []
            times.append(time.perf_counter() - begin)
            n_sent = len(news[1][0]) if parts and news else 0
            if n_tiles and n_sent != n_tiles:
                raise RuntimeError(f"{n_sent} tiles were published, {n_tiles} have changed")
        return 1e3 * statistics.median(times)

    def mosaic_changes(self) -> Callable[[], None]:
        """Let 64 frames come, each on one tile; return what publishes them."""
        numbers = self._growing.add(N_CHANGED)
        return lambda: self._picture.handle(numbers)

    def object_changes(self) -> Callable[[], None]:
        """Let refinement change 64 tiles; return what hands them over and publishes them."""
        before = self._snapshot
        object_ = before.object.copy()
        object_[:CHANGED_PX, :CHANGED_PX] *= np.exp(0.05j)
        self._snapshot = replace(before, object=object_, n_updates=before.n_updates + 64)

        def publish() -> None:
            write_snapshot(self._growing.scan.folder, self._snapshot)
            self._counters["version"] += 1
            self._picture.idle(0.0)

        return publish

    def _places(self, numbers: Numbers) -> np.ndarray:
        rows, columns = np.divmod(numbers % self._per_row**2, self._per_row)
        return FRAMES.n_pixels * np.stack([rows, columns], axis=1)
