"""Stage: the object grows with the scan and is refined between arrivals.

Every frame that has a position goes into the engine (operators.engine.refiner), new ground starts from the
network's patches where there is a network, and whenever nothing has arrived the engine runs. The picture is
published as a snapshot file, from which the stage also goes on after a crash.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from operators.arrays import Array, Corners, Patches, Patterns, Probe, to_numpy
from operators.engine.backends import get_backend, on_host
from operators.engine.config import CLOSING, RefinerConfig, RefinerSnapshot, closing_fraction
from operators.engine.probe_search import estimate_probe
from operators.engine.refiner import Refiner
from operators.engine.seeding import Seeding
from operators.geometry import window_corners
from operators.mosaic.mosaic import Mosaic, stitch
from operators.optics.probe import probe_modes, with_power
from stream.record.probe import found_probe
from stream.record.scan import Numbers, Scan, State
from stream.record.snapshot import read_snapshot, write_snapshot
from stream.stages.inputs import Optics, read_corners, read_patches, read_patterns, read_positions_px
from stream.wire.codec import Buffer
from stream.wire.sockets import Endpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefinementConfig:
    """Settings of the refinement stage.

    Attributes
    ----------
    optics : Optics
        Without a probe the stage takes the one found in the scan, or finds one from the first frames.
    refiner : RefinerConfig
    epochs : float
        Visits per frame after which the object is done. The last third of them, with falling steps, is kept
        for when all frames are there.
    n_modes : int
        Modes of the probe.
    scale_probe : bool
        Whether the probe is scaled to the mean photons of the frames; otherwise its own power is trusted.
    uses_network : bool
        Whether new ground starts from the network's patches.
    starts_over : bool
        Whether the object is started again from the network's patches when all frames are there. A scan that
        first visits the field sparsely needs it: what was refined without neighbours keeps its own phase.
    first_frames : int
        Frames to wait for before refining, and from which a missing probe is found.
    publish_s : float
        Least time between two snapshots.
    device : str
        Backend of the engine: "numpy", "compiled", "cupy", "cupy-fused", or "auto" for the fastest measured.
    threads : int
        Cores it may use.
    """

    optics: Optics
    refiner: RefinerConfig = field(default_factory=RefinerConfig)
    epochs: float = 40.0
    n_modes: int = 1
    scale_probe: bool = True
    uses_network: bool = False
    starts_over: bool = False
    first_frames: int = 32
    publish_s: float = 0.5
    device: str = "auto"
    threads: int = 1


class Refinement:
    """Worker: keeps refining whatever frames its scan has so far."""

    name = "refinement"
    waits_for: tuple[str, ...] = ()
    door: Endpoint | None = None
    newest_first = False  # neighbours first: an island has a phase of its own
    # New ground is started once, when its frames come. A batch of a few rows starts it well; a few frames at
    # the edge of the scan start it badly, and the final object is worse by a fifth. The mosaic shows the edge
    # meanwhile.
    batch_size = 64
    deadline_s = 1.0

    def __init__(self, config: RefinementConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self.config, self._clock = config, clock
        self.inputs = ("subscriber", "positions") + (("inference",) if config.uses_network else ())
        self._scan: Scan | None = None
        self._refiner: Refiner | None = None

    def prepare(self) -> None:
        """Chooses the device and loads the known probe, so that a wrong one is reported before the scan."""
        self._backend = get_backend(self.config.device, self.config.threads)
        self._known = self.config.optics.load_probe() if self.config.optics.probe else None

    def open(self, scan: Scan) -> None:
        """Begins a scan; after a restart takes up the last snapshot and all frames that had been refined."""
        self._scan, self._refiner = scan, None
        self._preprocess = self.config.optics.preprocess(scan)
        self._waiting: list[int] = []
        self._starts_over = self.config.starts_over and self.config.uses_network
        self._counters = scan.counters(self.name, writable=True)
        self._refined_s = scan.column("refined_s", writable=True)
        self._visits = scan.column("visits", writable=True)
        self._held: list[int] = []
        self._unmarked: list[int] = []
        self._snapshot_at, self._snapshot_updates = float("-inf"), 0
        snapshot = read_snapshot(scan.folder)
        held = np.flatnonzero(scan.states(self.name) == State.DONE)
        if snapshot is not None and held.size:
            log.warning(
                "refinement goes on with %s from %d frames and their last picture", scan.name, held.size
            )
            self._start(snapshot.probe)
            self._append(held)
            self._engine.restore(snapshot)

    def handle(self, numbers: Numbers) -> None:
        """Holds these frames; refining begins when there are enough to find scale and probe."""
        if self._refiner is None:
            self._waiting.extend(numbers.tolist())
            if len(self._waiting) < self.config.first_frames and not self._is_tail():
                return
            numbers = np.array(self._waiting, np.int64)
            self._start(self._first_probe(numbers))
            self._waiting = []
        self._append(numbers)

    def idle(self, deadline: float) -> bool:
        """Refines until `deadline`; says whether the scan wants more."""
        if self._refiner is None:
            if self._scan is not None and self._waiting and self._is_tail():
                self.handle(np.zeros(0, np.int64))
                return True
            return False
        if self._starts_over and self._is_tail():
            self._start_over()
        while self._wants_more():
            self._step()
            if self._clock() >= deadline:
                break
        if self._clock() - self._snapshot_at >= self.config.publish_s:
            self._publish()
        return self._wants_more()

    def close(self) -> None:
        """Publishes the last picture."""
        if self._refiner is not None:
            self._publish()
        self._scan = self._refiner = None

    def exchange(self, requests: Sequence[Sequence[Buffer]]) -> list[list[Buffer]]:
        """Has no door."""
        return []

    def counts(self) -> dict[str, int]:
        """Returns how far the refinement is."""
        if self._refiner is None:
            return {}
        return {
            "epoch_milli": int(1000 * self._refiner.epoch),
            "updates": self._refiner.n_updates,
            "divergences": self._refiner.n_divergences,
            "seeds_refused": self._seeding.n_refused,
        }

    @property
    def _engine(self) -> Refiner:
        assert self._refiner is not None  # noqa: S101  (only called once refining has begun)
        return self._refiner

    @property
    def _open_scan(self) -> Scan:
        assert self._scan is not None  # noqa: S101  (the loop opens before it calls)
        return self._scan

    def _is_tail(self) -> bool:
        return all(self._open_scan.count(stage, "closed") for stage in self.inputs)

    def _wants_more(self) -> bool:
        return self._engine.epoch < (self.config.epochs if self._is_tail() else self._open_epochs)

    @property
    def _open_epochs(self) -> float:
        """Epochs after which refinement waits for more frames: the closing needs them all."""
        return (1 - CLOSING) * self.config.epochs

    def _step(self) -> None:
        closes = self._is_tail()
        fraction = closing_fraction(self._engine.epoch, self.config.epochs) if closes else 1.0
        self._engine.step(1, fraction=fraction)

    def _first_probe(self, numbers: Numbers) -> Probe:
        patterns = read_patterns(self._open_scan, self._preprocess, numbers)
        known = found_probe(self._open_scan) if self._known is None else self._known
        if known is None:
            positions_px = read_positions_px(self._open_scan, self.config.optics.geometry, numbers)
            n_modes, mask = self.config.n_modes, self._preprocess.mask
            run_update = on_host(self._backend, self.config.threads).update
            return estimate_probe(patterns, positions_px, n_modes=n_modes, mask=mask, run_update=run_update)
        probe = known
        if len(probe) < self.config.n_modes:
            probe = probe_modes(probe[0], self.config.n_modes)
        photons = float((patterns * self._preprocess.mask).sum(dtype=np.float64)) / len(patterns)
        return with_power(probe, photons) if self.config.scale_probe else probe

    def _start(self, probe: Probe) -> None:
        _, xp, run_update = self._backend
        mask = self._preprocess.mask
        self._refiner = Refiner(self.config.refiner, probe, mask=mask, xp=xp, run_update=run_update)
        illumination = (np.abs(probe) ** 2).sum(axis=0)
        self._mosaic = Mosaic(illumination) if self.config.uses_network else None
        self._seeding = Seeding(mask)

    def _append(self, numbers: Numbers) -> None:
        if self._mosaic is not None:
            self._mosaic.add(*self._patches(numbers))
        self._refine_too(numbers)
        self._held.extend(numbers.tolist())
        self._unmarked.extend(numbers.tolist())

    def _patches(self, numbers: Numbers) -> tuple[Patches, Array, Corners]:
        scan, geometry = self._open_scan, self.config.optics.geometry
        return *read_patches(scan, geometry.n_pixels, numbers), read_corners(scan, geometry, numbers)

    def _refine_too(self, numbers: Numbers) -> None:
        """Let these frames take part, new ground started from the mosaic, which has their patches."""
        scan, geometry = self._open_scan, self.config.optics.geometry
        patterns = read_patterns(scan, self._preprocess, numbers)
        positions_px = read_positions_px(scan, geometry, numbers)
        self._engine.append(numbers.tolist(), patterns, positions_px)
        if self._mosaic is not None:
            self._seed(self._mosaic, patterns, window_corners(positions_px))

    def _start_over(self) -> None:
        """Start again from the mosaic of all frames, unless the network is not to be believed."""
        self._starts_over = False
        before = self._refiner, self._mosaic
        numbers = np.sort(np.array(self._held, np.int64))
        self._start(self._engine.snapshot().probe)
        assert self._mosaic is not None  # noqa: S101  (there is a network)
        patches, sigma, corners = self._patches(numbers)
        self._mosaic = stitch(patches, sigma, self._mosaic.weights, corners)
        for start in range(0, len(numbers), self.batch_size):
            self._refine_too(numbers[start : start + self.batch_size])
        if not self._seeding.trusts_network:
            self._refiner, self._mosaic = before

    def _seed(self, mosaic: Mosaic, patterns: Patterns, corners: Corners) -> None:
        """Start new ground from the network where that explains the frames better than nothing."""
        # Windows of the mosaic agree in phase where patches do not.
        engine, seeds = self._engine, mosaic.windows(corners)
        probe, current = to_numpy(engine.probe), to_numpy(engine.windows(corners))
        starts = self._seeding.starts(patterns, probe, seeds, mosaic.weights, current)
        if starts is not None:
            engine.seed_object(starts, mosaic.weights, corners)

    def _publish(self) -> None:
        if self._engine.n_updates == self._snapshot_updates:
            return
        visited = self._engine.visited(self._unmarked)
        snapshot = self._engine.snapshot()
        if self.config.scale_probe:
            snapshot = scaled_to(snapshot, self._engine.mean_photons)
        write_snapshot(self._open_scan.folder, snapshot)
        self._visits.write(self._held, self._engine.n_visits(self._held))
        self._counters["version"] = self._counters["version"] + 1
        self._counters["epochs_milli"] = int(1000 * snapshot.epoch)
        self._counters["divergences"] = snapshot.n_divergences
        now = self._clock()
        self._refined_s.write(visited, now)
        self._open_scan.mark(self.name, visited, State.DONE)
        self._unmarked = sorted(set(self._unmarked) - set(visited.tolist()))
        self._snapshot_at, self._snapshot_updates = now, self._engine.n_updates


def scaled_to(snapshot: RefinerSnapshot, photons: float) -> RefinerSnapshot:
    """Returns the snapshot with the probe's power at `photons`; probe times object stays the same.

    Early frames fix a provisional scale; once more are known the mean over all of them is the convention,
    which is also what offline reconstruction uses.
    """
    power = float((np.abs(snapshot.probe) ** 2).sum())
    factor = np.float32(np.sqrt(photons / power))
    return replace(snapshot, probe=snapshot.probe * factor, object=snapshot.object / factor)
