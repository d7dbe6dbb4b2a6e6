"""All patches of a scan as one mosaic, whatever the order in which they came, a few at a time."""

import heapq
from collections.abc import Callable, Generator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from operators.arrays import Array, Corners, Patches, phase_factor
from operators.geometry import Bounds
from operators.mosaic.error_bars import DEFAULT_ERROR_MODEL, ErrorModel
from operators.mosaic.light import part_of_windows
from operators.mosaic.mosaic import Mosaic
from operators.mosaic.phase_sync import result_of, synchronising

PART = 256  # patches that are stitched at a time
PLACES = 4096  # of patches, which are put in order at a time

ReadParts: TypeAlias = Callable[[NDArray[np.int64]], tuple[Patches, Array]]


def stitch(
    patches: Patches,
    sigma: Array,
    illumination: Array,
    corners: Corners,
    error_model: ErrorModel | None = DEFAULT_ERROR_MODEL,
) -> Mosaic:
    """Returns the mosaic of all patches, whatever the order in which they arrived.

    Parameters
    ----------
    patches, sigma, corners
        As for `Mosaic.add`, in frame order.
    illumination : (y, x) float32, photons
    error_model
        As for `Mosaic`.
    """
    return stitch_parts(lambda rows: (patches[rows], sigma[rows]), illumination, corners, error_model)


def stitch_parts(
    read: ReadParts,
    illumination: Array,
    corners: Corners,
    error_model: ErrorModel | None = DEFAULT_ERROR_MODEL,
) -> Mosaic:
    """Returns what `stitch` does, of patches that need not be in memory together.

    Parameters
    ----------
    read : callable
        Returns patches and sigma, as for `Mosaic.add`, at indices (frame,) of `corners`; each is read a few
        times, some hundred together.
    illumination, corners, error_model
        As for `stitch`.
    """
    return result_of(stitching(read, illumination, corners, error_model))


def stitching(
    read: ReadParts,
    illumination: Array,
    corners: Corners,
    error_model: ErrorModel | None = DEFAULT_ERROR_MODEL,
) -> Generator[None, None, Mosaic]:
    """Does what `stitch_parts` does in steps of less than a second, and returns the mosaic after the last."""
    mosaic = Mosaic(illumination, error_model)
    if not len(corners):
        return mosaic
    n, lit, light = mosaic.weights.shape[-1], mosaic.lit, mosaic.light
    bounds = Bounds.of_windows(corners, n)
    mosaic.grow(bounds)
    order = yield from neighbours_first(corners)
    for rows in _parts(order):
        mosaic.add(*read(rows), corners[rows])
        yield
    mean = mosaic.object_on(bounds)
    agreement = np.empty(len(corners), np.complex64)

    def read_lit(rows: NDArray[np.int64]) -> Patches:
        return part_of_windows(*read(rows), n, lit)[0]

    for rows in _parts(np.arange(len(corners))):
        under = np.stack([mean[each.slices_in(bounds)] for each in mosaic.lit_at(corners[rows])])
        agreement[rows] = np.einsum("fyx,yx,fyx->f", read_lit(rows).conj(), light, under, optimize=True)
        yield
    turns = yield from synchronising(read_lit, light, corners, phase_factor(agreement))
    mosaic = Mosaic(illumination, error_model)
    mosaic.grow(bounds)
    for rows in _parts(np.arange(len(corners))):
        mosaic.add(*read(rows), corners[rows], turns[rows])
        yield
    return mosaic


def _parts(rows: Array) -> list[Array]:
    return np.array_split(rows, -(-len(rows) // PART))


def neighbours_first(corners: Corners) -> Generator[None, None, NDArray[np.int64]]:
    """Find, in short steps, an order of patches, (frame,), in which each comes next to one before if it can.

    Taken at random, patches would join islands whose phases have nothing to do with each other: a bad start
    for matching them all. From the first patch on, the nearest to all before is next (Prim, 1957); it is
    always found along an edge of the Delaunay triangulation.
    """
    places, first, place_of = np.unique(corners, axis=0, return_index=True, return_inverse=True)
    place_of, firsts = place_of.reshape(-1), first.tolist()
    starts, ends = _neighbours(places)
    distances2 = np.square(places[ends] - np.repeat(places, np.diff(starts), axis=0)).sum(axis=1).tolist()
    starts, ends = starts.tolist(), ends.tolist()
    n_taken, rank = 0, [len(places)] * len(places)
    queue = [(0, 0, int(place_of[0]))]  # squared distance, first patch there, place
    while queue:
        _, _, place = heapq.heappop(queue)
        if rank[place] < len(places):
            continue
        rank[place], n_taken = n_taken, n_taken + 1
        if n_taken % PLACES == 0:
            yield
        for edge in range(starts[place], starts[place + 1]):
            if rank[ends[edge]] == len(places):
                heapq.heappush(queue, (distances2[edge], firsts[ends[edge]], ends[edge]))
    return np.argsort(np.array(rank)[place_of], kind="stable")


def _neighbours(places: Corners) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where the neighbours of each of `places` start, (place + 1,), and these, (neighbour,).

    Places are (place, 2) int64, all different, in order.
    """
    from scipy.spatial import Delaunay  # here: it loads in a quarter of a second, and live mosaics need none

    if np.linalg.matrix_rank(places - places[0]) == 2:
        starts, ends = Delaunay(places).vertex_neighbor_vertices
        return starts.astype(np.int64), ends.astype(np.int64)
    # On a line, along which they are in order.
    around = np.stack([np.arange(len(places)) - 1, np.arange(len(places)) + 1], axis=1)
    is_there = (around >= 0) & (around < len(places))
    return np.concatenate([[0], np.cumsum(is_there.sum(axis=1))]), around[is_there]
