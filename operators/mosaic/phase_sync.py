"""Bring overlapping patches to one phase, all at once.

A patch knows the object only up to a phase. Turned one after the other, patches drift over the field like a
random walk.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from operators.arrays import Array, Corners, Patches

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

BRIGHT = 0.02  # of the peak weight: the part of a window that is compared
REACH = 0.65  # of the bright part's side: beyond, too little overlaps to tell a phase
PAIRS_PER_PATCH = 16  # what a scan of usual overlap has within reach; more tell little more
MOST_ITERATIONS = 2000
CONVERGED = 1e-6  # rad, of the change of an iteration


def synchronise(patches: Patches, weights: Array, corners: Corners, turns: Array) -> NDArray[np.complex64]:
    """Return the phase factor of each patch that makes all overlaps agree best, (frame,) complex64.

    Parameters
    ----------
    patches : (frame, y, x) complex64
    weights : (y, x) float32
        How far each pixel of a patch is to be believed.
    corners : (frame, 2) int64
    turns : (frame,) complex
        Phase factors to start from.

    Notes
    -----
    The generalised power method of Boumal, SIAM J. Optim. 26, 2355 (2016): the phases u that maximise
    u^H H u, where H holds the weighted inner products of overlapping patches.
    """
    overlaps = _overlaps(patches, np.asarray(weights, np.float32), corners)
    turns = np.asarray(turns, np.complex128)
    for _ in range(MOST_ITERATIONS):
        pull = overlaps @ turns
        size = np.abs(pull)
        turned = np.where(size > 0, pull / np.where(size > 0, size, 1), turns)
        change = np.abs(turned - turns).max(initial=0)
        turns = turned
        if change < CONVERGED:
            break
    return turns.astype(np.complex64)


def _overlaps(patches: Patches, weights: NDArray[np.float32], corners: Corners) -> "csr_matrix":
    """Return the inner products conj(p_i) p_j of patches where they overlap, a Hermitian sparse matrix."""
    from scipy.sparse import csr_matrix  # here: it loads in a quarter of a second, and live mosaics need none

    rows, columns = (np.flatnonzero((weights > BRIGHT * weights.max()).any(axis=axis)) for axis in (1, 0))
    bright = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    weights = weights[bright] / weights.max()
    shape = np.array(weights.shape)
    pairs = _pairs(corners, REACH * float(shape.min()))
    products = np.empty(len(pairs), np.complex128)
    for index, (i, j) in enumerate(pairs):
        offset = corners[j] - corners[i]
        low, high = np.maximum(offset, 0), shape + np.minimum(offset, 0)
        in_i = np.s_[low[0] : high[0], low[1] : high[1]]
        in_j = np.s_[low[0] - offset[0] : high[0] - offset[0], low[1] - offset[1] : high[1] - offset[1]]
        both = weights[in_i] * weights[in_j]
        products[index] = np.vdot(patches[i][bright][in_i], both * patches[j][bright][in_j])
    i, j = pairs.T
    n = len(patches)
    where = np.concatenate([i, j]), np.concatenate([j, i])
    return csr_matrix((np.concatenate([products, products.conj()]), where), (n, n))


def _pairs(corners: Corners, reach: float) -> NDArray[np.int64]:
    """Return pairs of patches within reach, (pair, 2), so many at most that a dense scan stays cheap."""
    from scipy.spatial import cKDTree

    pairs = np.asarray(cKDTree(corners).query_pairs(reach, output_type="ndarray"), np.int64)
    pairs = pairs[np.lexsort(pairs.T)]
    most = PAIRS_PER_PATCH * len(corners)
    if len(pairs) > most:
        pairs = pairs[np.random.default_rng(0).permutation(len(pairs))[:most]]
    return pairs
