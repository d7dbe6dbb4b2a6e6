"""Stage: the object grows with the scan and is refined between arrivals.

Every frame that has a position goes into the engine (operators.engine.refiner), new ground starts from the
network's patches where there is a network, and whenever nothing has arrived the engine runs. The picture is
published as a snapshot, from which the stage also goes on after a crash.
"""

import logging
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from operators.arrays import Probe
from operators.engine.backends import get_backend, on_host
from operators.engine.probe_search import estimate_probe
from operators.optics.coherence import starting_modes
from operators.optics.probe import with_power
from stream.record.forerunner import Forerunner, take_forerunner
from stream.record.handover import is_handed_over
from stream.record.probe import found_probe, note_step
from stream.record.scan import Numbers, Scan
from stream.record.snapshot import read_snapshot
from stream.stages.config import RefinementConfig, Reuse
from stream.stages.inputs import Optics, read_patterns, read_positions_px, read_travel_px
from stream.stages.refinement.growing import GrowingObject
from stream.stages.refinement.setup import BATCH_SIZE, STAGE, Setup
from stream.stages.stage import ScanWork, UnusableScanError

log = logging.getLogger(__name__)

_AT_ONCE = 512  # frames whose patterns and patches are in memory beside what is held of them


class Refinement:
    """Worker: keeps refining whatever frames its scan has so far.

    Parameters
    ----------
    config : RefinementConfig
    optics : Optics
    reuse : {"none", "probe", "object"}
        What of an earlier scan of the run a scan starts from.
    n_modes, scale_probe, uses_network, starts_over, clock
        As of `Setup`.

    Attributes
    ----------
    setup : Setup
    known_probe : (mode, y, x) complex64, or None

    Raises
    ------
    ValueError
        If the probe cannot be used, or this computer has no such backend.
    """

    name = STAGE
    waits_for: tuple[str, ...] = ()
    batch_size = BATCH_SIZE
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
        self.setup = Setup(
            config=config,
            optics=optics,
            backend=get_backend(config.device, config.threads),
            n_modes=n_modes,
            scale_probe=scale_probe,
            uses_network=uses_network,
            starts_over=starts_over,
            clock=clock,
        )
        self.inputs, self.reuse = self.setup.inputs, reuse
        self.known_probe = optics.load_probe() if optics.probe else None

    def open(self, scan: Scan) -> "ScanRefinement":
        """Begins a scan; after a restart takes up the last snapshot and all frames that had been refined."""
        return ScanRefinement(self, scan)

    def forerunner(self, scan: Scan) -> Forerunner | None:
        """Returns what is known of the earlier scan that `scan` starts from, None for none."""
        if self.reuse == "none":
            return None
        n_pixels = self.setup.optics.geometry.n_pixels
        return take_forerunner(scan, n_pixels, with_object=self.reuse == "object")


class ScanRefinement(ScanWork):
    """Holds the frames of one scan until there are enough to find scale and probe; then its object grows."""

    def __init__(self, stage: Refinement, scan: Scan) -> None:
        self._stage, self._setup, self._scan = stage, stage.setup, scan
        self._preprocess = self._setup.optics.preprocess(scan)
        self._earlier: Forerunner | None = None
        self._waiting: list[int] = []
        self._enough = self._setup.config.first_frames
        self.object = self._restored()

    def handle(self, numbers: Numbers) -> None:
        """Holds these frames; refining begins when there are enough."""
        if self.object is not None:
            self.object.add(numbers)
            return
        self._waiting.extend(numbers.tolist())
        if len(self._waiting) >= self._enough or self._setup.has_all_frames(self._scan):
            self.object = self._begun()

    def idle(self, deadline: float) -> bool:
        """Refines until `deadline`; says whether the scan wants more."""
        if self.object is not None:
            return self.object.refine(deadline)
        if self._waiting and self._setup.has_all_frames(self._scan):
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

    def _restored(self) -> GrowingObject | None:
        snapshot = read_snapshot(self._scan.folder)
        held = self._scan.done(STAGE)
        if snapshot is None or not held.size:
            return None
        level = logging.INFO if is_handed_over(self._scan, STAGE) else logging.WARNING
        words = "refinement goes on with %s from %d frames and their last picture"
        log.log(level, words, self._scan.name, held.size)
        self._earlier = self._stage.forerunner(self._scan)
        grown = self._grown(snapshot.probe)
        for part in _parts(held):
            grown.add(part, is_restored=True)
        grown.restore(snapshot, held)
        return grown

    def _begun(self) -> GrowingObject | None:
        numbers = np.array(self._waiting, np.int64)
        self._earlier = self._stage.forerunner(self._scan)
        probe = self._first_probe(numbers)
        if probe is None:
            return None
        grown = self._grown(probe)
        for part in _parts(numbers):
            grown.add(part)
        return grown

    def _grown(self, probe: Probe) -> GrowingObject:
        earlier = None if self._earlier is None else self._earlier.snapshot
        return GrowingObject(self._setup, self._scan, self._preprocess, probe, earlier)

    def _first_probe(self, numbers: Numbers) -> Probe | None:
        """Return the probe to begin with, None if it takes more frames to find one."""
        setup, known, mask = self._setup, self._stage.known_probe, self._preprocess.mask
        patterns = read_patterns(self._scan, self._preprocess, numbers)
        probe = found_probe(self._scan) if known is None else known
        if self._earlier is not None and (probe is None or known is not None):
            probe = self._earlier.probe
        if probe is None:
            positions_px = read_positions_px(self._scan, setup.optics.geometry, numbers)
            run_update = on_host(setup.backend, setup.config.threads).update
            counters = self._scan.counters(STAGE, writable=True)
            try:
                return estimate_probe(
                    patterns,
                    positions_px,
                    n_modes=setup.n_modes,
                    mask=mask,
                    run_update=run_update,
                    on_step=partial(note_step, counters),
                )
            except ValueError as error:
                if setup.has_all_frames(self._scan):
                    raise UnusableScanError(str(error)) from error
                self._enough = counters["wanted"] = 2 * len(numbers)
                counters["step"] = 0
                log.warning("no probe of %s from %d frames: %s", self._scan.name, len(numbers), error)
                return None
        if len(probe) < setup.n_modes:
            travel_px = read_travel_px(self._scan, setup.optics.geometry, numbers)
            probe = starting_modes(probe, setup.n_modes, travel_px)
        photons = float((patterns * mask).sum(dtype=np.float64)) / len(patterns)
        return with_power(probe, photons) if setup.scale_probe else probe


def _parts(numbers: Numbers) -> list[Numbers]:
    return np.array_split(numbers, -(-len(numbers) // _AT_ONCE))
