"""What the parts of this benchmark share: refining a scan, and mosaics against the truth."""

from typing import Any

import numpy as np

from launch.training.evaluate import LIT, EvaluationScan
from operators.arrays import Corners, Mask, Patterns, Probe, abs2
from operators.engine.backends import get_backend
from operators.engine.config import RefinerConfig, RefinerSnapshot
from operators.engine.refiner import Refiner
from operators.engine.seeding import Seeding
from operators.geometry import Bounds
from operators.metrics.errors import nrmse
from operators.metrics.gauge import remove_gauge
from operators.mosaic.mosaic import Mosaic
from operators.mosaic.stitching import stitch
from operators.network.interface import Network
from operators.network.predictor import Predictor

FRAMES_AT_A_TIME = 64  # as the refinement stage takes them


def refiner_of(
    patterns: Patterns, corners: Corners, probe: Probe, mask: Mask | None = None, **config: Any
) -> Refiner:
    """Return a refiner that holds all frames of a scan and leaves the known probe alone."""
    chosen = RefinerConfig(probe_step=0, batch_size=8, **config)
    refiner = Refiner(chosen, probe, mask=mask, run_update=get_backend("auto").update)
    refiner.append(range(len(corners)), patterns, corners.astype(np.float64))
    return refiner


def refined_to(refiner: Refiner, n_epochs: float) -> RefinerSnapshot:
    """Return the picture after so many epochs, full steps to the end."""
    while refiner.epoch < n_epochs:
        refiner.step()
    return refiner.snapshot()


def seed(refiner: Refiner, scan: EvaluationScan, mosaic: Mosaic) -> None:
    """Start all frames of a scan from its mosaic where that explains them, as the refinement stage does."""
    seeding, numbers = Seeding(), np.arange(len(scan.patterns))
    for start in range(0, len(numbers), FRAMES_AT_A_TIME):
        some = numbers[start : start + FRAMES_AT_A_TIME]
        seeding.seed(refiner, mosaic, scan.patterns[some], scan.corners[some])


def mosaic_error(network: Network, probe: Probe, scan: EvaluationScan) -> float:
    """Return the error `c` of a scan's mosaic without what an unknown probe leaves free.

    That is shift, ramp and scale; taken off also where the probe is known, so that both compare.
    """
    patches, sigma = Predictor(network, probe).predict(scan.patterns)
    mosaic = stitch(patches, sigma, abs2(probe).sum(axis=0), scan.corners)
    picture = mosaic.picture(Bounds(0, 0, *scan.object.shape))
    lit = picture.photons > LIT * picture.photons.max()
    object_ = np.where(lit, picture.object, np.complex64(1))
    freed = remove_gauge(object_, scan.object, scale=True, weights=lit.astype(np.float64))
    return nrmse(freed, scan.object, lit).c
