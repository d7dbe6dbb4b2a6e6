"""The first look at a field, before anything is known of the sample."""

import numpy as np

from operators.arrays import Corners
from operators.geometry import Bounds
from operators.optics.trajectories import raster
from operators.steering.routes import snake_route

JITTER = 0.2  # of the step: a perfect grid would leave its own period in the object


def survey(area: Bounds, step_px: float, rng: np.random.Generator) -> Corners:
    """Return points (point, 2) int64 that look at the whole area, in the order of travel.

    Neighbours come one after the other, so that each patch finds the phase of the one before it.

    Parameters
    ----------
    area : Bounds
        Absolute object pixels where the centre of the probe may be.
    step_px : float
        At most so far is a point from the next one, jitter aside.
    rng : numpy.random.Generator
    """
    last = np.array([area.bottom - 1, area.right - 1])
    span = last - area.origin
    n_steps = np.maximum(np.ceil(span / step_px), 1).astype(int)
    grid = raster(n_steps[0] + 1, n_steps[1] + 1, 1.0) * span / n_steps
    moved = grid + rng.uniform(-1, 1, grid.shape) * JITTER * step_px
    centres = np.unique(np.clip(np.rint(moved) + area.origin, area.origin, last).astype(np.int64), axis=0)
    return centres[snake_route(centres, step_px)]
