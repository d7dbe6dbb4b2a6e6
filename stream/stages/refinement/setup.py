"""What refinement works with in every scan of a run."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from operators.arrays import Probe
from operators.engine.backends import Backend
from operators.engine.frame_store import Archive
from operators.engine.refiner import Refiner
from operators.optics.preprocess import Preprocess
from stream.record.scan import Scan
from stream.stages.config import RefinementConfig
from stream.stages.inputs import Optics, read_patterns

STAGE = "refinement"
# New ground is started once, when its frames come: a batch of a few rows starts it well, a few frames at
# the edge of the scan badly, which costs the final object a fifth. The mosaic shows the edge meanwhile.
BATCH_SIZE = 64


def inputs_of(*, uses_network: bool) -> tuple[str, ...]:
    """Returns the stages whose frames are refined."""
    return ("subscriber", "positions") + (("inference",) if uses_network else ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Configuration, optics and engine of a run.

    Attributes
    ----------
    config : RefinementConfig
    optics : Optics
        Without a probe the stage takes the one found in the scan, or finds one from the first frames.
    backend : Backend
        Of the engine, ready to run.
    n_modes : int
        Modes of the probe.
    scale_probe : bool
        Whether the probe is scaled to the mean photons of the frames; otherwise its own power is trusted.
    uses_network : bool
        Whether new ground starts from the network's patches.
    starts_over : bool
        Whether the object is started again from the network's patches when all frames are there. A scan that
        first visits the field sparsely needs it: what was refined without neighbours keeps its own phase.
    clock : callable
        Monotonic seconds.
    """

    config: RefinementConfig
    optics: Optics
    backend: Backend
    n_modes: int
    scale_probe: bool
    uses_network: bool
    starts_over: bool
    clock: Callable[[], float] = time.monotonic

    @property
    def inputs(self) -> tuple[str, ...]:
        """Stages whose frames are refined."""
        return inputs_of(uses_network=self.uses_network)

    def has_all_frames(self, scan: Scan) -> bool:
        """Says whether no more frames of `scan` will come."""
        return all(scan.count(stage, "closed") for stage in self.inputs)

    def start_engine(self, scan: Scan, probe: Probe, preprocess: Preprocess) -> Refiner:
        """Returns an engine without frames; it may read again those of `scan` that do not fit."""
        _, xp, run_update = self.backend
        archive = Archive(partial(read_patterns, scan, preprocess), int(1e9 * self.config.frames_gb))
        mask = preprocess.mask
        return Refiner(self.config, probe, mask=mask, xp=xp, run_update=run_update, archive=archive)
