"""Stage: finds the probe of a scan from its first frames, so that a network can be used without a known one.

Only in runs whose probe is not known or only a guess. The arithmetic is `operators.engine.probe_search`;
the probe is published once per scan (`stream.record.probe`), and inference, refinement and stitcher wait
for it. Frames are recorded meanwhile; inference then has some to catch up with. A scan that starts from an
earlier one has its probe at once.
"""

import logging
from functools import partial
from pathlib import Path

import numpy as np

from operators.arrays import abs2
from operators.engine.backends import get_host_backend
from operators.engine.probe_search import probe_from_burst
from stream.record.forerunner import take_forerunner
from stream.record.probe import STAGE, found_probe, note_step, publish_probe
from stream.record.scan import Numbers, Scan, State
from stream.stages.config import ProbeConfig, Reuse
from stream.stages.inputs import Optics, load_probe, read_patterns, read_positions_px
from stream.stages.stage import ScanWork

log = logging.getLogger(__name__)


class ProbeFinder:
    """Worker: looks at frames until the probe of its scan is found, and lets the others pass.

    Parameters
    ----------
    config : ProbeConfig
    optics : Optics
        Without a probe.
    guess : Path or None
        .npy of a probe of which the defocus may be wrong; None starts from the mean pattern.
    transmission : float
        Where neither the configuration nor a guess tells the photons: share of the light that the sample is
        expected to let through, which is that of what the network was trained on.
    threads : int
    reuse : {"none", "probe", "object"}
        What of an earlier scan of the run a scan starts from.

    Attributes
    ----------
    backend : Backend
        Runs the trials: on the host, because they are short and many.
    guess : (mode, y, x) complex64, or None
    photons : float or None
        Mean incident photons per frame, where they or a guess are known.

    Raises
    ------
    ValueError
        If the guess cannot be used.
    """

    name = STAGE
    inputs: tuple[str, ...] = ("subscriber", "positions")
    waits_for: tuple[str, ...] = ()
    batch_size = 4096
    deadline_s = 0.0

    def __init__(
        self,
        config: ProbeConfig,
        optics: Optics,
        *,
        guess: Path | None,
        transmission: float,
        threads: int,
        reuse: Reuse = "none",
    ) -> None:
        self.config, self.optics, self.transmission = config, optics, transmission
        self.reuse = reuse
        self.backend = get_host_backend(threads)
        self.guess = None if guess is None else load_probe(guess, optics.geometry.n_pixels)
        self.photons = config.photons
        if self.guess is not None and self.photons is None:
            self.photons = float(abs2(self.guess).sum())

    def open(self, scan: Scan) -> "ProbeSearch":
        """Begins with a scan; after a restart a probe that was found stays."""
        return ProbeSearch(self, scan)


class ProbeSearch(ScanWork):
    """The search for the probe of one scan."""

    def __init__(self, stage: ProbeFinder, scan: Scan) -> None:
        self._stage, self._scan = stage, scan
        self._preprocess = stage.optics.preprocess(scan)
        self._is_found = found_probe(scan) is not None or self._has_taken(is_final=False)
        # A process before this one may have noted frames and died before it had enough.
        self._waiting: list[int] = scan.done(STAGE).tolist()
        self._counters = scan.counters(STAGE, writable=True)
        self._counters["step"] = 0  # a search that died begins anew
        self._enough = self._counters["wanted"] = stage.config.n_frames

    def handle(self, numbers: Numbers) -> None:
        """Finds the probe as soon as there are enough frames; afterwards only notes that they came."""
        if not self._is_found:
            self._waiting.extend(numbers.tolist())
            is_enough = len(self._waiting) >= self._enough
            self._is_found = self._has_taken(is_final=is_enough)
            if is_enough and not self._is_found:
                self._try(np.array(self._waiting[: self._enough], np.int64))
        self._scan.mark(STAGE, numbers, State.DONE)

    def close(self) -> None:
        """Tries with what there is if there never was enough."""
        if not self._is_found and self._waiting:
            self._try(np.array(self._waiting, np.int64))

    def _has_taken(self, *, is_final: bool) -> bool:
        """Publish the probe of the scan that this one starts from; say whether there is one by now."""
        reuse, n_pixels = self._stage.reuse, self._stage.optics.geometry.n_pixels
        if reuse == "none":
            return False
        with_object = reuse == "object"
        earlier = take_forerunner(self._scan, n_pixels, with_object=with_object, is_final=is_final)
        if earlier is None:
            return False
        publish_probe(self._scan, earlier.probe)
        log.info("probe of %s taken from %s", self._scan.name, earlier.scan)
        return True

    def _try(self, numbers: Numbers) -> None:
        stage, scan = self._stage, self._scan
        try:
            probe = probe_from_burst(
                read_patterns(scan, self._preprocess, numbers),
                read_positions_px(scan, stage.optics.geometry, numbers),
                photons=stage.photons,
                transmission=stage.transmission,
                guess=stage.guess,
                n_modes=stage.config.n_modes,
                mask=self._preprocess.mask,
                run_update=stage.backend.update,
                on_step=partial(note_step, self._counters),
            )
        except ValueError as error:
            self._enough = self._counters["wanted"] = 2 * len(numbers)
            self._counters["step"] = 0
            log.warning("no probe of %s from %d frames: %s", scan.name, len(numbers), error)
            return
        publish_probe(scan, probe)
        self._is_found = True
        log.info("probe of %s found from %d frames", scan.name, len(numbers))
