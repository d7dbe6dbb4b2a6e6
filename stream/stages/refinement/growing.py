"""The object of one scan: it grows with the frames and is refined between them."""

import numpy as np

from operators.arrays import Patterns, Positions, Probe, abs2
from operators.engine.config import (
    CLOSING,
    RefinerSnapshot,
    closing_fraction,
    near_closing_fraction,
    near_fraction,
)
from operators.engine.frame_store import spread
from operators.engine.gate import Closing, Gate
from operators.engine.seeding import EarlierObject, Seeding
from operators.geometry import window_corners
from operators.mosaic.mosaic import Mosaic
from operators.mosaic.stitching import stitch_parts
from operators.optics.preprocess import Preprocess
from stream.record.scan import Numbers, Scan
from stream.stages.inputs import read_patches, read_patterns, read_positions_px
from stream.stages.refinement.publication import Publication
from stream.stages.refinement.setup import BATCH_SIZE, Setup

LEVEL_EVERY = 8  # epochs while frames come; a look takes as long as an epoch of a thousand frames
_BATCHES_TO_JUDGE = 8


class GrowingObject:
    """The object of one scan: it grows with the frames, is refined between them, and is published.

    Parameters
    ----------
    setup : Setup
    scan : Scan
    preprocess : Preprocess
        Of its frames.
    probe : (mode, y, x) complex64
        To begin with.
    earlier : RefinerSnapshot, optional
        Of an earlier scan from whose object this one starts.

    Attributes
    ----------
    engine : Refiner
        Of the frames so far.
    gate : Gate
        Where it is shown; without a network it is shown everywhere.
    """

    def __init__(
        self,
        setup: Setup,
        scan: Scan,
        preprocess: Preprocess,
        probe: Probe,
        earlier: RefinerSnapshot | None = None,
    ) -> None:
        self._setup, self._config, self._scan = setup, setup.config, scan
        self._preprocess, self._geometry = preprocess, setup.optics.geometry
        self.engine = setup.start_engine(scan, probe, preprocess)
        self._mosaic = Mosaic(abs2(probe).sum(axis=0), error_model=None) if setup.uses_network else None
        self._seeding = Seeding(preprocess.mask)
        self.gate, self._closing = Gate(self._geometry.n_pixels), Closing()
        self._earlier = None if earlier is None else EarlierObject(earlier, preprocess.mask)
        self._published = Publication(setup, scan)
        self._starts_over = setup.starts_over and setup.uses_network and not self._published.has_started_over

    def add(self, numbers: Numbers, *, is_restored: bool = False) -> None:
        """Lets these frames take part, new ground started from the network's patches where there are any.

        Frames of a published object that `is_restored` are where refinement had moved them to, and their
        ground is not started: `restore` has it.
        """
        positions_px = read_positions_px(self._scan, self._geometry, numbers)
        if self._mosaic is not None:
            self._mosaic.add(*read_patches(self._scan, numbers), window_corners(positions_px))
            self.gate.place(numbers.tolist(), window_corners(positions_px))
        if is_restored and self._scan.has("refined_px"):
            positions_px = self._scan.column("refined_px").read(numbers)
        self._append(numbers, positions_px, seeds=not is_restored)

    def restore(self, snapshot: RefinerSnapshot, numbers: Numbers) -> None:
        """Goes on from what was published of these frames, all that have been added.

        How far their seeds are to be believed is judged by some of them, neighbours as when they came.
        """
        n_judged = 0
        for start in spread(np.arange(0, len(numbers), BATCH_SIZE), _BATCHES_TO_JUDGE).tolist():
            some = numbers[start : start + BATCH_SIZE]
            patterns = read_patterns(self._scan, self._preprocess, some)
            self._seed(patterns, self.engine.positions_px(some.tolist()))
            n_judged += len(some)
        self._seeding.stand_for(len(numbers) / n_judged)
        if self._earlier is not None:
            self._earlier.stand_for(len(numbers) / n_judged)
        self.engine.restore(snapshot, self._scan.column("visits").read(numbers))
        self.gate.restore(snapshot.withheld)

    def refine(self, deadline: float) -> bool:
        """Refines until `deadline`, and publishes what is due; says whether the scan wants more."""
        if self._starts_over and self._setup.has_all_frames(self._scan):
            self._starts_over = False
            self._start_over()
        while self._wants_more():
            self._step()
            if self._setup.clock() >= deadline:
                break
        if self._setup.clock() - self._published.at >= self._config.publish_s:
            self.publish()
        return self._wants_more()

    def publish(self, *, is_last: bool = False) -> None:
        """Leaves what is new of the object, and marks frames that have taken part; the last one is whole."""
        engine = self.engine
        if engine.n_updates != self._published.n_updates and not self._leads_away():
            if self._mosaic is not None:
                self.gate.look(engine, self._mosaic)
            self._published.write(
                engine,
                self.gate.withheld,
                is_whole=is_last,
                started_over=self._setup.starts_over and not self._starts_over,
                n_reused=self._earlier.n_used if self._earlier else 0,
            )
        if is_last:
            self._published.finish()

    def counts(self) -> dict[str, int]:
        """Returns how far the refinement is."""
        return {
            "epoch_milli": int(1000 * self.engine.epoch),
            "updates": self.engine.n_updates,
            "divergences": self.engine.n_divergences,
            "seeds_refused": self._seeding.n_refused,
        }

    def _leads_away(self) -> bool:
        """Whether the closing has made it worse: the state in which it began stays."""
        if self._setup.has_all_frames(self._scan) and self._closing.leads_away(
            self.engine, self.engine.numbers
        ):
            self._published.at = self._setup.clock()
            return True
        return False

    def _append(self, numbers: Numbers, positions_px: Positions, *, seeds: bool = True) -> None:
        patterns = read_patterns(self._scan, self._preprocess, numbers)
        self.engine.append(numbers.tolist(), patterns, positions_px)
        if seeds:
            self._seed(patterns, positions_px)

    def _seed(self, patterns: Patterns, positions_px: Positions) -> None:
        """Start the ground of these frames, which the engine holds."""
        if self._mosaic is not None:
            self._seeding.seed(self.engine, self._mosaic, patterns, window_corners(positions_px))
        if self._earlier is not None:
            self._earlier.seed(self.engine, patterns, window_corners(positions_px))

    def _wants_more(self) -> bool:
        engine, n_epochs = self.engine, self._config.epochs
        # Until all frames are there refinement stops short: the closing epochs need them all.
        has_all = self._setup.has_all_frames(self._scan)
        return engine.epoch < (engine.last_epoch(n_epochs) if has_all else (1 - CLOSING) * n_epochs)

    def _step(self) -> None:
        engine, n_epochs = self.engine, self.engine.last_epoch(self._config.epochs)
        closes, n_before = self._setup.has_all_frames(self._scan), len(engine.error_history)
        first, is_near, fraction = self._config.seeded_step, self._starts_near, 1.0
        if closes and is_near:
            closes_from = self._published.note_closing(engine.epoch)
            fraction = near_closing_fraction(first, engine.epoch, n_epochs, closes_from)
        elif closes:
            fraction = closing_fraction(engine.epoch, n_epochs)
        elif is_near:
            fraction = near_fraction(first, engine.epoch)
        # Small steps leave slow phases as they are, and they grow with the ground.
        level_every = None if closes or not is_near else LEVEL_EVERY
        engine.step(1, fraction=fraction, level_every=level_every)
        if len(engine.error_history) > n_before:
            self._published.note_epoch(engine)

    @property
    def _starts_near(self) -> bool:
        """Whether the object began so near to the truth that full steps would lead away from it."""
        return self._mosaic is not None and self._seeding.starts_near and not self._config.probe_step

    def _start_over(self) -> None:
        """Start again from the mosaic of all frames, unless the network is not to be believed."""
        before, probe, preprocess = self.engine, self.engine.snapshot().probe, self._preprocess
        numbers = np.sort(self.engine.numbers)
        positions_px = read_positions_px(self._scan, self._geometry, numbers)
        self._mosaic = stitch_parts(
            lambda rows: read_patches(self._scan, numbers[rows]),
            abs2(probe).sum(axis=0),
            window_corners(positions_px),
            error_model=None,
        )
        before.release_frames()
        self.engine = self._setup.start_engine(self._scan, probe, preprocess)
        self._seeding = Seeding(preprocess.mask)
        if self._earlier is not None:
            self._earlier = EarlierObject(self._earlier.snapshot, preprocess.mask)
        self._published.n_updates = 0
        for start in range(0, len(numbers), BATCH_SIZE):
            part = slice(start, start + BATCH_SIZE)
            self._append(numbers[part], positions_px[part])
        if not self._seeding.trusts_network:
            self.engine = before
