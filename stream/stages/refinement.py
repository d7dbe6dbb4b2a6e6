"""Stage: the object grows with the scan and is refined between arrivals.

Every frame that has a position goes into the engine (operators.engine.refiner), new ground starts from the
network's patches where there is a network, and whenever nothing has arrived the engine runs. The picture is
published as a snapshot file, from which the stage also goes on after a crash.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from operators.arrays import Corners, Positions, Probe, abs2
from operators.engine.backends import get_backend, on_host
from operators.engine.config import CLOSING, Changes, RefinerSnapshot, RefinerState, closing_fraction
from operators.engine.frame_store import Archive
from operators.engine.gate import Closing, Gate
from operators.engine.probe_search import estimate_probe
from operators.engine.refiner import Refiner
from operators.engine.seeding import EarlierObject, Seeding
from operators.geometry import window_corners
from operators.mosaic.mosaic import Mosaic, stitch_parts
from operators.optics.preprocess import Preprocess
from operators.optics.probe import power_scale, probe_modes, with_power
from stream.record.error_curve import EpochError, read_error_curve, write_error_curve
from stream.record.forerunner import Forerunner, take_forerunner
from stream.record.handover import is_handed_over
from stream.record.probe import found_probe, note_step
from stream.record.scan import Numbers, Scan
from stream.record.snapshot import SnapshotWriter, note_refined, read_snapshot, tile_parts
from stream.stages.config import RefinementConfig, Reuse
from stream.stages.inputs import Optics, read_patches, read_patterns, read_positions_px
from stream.stages.stage import ScanWork, UnusableScanError

log = logging.getLogger(__name__)

_MOST_MOVED_PX = 8  # between two states that are published, where positions are refined
RESTORED_AT_ONCE = 512  # frames whose patterns and patches are in memory a second time


class Refinement:
    """Worker: keeps refining whatever frames its scan has so far.

    Parameters
    ----------
    config : RefinementConfig
    optics : Optics
        Without a probe the stage takes the one found in the scan, or finds one from the first frames.
    n_modes : int
        Modes of the probe.
    scale_probe : bool
        Whether the probe is scaled to the mean photons of the frames; otherwise its own power is trusted.
    uses_network : bool
        Whether new ground starts from the network's patches.
    starts_over : bool
        Whether the object is started again from the network's patches when all frames are there. A scan that
        first visits the field sparsely needs it: what was refined without neighbours keeps its own phase.
    reuse : {"none", "probe", "object"}
        What of an earlier scan of the run a scan starts from.
    clock : callable
        Monotonic seconds.

    Attributes
    ----------
    backend : Backend
        Of the engine, ready to run.
    known_probe : (mode, y, x) complex64, or None

    Raises
    ------
    ValueError
        If the probe cannot be used, or this computer has no such backend.
    """

    name = "refinement"
    waits_for: tuple[str, ...] = ()
    # New ground is started once, when its frames come: a batch of a few rows starts it well, a few frames at
    # the edge of the scan badly, which costs the final object a fifth. The mosaic shows the edge meanwhile.
    batch_size = 64
    deadline_s = 1.0

    def __init__(
        self,
        config: RefinementConfig,
        optics: Optics,
        *,
        n_modes: int,
        scale_probe: bool,
        uses_network: bool,
        starts_over: bool,
        reuse: Reuse = "none",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config, self.optics, self.clock = config, optics, clock
        self.n_modes, self.scale_probe = n_modes, scale_probe
        self.uses_network, self.starts_over, self.reuse = uses_network, starts_over, reuse
        self.inputs = ("subscriber", "positions") + (("inference",) if uses_network else ())
        self.backend = get_backend(config.device, config.threads)
        self.known_probe = optics.load_probe() if optics.probe else None

    def open(self, scan: Scan) -> "ScanRefinement":
        """Begins a scan; after a restart takes up the last snapshot and all frames that had been refined."""
        return ScanRefinement(self, scan)

    def forerunner(self, scan: Scan) -> Forerunner | None:
        """Returns what is known of the earlier scan that `scan` starts from, None for none."""
        if self.reuse == "none":
            return None
        n_pixels = self.optics.geometry.n_pixels
        return take_forerunner(scan, n_pixels, with_object=self.reuse == "object")

    def has_all_frames(self, scan: Scan) -> bool:
        """Says whether no more frames of `scan` will come."""
        return all(scan.count(stage, "closed") for stage in self.inputs)

    def start_engine(self, scan: Scan, probe: Probe, preprocess: Preprocess) -> Refiner:
        """Returns an engine without frames; it may read again those of `scan` that do not fit."""
        _, xp, run_update = self.backend
        archive = Archive(partial(read_patterns, scan, preprocess), int(1e9 * self.config.frames_gb))
        mask = preprocess.mask
        return Refiner(self.config, probe, mask=mask, xp=xp, run_update=run_update, archive=archive)


class ScanRefinement(ScanWork):
    """Holds the frames of one scan until there are enough to find scale and probe; then its object grows."""

    def __init__(self, stage: Refinement, scan: Scan) -> None:
        self._stage, self._scan = stage, scan
        self._preprocess = stage.optics.preprocess(scan)
        self._earlier: Forerunner | None = None
        self._waiting: list[int] = []
        self._enough = stage.config.first_frames
        self.object = self._restored()

    def handle(self, numbers: Numbers) -> None:
        """Holds these frames; refining begins when there are enough."""
        if self.object is not None:
            self.object.add(numbers)
            return
        self._waiting.extend(numbers.tolist())
        if len(self._waiting) >= self._enough or self._stage.has_all_frames(self._scan):
            self.object = self._begun()

    def idle(self, deadline: float) -> bool:
        """Refines until `deadline`; says whether the scan wants more."""
        if self.object is not None:
            return self.object.refine(deadline)
        if self._waiting and self._stage.has_all_frames(self._scan):
            self.object = self._begun()
        return self.object is not None

    def close(self) -> None:
        """Publishes the last picture, as one file."""
        if self.object is not None:
            self.object.publish(is_last=True)

    def hand_over(self) -> None:
        """Publishes the last picture, from which the finisher goes on as this stage does after a restart."""
        if self.object is not None:
            self.object.publish()

    def counts(self) -> dict[str, int]:
        """Returns how far the refinement is."""
        return self.object.counts() if self.object is not None else {}

    def _restored(self) -> "GrowingObject | None":
        snapshot = read_snapshot(self._scan.folder)
        held = self._scan.done(Refinement.name)
        if snapshot is None or not held.size:
            return None
        level = logging.INFO if is_handed_over(self._scan, Refinement.name) else logging.WARNING
        words = "refinement goes on with %s from %d frames and their last picture"
        log.log(level, words, self._scan.name, held.size)
        self._earlier = self._stage.forerunner(self._scan)
        grown = self._grown(snapshot.probe)
        for part in np.array_split(held, -(-held.size // RESTORED_AT_ONCE)):
            grown.add(part, is_restored=True)
        grown.engine.restore(snapshot, self._scan.column("visits").read(held))
        grown.gate.restore(snapshot.withheld)
        return grown

    def _begun(self) -> "GrowingObject | None":
        numbers = np.array(self._waiting, np.int64)
        self._earlier = self._stage.forerunner(self._scan)
        probe = self._first_probe(numbers)
        if probe is None:
            return None
        grown = self._grown(probe)
        grown.add(numbers)
        return grown

    def _grown(self, probe: Probe) -> "GrowingObject":
        earlier = None if self._earlier is None else self._earlier.snapshot
        return GrowingObject(self._stage, self._scan, self._preprocess, probe, earlier)

    def _first_probe(self, numbers: Numbers) -> Probe | None:
        """Return the probe to begin with, None if it takes more frames to find one."""
        stage, mask = self._stage, self._preprocess.mask
        patterns = read_patterns(self._scan, self._preprocess, numbers)
        probe = found_probe(self._scan) if stage.known_probe is None else stage.known_probe
        if self._earlier is not None and (probe is None or stage.known_probe is not None):
            probe = self._earlier.probe
        if probe is None:
            positions_px = read_positions_px(self._scan, stage.optics.geometry, numbers)
            run_update = on_host(stage.backend, stage.config.threads).update
            counters = self._scan.counters(Refinement.name, writable=True)
            try:
                return estimate_probe(
                    patterns,
                    positions_px,
                    n_modes=stage.n_modes,
                    mask=mask,
                    run_update=run_update,
                    on_step=partial(note_step, counters),
                )
            except ValueError as error:
                if stage.has_all_frames(self._scan):
                    raise UnusableScanError(str(error)) from error
                self._enough = counters["wanted"] = 2 * len(numbers)
                counters["step"] = 0
                log.warning("no probe of %s from %d frames: %s", self._scan.name, len(numbers), error)
                return None
        if len(probe) < stage.n_modes:
            probe = probe_modes(probe[0], stage.n_modes)
        photons = float((patterns * mask).sum(dtype=np.float64)) / len(patterns)
        return with_power(probe, photons) if stage.scale_probe else probe


class GrowingObject:
    """The object of one scan: it grows with the frames, is refined between them, and is published.

    Attributes
    ----------
    engine : Refiner
        Of the frames so far.
    gate : Gate
        Where it is shown; without a network it is shown everywhere.
    """

    def __init__(
        self,
        stage: Refinement,
        scan: Scan,
        preprocess: Preprocess,
        probe: Probe,
        earlier: RefinerSnapshot | None = None,
    ) -> None:
        self._stage, self._config, self._scan = stage, stage.config, scan
        self._preprocess, self._geometry = preprocess, stage.optics.geometry
        self.engine = stage.start_engine(scan, probe, preprocess)
        self._mosaic = Mosaic(abs2(probe).sum(axis=0)) if stage.uses_network else None
        self._seeding = Seeding(preprocess.mask)
        self.gate, self._closing = Gate(self._geometry.n_pixels), Closing()
        self._earlier = None if earlier is None else EarlierObject(earlier, preprocess.mask)
        self._held: list[int] = []
        self._writer = SnapshotWriter(scan.folder)
        for name in ("refined_s", "visits"):  # which a scan may lack that an earlier version began
            scan.column(name, writable=True)
        self._counters = scan.counters(Refinement.name, writable=True)
        self._starts_over = stage.starts_over and stage.uses_network and not self._counters["started_over"]
        self._published_at, self._published_updates = float("-inf"), 0
        self._closes_from = self._counters["closing_milli"] / 1000 or float("inf")  # epoch
        self._error_curve = [EpochError(*row) for row in read_error_curve(scan.folder).tolist()]

    def add(self, numbers: Numbers, *, is_restored: bool = False) -> None:
        """Lets these frames take part, new ground started from the network's patches where there are any.

        Frames of a published object that `is_restored` are where refinement had moved them to.
        """
        positions_px = read_positions_px(self._scan, self._geometry, numbers)
        if self._mosaic is not None:
            patches, sigma = read_patches(self._scan, self._geometry.n_pixels, numbers)
            self._mosaic.add(patches, sigma, window_corners(positions_px))
            self.gate.place(numbers.tolist(), window_corners(positions_px))
        if is_restored and self._scan.has("refined_px"):
            positions_px = self._scan.column("refined_px").read(numbers)
        self._append(numbers, positions_px)
        self._held.extend(numbers.tolist())

    def refine(self, deadline: float) -> bool:
        """Refines until `deadline`, and publishes what is due; says whether the scan wants more."""
        if self._starts_over and self._stage.has_all_frames(self._scan):
            self._starts_over = False
            self._start_over()
        while self._wants_more():
            self._step()
            if self._stage.clock() >= deadline:
                break
        if self._stage.clock() - self._published_at >= self._config.publish_s:
            self.publish()
        return self._wants_more()

    def publish(self, *, is_last: bool = False) -> None:
        """Leaves what is new of the object, and marks frames that have taken part; the last one is whole."""
        engine = self.engine
        if engine.n_updates != self._published_updates and not self._leads_away():
            if self._mosaic is not None:
                self.gate.look(engine, self._mosaic)
            changes, state = engine.take_changes(), replace(engine.state(), withheld=self.gate.withheld)
            changes = changes._replace(is_all=changes.is_all or is_last)  # in one gauge
            scale = power_scale(state.probe, engine.mean_photons) if self._stage.scale_probe else 1.0
            state = replace(state, probe=state.probe * np.float32(scale))
            self._writer.write(state, tile_parts(engine.part, state.bounds, self._windows(changes), scale))
            self._note(changes, state)
        if is_last:
            self._writer.finish()

    def _leads_away(self) -> bool:
        """Whether the closing has made it worse: the state in which it began stays."""
        if self._stage.has_all_frames(self._scan) and self._closing.leads_away(self.engine, self._held):
            self._published_at = self._stage.clock()
            return True
        return False

    def _windows(self, changes: Changes) -> tuple[Corners, int] | None:
        """Return the windows under which the object has changed, None where it has everywhere."""
        if changes.is_all:
            return None
        margin = _MOST_MOVED_PX if self._config.refines_positions else 0
        corners = window_corners(self.engine.positions_px(changes.numbers.tolist()))
        return corners - margin, self._geometry.n_pixels + 2 * margin

    def _note(self, changes: Changes, state: RefinerState) -> None:
        """Note in the scan what has just been published."""
        self._published_at, self._published_updates = self._stage.clock(), self.engine.n_updates
        write_error_curve(self._scan.folder, self._error_curve)
        if self._config.refines_positions:
            positions_px = self.engine.positions_px(changes.numbers.tolist())
            self._scan.column("refined_px", writable=True).write(changes.numbers, positions_px)
        self._counters["started_over"] = int(self._stage.starts_over and not self._starts_over)
        self._counters["reused"] = self._earlier.n_used if self._earlier else 0
        note_refined(self._scan, Refinement.name, changes, state, self._published_at)

    def counts(self) -> dict[str, int]:
        """Returns how far the refinement is."""
        return {
            "epoch_milli": int(1000 * self.engine.epoch),
            "updates": self.engine.n_updates,
            "divergences": self.engine.n_divergences,
            "seeds_refused": self._seeding.n_refused,
        }

    def _append(self, numbers: Numbers, positions_px: Positions) -> None:
        patterns = read_patterns(self._scan, self._preprocess, numbers)
        self.engine.append(numbers.tolist(), patterns, positions_px)
        if self._mosaic is not None:
            self._seeding.seed(self.engine, self._mosaic, patterns, window_corners(positions_px))
        if self._earlier is not None:
            self._earlier.seed(self.engine, patterns, window_corners(positions_px))

    def _wants_more(self) -> bool:
        # Until all frames are there refinement stops short: the closing epochs need them all.
        share = 1.0 if self._stage.has_all_frames(self._scan) else 1 - CLOSING
        return self.engine.epoch < share * self._config.epochs

    def _step(self) -> None:
        engine, n_epochs = self.engine, self._config.epochs
        closes, n_before = self._stage.has_all_frames(self._scan), len(engine.error_history)
        if closes and self._starts_near:
            self._closes_from = min(self._closes_from, engine.epoch)
            self._counters["closing_milli"] = max(1, int(1000 * self._closes_from))
            fraction = closing_fraction(engine.epoch, n_epochs, self._closes_from)
            engine.step(1, fraction=fraction**2, levels=True)
        elif closes:
            engine.step(1, fraction=closing_fraction(engine.epoch, n_epochs))
        else:
            engine.step(1, fraction=self._config.seeded_step if self._starts_near else 1.0, levels=False)
        if len(engine.error_history) > n_before:
            row = EpochError(engine.epoch, engine.error_history[-1], engine.n_frames, self._stage.clock())
            self._error_curve.append(row)

    @property
    def _starts_near(self) -> bool:
        """Whether the object began so near to the truth that full steps would lead away from it."""
        return self._mosaic is not None and self._seeding.starts_near and not self._config.probe_step

    def _start_over(self) -> None:
        """Start again from the mosaic of all frames, unless the network is not to be believed."""
        before, probe, preprocess = self.engine, self.engine.snapshot().probe, self._preprocess
        numbers = np.sort(np.array(self._held, np.int64))
        positions_px = read_positions_px(self._scan, self._geometry, numbers)
        self._mosaic = stitch_parts(
            lambda rows: read_patches(self._scan, self._geometry.n_pixels, numbers[rows]),
            abs2(probe).sum(axis=0),
            window_corners(positions_px),
        )
        before.release_frames()
        self.engine = self._stage.start_engine(self._scan, probe, preprocess)
        self._seeding = Seeding(preprocess.mask)
        if self._earlier is not None:
            self._earlier = EarlierObject(self._earlier.snapshot, preprocess.mask)
        self._published_updates = 0
        for start in range(0, len(numbers), Refinement.batch_size):
            part = slice(start, start + Refinement.batch_size)
            self._append(numbers[part], positions_px[part])
        if not self._seeding.trusts_network:
            self.engine = before
