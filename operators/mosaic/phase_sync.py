"""Bring overlapping patches to one phase, all at once.

A patch knows the object only up to a phase. Turned one after the other, patches drift over the field like a
random walk.
"""

from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from operators.arrays import Array, Corners, Patches
from operators.mosaic.light import lit_part

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

ReadPatches: TypeAlias = Callable[[NDArray[np.int64]], Patches]
"""Returns the patches (frame, y, x) complex64 at some indices (frame,)."""

BRIGHT = 0.02  # of the peak weight: the part of a window that is compared
REACH = 0.65  # of the bright part's side: beyond, too little overlaps to tell a phase
REGION = 4  # bright sides; its patches and their neighbours are in memory at a time
PAIRS_PER_PATCH = 16  # what a scan of usual overlap has within reach; more tell little more
MOST_ITERATIONS = 2000
CONVERGED = 1e-6  # rad, of the change of an iteration

Result = TypeVar("Result")


def result_of(steps: Generator[None, None, Result]) -> Result:
    """Do all steps of a computation; return what it does."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def synchronise(
    patches: Patches | ReadPatches, weights: Array, corners: Corners, turns: Array
) -> NDArray[np.complex64]:
    """Return the phase factor of each patch that makes all overlaps agree best, (frame,) complex64.

    Parameters
    ----------
    patches : (frame, y, x) complex64
        Or what returns those at the indices (frame,) that it is given: the patches of a region at a time.
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
    read = patches if callable(patches) else patches.__getitem__
    return result_of(synchronising(read, weights, corners, turns))


def synchronising(
    read: ReadPatches, weights: Array, corners: Corners, turns: Array
) -> Generator[None, None, NDArray[np.complex64]]:
    """Do what `synchronise` does in steps of less than a second, and return the turns after the last."""
    overlaps = yield from _overlaps(read, np.asarray(weights, np.float32), corners)
    turns = np.asarray(turns, np.complex128)
    for _ in range(MOST_ITERATIONS):
        yield
        pull = overlaps @ turns
        size = np.abs(pull)
        turned = np.where(size > 0, pull / np.where(size > 0, size, 1), turns)
        change = np.abs(turned - turns).max(initial=0)
        turns = turned
        if change < CONVERGED:
            break
    return turns.astype(np.complex64)


def _overlaps(
    read: ReadPatches, weights: NDArray[np.float32], corners: Corners
) -> "Generator[None, None, csr_matrix]":
    """Return the inner products conj(p_i) p_j of patches where they overlap, a Hermitian sparse matrix."""
    from scipy.sparse import csr_matrix  # here: it loads in a quarter of a second, and live mosaics need none

    part = lit_part(weights, BRIGHT)
    bright = np.s_[:, part.top : part.bottom, part.left : part.right]
    weights = weights[bright[1:]] / weights.max()
    pairs = _pairs(corners, REACH * float(min(weights.shape)))
    products = np.empty(len(pairs), np.complex128)
    for which in _by_region(corners[pairs[:, 0]], REGION * max(weights.shape)):
        yield
        members, where = np.unique(pairs[which], return_inverse=True)
        patches, places = read(members)[bright], where.reshape(-1, 2)
        offsets = np.diff(corners[pairs[which]], axis=1)[:, 0].tolist()
        products[which] = [
            _overlap(patches[i], patches[j], weights, *offset)
            for (i, j), offset in zip(places.tolist(), offsets, strict=True)
        ]
    i, j = pairs.T
    n = len(corners)
    entries = np.concatenate([i, j]), np.concatenate([j, i])
    return csr_matrix((np.concatenate([products, products.conj()]), entries), (n, n))


def _overlap(one: Array, other: Array, weights: Array, down: int, right: int) -> complex:
    """Return the inner product of two patches, the second so many pixels further down and right."""
    rows, columns = _shared(weights.shape[0], down), _shared(weights.shape[1], right)
    (in_one, in_other) = zip(rows, columns, strict=True)
    return complex(np.vdot(one[in_one], weights[in_one] * weights[in_other] * other[in_other]))


def _shared(n_pixels: int, offset: int) -> tuple[slice, slice]:
    """Return the pixels along one axis that two windows share, in the first and in the second."""
    low, high = max(offset, 0), n_pixels + min(offset, 0)
    return slice(low, high), slice(low - offset, high - offset)


def _by_region(corners: Corners, side: float) -> Iterator[NDArray[np.int64]]:
    """Yield the indices of corners that lie in one square region, region by region."""
    regions = np.unique(corners // int(side), axis=0, return_inverse=True)[1].reshape(-1)
    order = np.argsort(regions, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(regions[order])) + 1)


def _pairs(corners: Corners, reach: float) -> NDArray[np.int64]:
    """Return pairs of patches within reach, (pair, 2), so many at most that a dense scan stays cheap."""
    from scipy.spatial import cKDTree

    pairs = np.asarray(cKDTree(corners).query_pairs(reach, output_type="ndarray"), np.int64)
    pairs = pairs[np.lexsort(pairs.T)]
    most = PAIRS_PER_PATCH * len(corners)
    if len(pairs) > most:
        pairs = pairs[np.random.default_rng(0).permutation(len(pairs))[:most]]
    return pairs
