"""Stage: finds the probe of a scan from its first frames, so that a network can be used without a known one.

Only in runs whose probe is not known or only a guess. The arithmetic is `operators.engine.probe_search`;
the probe is published once per scan (`stream.record.probe`), and inference, refinement and stitcher wait
for it. Frames are recorded meanwhile; inference then has some to catch up with.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from operators.arrays import abs2
from operators.engine.backends import get_host_backend
from operators.engine.probe_search import probe_from_burst
from stream.record.probe import STAGE, found_probe, publish_probe
from stream.record.scan import Numbers, Scan, State
from stream.stages.inputs import Optics, load_probe, read_patterns, read_positions_px
from stream.wire.codec import Buffer
from stream.wire.sockets import Endpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFinderConfig:
    """Settings of the stage that finds the probe.

    Attributes
    ----------
    optics : Optics
        Without a probe.
    guess : Path or None
        .npy of a probe of which the defocus may be wrong; None starts from the mean pattern.
    n_frames : int
        Frames to find it from. When they are not enough, it is tried again with twice as many, and at the end
        of the scan with all.
    n_modes : int
    photons : float or None
        Mean incident photons per frame, None where they are not known: a guess then knows better.
    transmission : float
        Where nothing does: share of the light that the sample is expected to let through, which is that of
        what the network was trained on.
    threads : int
    """

    optics: Optics
    guess: Path | None = None
    n_frames: int = 96
    n_modes: int = 1
    photons: float | None = None
    transmission: float = 1.0
    threads: int = 1


class ProbeFinder:
    """Worker: looks at frames until the probe of its scan is found, and lets the others pass."""

    name = STAGE
    inputs: tuple[str, ...] = ("subscriber", "positions")
    waits_for: tuple[str, ...] = ()
    door: Endpoint | None = None
    newest_first = False
    batch_size = 4096
    deadline_s = 0.0

    def __init__(self, config: ProbeFinderConfig) -> None:
        self.config = config
        self._scan: Scan | None = None

    def prepare(self) -> None:
        """Chooses what runs the trials, and loads the guess, so that a wrong one is reported at once."""
        # On the host: the trials are short and many.
        self._backend = get_host_backend(self.config.threads)
        n_pixels = self.config.optics.geometry.n_pixels
        self._guess = None if self.config.guess is None else load_probe(self.config.guess, n_pixels)
        self._photons = self.config.photons
        if self._guess is not None and self._photons is None:
            self._photons = float(abs2(self._guess).sum())

    def open(self, scan: Scan) -> None:
        """Begins with a scan; after a restart a probe that was found stays."""
        self._scan, self._preprocess = scan, self.config.optics.preprocess(scan)
        self._is_found = found_probe(scan) is not None
        # A process before this one may have noted frames and died before it had enough.
        self._waiting = np.flatnonzero(scan.states(self.name) == State.DONE).tolist()
        self._enough = self.config.n_frames

    def handle(self, numbers: Numbers) -> None:
        """Finds the probe as soon as there are enough frames; afterwards only notes that they came."""
        assert self._scan is not None  # noqa: S101  (the loop opens before it calls)
        if not self._is_found:
            self._waiting.extend(numbers.tolist())
            if len(self._waiting) >= self._enough:
                self._try(np.array(self._waiting[: self._enough], np.int64))
        self._scan.mark(self.name, numbers, State.DONE)

    def idle(self, deadline: float) -> bool:
        """Has nothing to do between frames."""
        return False

    def close(self) -> None:
        """Tries with what there is if there never was enough."""
        if not self._is_found and self._waiting:
            self._try(np.array(self._waiting, np.int64))
        self._scan = None

    def exchange(self, requests: Sequence[Sequence[Buffer]]) -> list[list[Buffer]]:
        """Has no door."""
        return []

    def counts(self) -> dict[str, int]:
        """Returns nothing: there is one probe."""
        return {}

    def _try(self, numbers: Numbers) -> None:
        scan, config = self._scan, self.config
        assert scan is not None  # noqa: S101  (the loop opens before it calls)
        try:
            probe = probe_from_burst(
                read_patterns(scan, self._preprocess, numbers),
                read_positions_px(scan, config.optics.geometry, numbers),
                photons=self._photons,
                transmission=config.transmission,
                guess=self._guess,
                n_modes=config.n_modes,
                mask=self._preprocess.mask,
                run_update=self._backend.update,
            )
        except ValueError as error:
            self._enough = 2 * len(numbers)
            log.warning("no probe of %s from %d frames: %s", scan.name, len(numbers), error)
            return
        publish_probe(scan, probe)
        self._is_found = True
        log.info("probe of %s found from %d frames", scan.name, len(numbers))
