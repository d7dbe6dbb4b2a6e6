"""Simulated scans of held-out objects, and what network and iterations make of each.

Every arm sees the same counts, knows the same probe and runs the same engine in one thread; only the start
differs. The error is judged where the scan put light, the global phase removed and nothing else.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from launch.training.evaluate import LIT, EvaluationScan
from operators.arrays import Probe, abs2
from operators.engine.config import closing_fraction
from operators.geometry import Bounds
from operators.metrics.errors import NRMSE, nrmse
from operators.mosaic.mosaic import Mosaic
from operators.mosaic.stitching import stitch
from operators.network.predictor import Predictor
from operators.patches import add_patches
from tests.benchmarks.network.scans import refiner_of, seed

SEEDED_EPOCHS = 20
MANY_EPOCHS = 200  # from a flat start, as the published comparison has them


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to reconstruct a scan: its object, its error and the processor time it took."""

    object: np.ndarray
    error: NRMSE
    cpu_s: float


@dataclass
class Arena:
    """One scan, its known probe, and the arms run on it so far.

    Attributes
    ----------
    scan : EvaluationScan
    probe : (mode, y, x) complex64
    """

    scan: EvaluationScan
    probe: Probe
    _flat: dict[tuple[str, int, bool], Arm] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.illumination = abs2(self.probe).sum(axis=0)
        photons = np.zeros(self.scan.object.shape, np.float32)
        add_patches(photons, self.illumination, self.scan.corners)
        self.is_lit = photons > LIT * photons.max()

    def error(self, object_: np.ndarray) -> NRMSE:
        """Return the error of an object on the pixels of the truth."""
        return nrmse(object_, self.scan.object, self.is_lit)

    def network(self, predictor: Predictor) -> tuple[Arm, Mosaic]:
        """Return the mosaic of one pass of the network."""
        started = time.process_time()
        patches, sigma = predictor.predict(self.scan.patterns)
        mosaic = stitch(patches, sigma, self.illumination, self.scan.corners)
        cpu_s = time.process_time() - started
        object_ = mosaic.picture(Bounds(0, 0, *self.scan.object.shape)).object
        return Arm(object_, self.error(object_), cpu_s), mosaic

    def flat(self, algorithm: str, n_epochs: int, *, levels: bool = False) -> Arm:
        """Return the object after so many epochs from a transparent one; computed once.

        The algorithm as published, or with the levelling that this engine adds to it.
        """
        key = algorithm, n_epochs, levels
        if key not in self._flat:
            self._flat[key] = self._refine(algorithm, n_epochs, None, levels=levels)
        return self._flat[key]

    def seeded(self, mosaic: Mosaic, n_epochs: int = SEEDED_EPOCHS) -> Arm:
        """Return the object after some epochs of ePIE from a mosaic, as in the demo's refinement stage."""
        return self._refine("epie", n_epochs, mosaic)

    def epochs_to(self, algorithm: str, error: float, stops: Sequence[int], *, levels: bool) -> float:
        """Return the epochs from flat after which `c` is as low as `error`, the last stop if it never is.

        Between stops both are interpolated on logarithmic scales.
        """
        before = 1.0, self.error(np.ones_like(self.scan.object)).c
        for stop in stops:
            now = float(stop), self.flat(algorithm, stop, levels=levels).error.c
            if now[1] <= error:
                share = np.log(before[1] / error) / np.log(before[1] / now[1])
                return float(before[0] * (now[0] / before[0]) ** np.clip(share, 0, 1))
            before = now
        return float(stops[-1])

    def _refine(self, algorithm: str, n_epochs: int, mosaic: Mosaic | None, *, levels: bool = True) -> Arm:
        started = time.process_time()
        scan = self.scan
        refiner = refiner_of(scan.patterns, scan.corners, self.probe, algorithm=algorithm, levels=levels)
        if mosaic is not None:
            seed(refiner, scan, mosaic)
        while refiner.epoch < n_epochs:
            refiner.step(fraction=closing_fraction(refiner.epoch, n_epochs))
        end = refiner.snapshot()
        object_ = np.ones_like(scan.object)
        object_[end.bounds.slices_in(Bounds(0, 0, *object_.shape))] = end.object
        return Arm(object_, self.error(object_), time.process_time() - started)
