"""Where to put the probe: scan patterns, and how they drift.

Units are the caller's: positions come out in the unit of `step`, order (y, x).
"""

import math

import numpy as np
from numpy.typing import NDArray

from operators.arrays import Positions

GOLDEN_ANGLE_RAD = math.pi * (3 - math.sqrt(5))


def raster(n_rows: int, n_columns: int, step: float) -> Positions:
    """Return a square grid, (frame, 2) float64, row by row from (0, 0), each row from left to right.

    Raises ValueError if it has no row or column, or the step is not finite and positive.
    """
    if n_rows < 1 or n_columns < 1:
        raise ValueError(f"a raster needs at least one row and column, got {n_rows} x {n_columns}")
    _check_step(step)
    rows, columns = np.divmod(np.arange(n_rows * n_columns), n_columns)
    return step * np.stack([rows, columns], axis=1).astype(np.float64)


def jittered_raster(
    n_rows: int, n_columns: int, step: float, jitter: float, rng: np.random.Generator
) -> Positions:
    """Return the positions of `raster`, each moved at random by up to `jitter` in y and in x.

    A perfect grid leaves its own period undetermined in the object (Thibault et al., Ultramicroscopy 109
    (2009) 338).
    """
    positions = raster(n_rows, n_columns, step)
    return positions + rng.uniform(-jitter, jitter, positions.shape)


def fermat_spiral(n_positions: int, step: float) -> Positions:
    """Return a Fermat spiral about (0, 0), (frame, 2) float64, from the centre outwards.

    Every position has the area step x step to itself, as in a raster, but no two directions repeat (Huang et
    al., Opt. Express 22 (2014) 12634). Raises ValueError as `raster` does.
    """
    if n_positions < 1:
        raise ValueError(f"a spiral needs at least one position, got {n_positions}")
    _check_step(step)
    number = np.arange(n_positions)
    radius = step * np.sqrt(number / math.pi)
    angle = number * GOLDEN_ANGLE_RAD
    return np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)


def random_drift(n_frames: int, rms: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return how something wanders during a scan, (frame,) float64: a random walk of mean 0.

    Parameters
    ----------
    n_frames : int
    rms : float
        Root mean square over the scan, in the unit that the drift shall have.
    rng : numpy.random.Generator
    """
    walk = rng.standard_normal(n_frames).cumsum()
    walk -= walk.mean()
    return rms * walk / max(walk.std(), np.finfo(float).tiny)


def _check_step(step: float) -> None:
    if not (math.isfinite(step) and step > 0):
        raise ValueError(f"the step of a scan must be finite and positive, got {step}")
