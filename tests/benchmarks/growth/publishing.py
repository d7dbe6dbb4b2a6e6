"""What it costs to publish a change of the image, on a small and on a large canvas."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from operators.geometry import Bounds
from stream.record.scan import Numbers
from stream.record.snapshot import TILE_PX, SnapshotWriter, tiles_on
from stream.stages.config import LiveConfig
from stream.stages.inputs import ImageOrigin
from stream.stages.stitching.picture import LivePicture
from stream.wire.codec import encode
from tests.benchmarks.growth.scans import Frames, GrowingScan, state_on
from tests.benchmarks.growth.stages import Ticks, no_work

SMALL_PX, LARGE_PX = 512, 4096
FRAMES = Frames(64)  # as large as a tile, and on the grid of tiles: a frame changes one
N_CHANGED, N_AT_ONCE, STEP_PX, ROUNDS = 64, 64, 32, 9


def publishing_figures(folder: Path) -> dict[str, float]:
    """Return what 64 changed tiles cost until a client can be sent them, milliseconds of the processor.

    `publish_ms`: 64 frames are new in the mosaic. `handover_ms`: 64 tiles of the refined object have changed,
    from their handing over by refinement on.
    """
    figures = {}
    for side in (SMALL_PX, LARGE_PX):
        bench = Bench(folder / str(side), side)
        figures[f"publish_ms_{side}"] = bench.median_ms(bench.mosaic_changes, N_CHANGED)
        figures[f"handover_ms_{side}"] = bench.median_ms(bench.object_changes, N_CHANGED)
    for name in ("publish_ms", "handover_ms"):
        figures[f"{name}_4096_over_512"] = figures[f"{name}_{LARGE_PX}"] / figures[f"{name}_{SMALL_PX}"]
    return figures


class Bench:
    """A picture that covers a canvas, and a client that has all of it."""

    def __init__(self, folder: Path, side: int) -> None:
        self._side, n = side, FRAMES.n_pixels
        folder.mkdir(parents=True)
        self._growing = GrowingScan(folder / "scans", FRAMES, self._places)
        origin = ImageOrigin(optics=FRAMES.optics(folder), uses_network=True, uses_refinement=True)
        clock = Ticks()
        self._picture = LivePicture(LiveConfig(tile_px=n), origin, self._growing.scan, clock, no_work)
        self._picture.handle(self._growing.add(N_AT_ONCE, with_frames=False))
        clock.step_s = 0.0  # nothing is published until all is there
        for _ in range(-(-((side // STEP_PX) ** 2) // N_AT_ONCE)):
            self._picture.handle(self._growing.add(N_AT_ONCE, with_frames=False))
        clock.step_s = 1.0
        self._counters = self._growing.scan.counters("refinement", writable=True)
        self._writer, self._n_updates = SnapshotWriter(self._growing.scan.folder), 1000
        self._hand_over(tiles_on(Bounds(0, 0, side, side)))

    def median_ms(self, change: Callable[[], Callable[[], None]], n_tiles: int) -> float:
        """Return how long it takes from a change until `n_tiles` are ready to be sent."""
        times = []
        for _ in range(ROUNDS):
            publish, after = change(), self._picture.version
            begin = time.process_time()
            publish()
            news = self._picture.news_after(self._growing.scan.name, after)
            parts = encode(*news) if news else []
            times.append(time.process_time() - begin)
            n_sent = len(news[1][0]) if parts and news else 0
            if n_sent != n_tiles:
                raise RuntimeError(f"{n_sent} tiles were published, {n_tiles} have changed")
        return 1e3 * statistics.median(times)

    def mosaic_changes(self) -> Callable[[], None]:
        """Let 64 frames come, each on one tile; return what publishes them."""
        numbers = self._growing.add(N_CHANGED, with_frames=False)
        return lambda: self._picture.handle(numbers)

    def object_changes(self) -> Callable[[], None]:
        """Let refinement change 64 tiles; return what hands them over and publishes them."""
        changed = tiles_on(Bounds(0, 0, SMALL_PX, SMALL_PX))[:N_CHANGED]
        return lambda: self._hand_over(changed)

    def _hand_over(self, tiles: list[tuple[int, int]]) -> None:
        self._n_updates += 64
        bounds = Bounds(0, 0, self._side, self._side)
        state = state_on(bounds, FRAMES.probe(), 1000, self._n_updates)
        turned = np.full((TILE_PX, TILE_PX), np.exp(1e-3j * self._n_updates), np.complex64)
        lit = np.full((TILE_PX, TILE_PX), 1e3, np.float32)
        self._writer.write(state, ((index, (turned, lit)) for index in tiles))
        self._counters["version"] += 1
        self._picture.idle(0.0)

    def _places(self, numbers: Numbers) -> np.ndarray:
        """Return a grid that overlaps, so that it hangs together in phase, and then the grid of the tiles."""
        n_dense, per_row = (self._side // STEP_PX) ** 2, self._side // STEP_PX
        dense = STEP_PX * np.stack(np.divmod(numbers % n_dense, per_row), axis=1)
        on_tiles = FRAMES.n_pixels * np.stack(np.divmod(numbers % N_CHANGED, 8), axis=1)
        places = np.where((numbers < n_dense)[:, None], dense, on_tiles)
        return np.minimum(places, self._side - FRAMES.n_pixels)
