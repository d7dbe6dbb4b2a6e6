"""Whether refining while frames arrive costs quality, against having them all from the start."""

import numpy as np

from operators.engine.backends import get_backend
from operators.engine.config import RefinerConfig, closing_fraction
from operators.engine.refiner import Refiner
from tests.benchmarks.engines.data import error
from tests.benchmarks.engines.engine_scan import EngineScan

N_EPOCHS = 50
FRAMES_PER_BATCH = 2  # that arrive: the scan is complete after a quarter of all updates


def growing_figures(scan: EngineScan) -> dict[str, float]:
    """Returns the error after the same number of updates, growing over offline."""
    n_frames = len(scan.corners)
    return {"growing_over_offline": _error_after(scan, FRAMES_PER_BATCH) / _error_after(scan, n_frames)}


def _error_after(scan: EngineScan, n_at_a_time: int) -> float:
    """Returns the error of frames that arrive so many before each batch, in the order of the scan."""
    numbers = np.arange(len(scan.corners))
    refiner = Refiner(RefinerConfig(), scan.probe[None], run_update=get_backend("auto").update)
    n_updates = N_EPOCHS * len(numbers)
    while refiner.n_updates < n_updates:
        new = numbers[refiner.n_frames : refiner.n_frames + n_at_a_time]
        refiner.append(new.tolist(), scan.patterns[new], scan.corners[new].astype(float))
        refiner.step(fraction=closing_fraction(refiner.n_updates / len(numbers), N_EPOCHS))
    snapshot = refiner.snapshot()
    row, column = snapshot.bounds.origin
    found = np.pad(snapshot.object, 16, mode="edge")
    return error(found, (16 - row, 16 - column), scan)
