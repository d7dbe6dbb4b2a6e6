"""Which way the sample deflects the beam: what tells the four classes of orientation without a model.

The centroid of a pattern is the mean phase gradient under the probe, so over the sample it is the gradient of
one function. Placed by positions of a wrong class, the same numbers are the gradient of none.
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.spatial import cKDTree
from scipy.special import logsumexp

from operators.arrays import Mask, Patterns, Positions
from operators.optics.moments import moments
from operators.orientation.turn import CLASSES, Turn

_REACHES = np.geomspace(0.7, 6.0, 6)  # of the field, in distances of neighbours
_NOISE = np.geomspace(0.01, 100.0, 9)  # variance over that of the field
_MIXED = 0.1  # share of the field that is no gradient: strong samples, probes that are not round
_DRIFT = 3  # degree in time of what a wandering beam does to all frames


def deflections(patterns: Patterns, mask: Mask | None = None) -> NDArray[np.float64]:
    """Return the centroids of patterns without their slow drift, (frame, 2) float64, (ky, kx), pixels.

    Parameters
    ----------
    patterns : (frame, ky, kx) float32, photons, corner-origin
        In the order in which they were taken.
    mask : (ky, kx) bool, True where valid, optional
    """
    centroids = moments(patterns, mask)[:, 1:3].astype(np.float64)
    drifts = np.polynomial.legendre.legvander(np.linspace(-1, 1, len(patterns)), _DRIFT)
    return centroids - drifts @ np.linalg.lstsq(drifts, centroids, rcond=None)[0]


def log_evidence(deflected: NDArray[np.float64], positions_px: Positions) -> Mapping[Turn, float]:
    """Return for each of `CLASSES` the log evidence that the deflections are a gradient and noise.

    Only differences mean something; without a field they are a few units, of either sign.

    Parameters
    ----------
    deflected : (frame, 2) float64, as of `deflections`
    positions_px : (frame, 2) float64, any unit, (y, x) as recorded

    Notes
    -----
    A Gaussian process whose potential has a squared exponential covariance; its reach and the share of noise
    are marginalised over a grid, its variance is the most likely one. The time grows with the cube of the
    frames: 0.4 s for 200.
    """
    neighbours = cKDTree(positions_px).query(positions_px, k=2)[0][:, 1]
    apart = (positions_px[:, None] - positions_px[None]) / max(float(np.median(neighbours)), 1e-12)
    observed = deflected.T.ravel()
    if not observed.any():
        return dict.fromkeys(CLASSES, 0.0)
    return {turn: _evidence(observed, apart @ turn.matrix.T) for turn in CLASSES}


def _evidence(observed: NDArray[np.float64], apart: NDArray[np.float64]) -> float:
    parts = [_of_reach(observed, apart / reach) for reach in _REACHES]
    return float(logsumexp(parts)) - math.log(len(_REACHES) * len(_NOISE))


def _of_reach(observed: NDArray[np.float64], apart: NDArray[np.float64]) -> float:
    """Return the log evidence of all levels of noise: `observed` is all of y, then all of x."""
    y, x = apart[..., 0], apart[..., 1]
    near = np.exp(-(y**2 + x**2) / 2)
    # Of a gradient: (1 - d d^T) near; of a field that has none, the same turned by 90 degrees.
    rows = near * (1 - (1 - _MIXED) * y**2 - _MIXED * x**2)
    columns = near * (1 - (1 - _MIXED) * x**2 - _MIXED * y**2)
    mixed = near * (2 * _MIXED - 1) * y * x
    variances, vectors = eigh(np.block([[rows, mixed], [mixed, columns]]), overwrite_a=True)
    power = (vectors.T @ observed)[:, None] ** 2
    values = np.maximum(variances, 0)[:, None] + _NOISE
    n = len(observed)
    return float(logsumexp(-(n * np.log((power / values).sum(axis=0) / n) + np.log(values).sum(axis=0)) / 2))
