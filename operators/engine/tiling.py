"""A scan cut into tiles that are refined apart, and the one object and probe that the tiles agree on.

The engine refines one tile and does not know that there are others. Neighbouring tiles share the ground
that windows of both reach: their halo. An exchange is `match_gauge` of every tile, then `combine_objects`
and `combine_probes`; after it all go on from the same.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from operators.arrays import Array, Object, Positions, Probe, abs2, fft2, ifft2
from operators.engine.epie import shifted
from operators.geometry import Bounds
from operators.metrics.gauge import Gauge
from operators.optics.probe import orthogonalise_modes, with_power

_FAINT = 1e-6  # of the peak illumination: the say of a tile on ground that it hardly sees
_GAUGE_ROUNDS = 2  # each squares what is left of the first-order error
_PHASE_ROUNDS = 100  # of agreeing on phases: each carries them one tile further


class TileObject(NamedTuple):
    """One tile's object, on the host.

    Parameters
    ----------
    object : (row, col) complex64
    bounds : Bounds
        Absolute pixels that it covers: the windows of the tile's frames, halo included.
    illumination : (row, col) float32, photons per object pixel from the tile's own frames
    """

    object: Object
    bounds: Bounds
    illumination: Array


def partition(positions_px: Positions, n_tiles: int) -> list[np.ndarray]:
    """Return which frames each tile gets: equal numbers, give or take one, and compact tiles.

    The frames are halved (or divided as evenly as an odd number of tiles permits) across the longer side of
    the ground they cover, and the parts again, until there are enough.

    Parameters
    ----------
    positions_px : (frame, 2) float64, (y, x), any unit
    n_tiles : int

    Returns
    -------
    list of (frame,) int64
        Indices into `positions_px`, each once, ascending: every tile keeps the order of the scan.

    Raises
    ------
    ValueError
        If there are fewer frames than tiles.
    """
    if not 1 <= n_tiles <= len(positions_px):
        raise ValueError(f"expected 1 to {len(positions_px)} tiles for as many frames, got {n_tiles}")
    return [np.sort(frames) for frames in _halved(positions_px, np.arange(len(positions_px)), n_tiles)]


def _halved(positions_px: Positions, frames: np.ndarray, n_tiles: int) -> list[np.ndarray]:
    if n_tiles == 1:
        return [frames]
    axis = int(np.ptp(positions_px[frames], axis=0).argmax())
    along = frames[np.argsort(positions_px[frames, axis], kind="stable")]
    n_first = n_tiles // 2
    cut = len(frames) * n_first // n_tiles
    first, second = along[:cut], along[cut:]
    return [*_halved(positions_px, first, n_first), *_halved(positions_px, second, n_tiles - n_first)]


def combine_objects(tiles: Sequence[TileObject]) -> TileObject:
    """Return the object on the ground of all tiles: their mean, weighted with illumination.

    Each tile is first turned by a global phase, which its frames leave free, so that halos agree. Ground that
    no tile covers is transparent.

    Parameters
    ----------
    tiles : sequence of TileObject
        At least one.
    """
    bounds = tiles[0].bounds
    for tile in tiles[1:]:
        bounds = bounds.union(tile.bounds)
    faint = _FAINT * max(float(tile.illumination.max()) for tile in tiles)
    total = np.zeros(bounds.shape, np.complex64)
    weights, illumination = np.zeros((2, *bounds.shape), np.float32)
    for tile, turn in zip(tiles, common_phases(tiles), strict=True):
        inside = tile.bounds.slices_in(bounds)
        total[inside] += tile.object * (turn * (tile.illumination + np.float32(faint)))
        weights[inside] += tile.illumination + np.float32(faint)
        illumination[inside] += tile.illumination
    is_covered = weights > 0
    object_ = np.where(is_covered, total, 1) / np.where(is_covered, weights, 1)
    return TileObject(object_.astype(np.complex64), bounds, illumination)


def common_phases(tiles: Sequence[TileObject]) -> np.ndarray:
    """Return the factor, (tile,) complex64 of modulus 1, for each tile that makes the halos agree best.

    Notes
    -----
    The phases that maximise the sum of Re(conj(turn_i) turn_j H_ij), H_ij the overlap of two tiles in their
    halo, by generalised power iterations from no turn at all (Boumal, SIAM J. Optim. 26, 2355 (2016)): tiles
    without a halo in common stay as they are.
    """
    overlaps = np.array([[0j if a is b else _overlap(a, b) for b in tiles] for a in tiles])
    overlaps += np.diag(np.abs(overlaps).sum(axis=1))  # or two tiles would turn past each other for ever
    turns = np.ones(len(tiles), np.complex128)
    for _ in range(_PHASE_ROUNDS):
        wanted = overlaps @ turns
        size = np.abs(wanted)
        turns = np.where(size > 0, wanted / np.where(size > 0, size, 1), turns)
    return turns.astype(np.complex64)


def _overlap(a: TileObject, b: TileObject) -> complex:
    """Return the sum of w conj(a) b over the ground of both, w the lesser illumination."""
    common = a.bounds.intersection(b.bounds)
    if common is None:
        return 0j
    here, there = common.slices_in(a.bounds), common.slices_in(b.bounds)
    weights = np.minimum(a.illumination[here], b.illumination[there])
    return complex((weights * a.object[here].conj() * b.object[there]).sum(dtype=np.complex128))


def match_gauge(tile: TileObject, probe: Probe, reference: Probe) -> tuple[TileObject, Probe]:
    """Return a tile and its probe as close to a reference probe as can be without changing any intensity.

    While a tile refines its probe, modes may mix, probe and object may move together, and a phase ramp may
    pass from one to the other. A mean of probes has forgotten all of this: left on the objects, the moves and
    ramps would have to be found and lost again between exchanges, and bend the phase from tile to tile.

    Parameters
    ----------
    tile : TileObject
    probe : (mode, y, x) complex64
        That the tile was refined with.
    reference : (mode, y, x) complex64
        What all tiles started from; moves and ramps are taken to be small, as after an epoch.
    """
    ramp, move_px = np.zeros(2), np.zeros(2)
    for _ in range(_GAUGE_ROUNDS):
        probe = _mixed(probe, reference)
        slope, step_px = _drift(probe, reference)
        probe = shifted(_ramped(probe, -slope)[None], -step_px[None].astype(np.float32))[0]
        ramp, move_px = ramp + slope, move_px + step_px
    unmoved = Gauge(shift_px=(float(move_px[0]), float(move_px[1]))).remove_from(tile.object)
    return tile._replace(object=_ramped(unmoved, ramp, tile.bounds.origin)), probe


def _mixed(probe: Probe, reference: Probe) -> Probe:
    """Return the unitary mixture of modes closest to `reference`: no intensity tells it from `probe`.

    The orthogonal Procrustes problem (Schoenemann, Psychometrika 31, 1 (1966)) in complex numbers.
    """
    flat = probe.reshape(len(probe), -1)
    left, _, right = np.linalg.svd(reference.reshape(len(reference), -1) @ flat.conj().T)
    return ((left @ right) @ flat).reshape(probe.shape)


def _drift(probe: Probe, reference: Probe) -> tuple[np.ndarray, np.ndarray]:
    """Return phase ramp, rad/pixel, and move, pixels, both (y, x), of `probe` from `reference`.

    All four by one least-squares fit to first order, since a move of a curved wave looks like a ramp; what a
    mixture of modes would explain is left out of it.
    """
    n_modes, n_pixels = len(reference), reference.shape[-1]
    spectra, frequency = fft2(reference), np.fft.fftfreq(n_pixels)
    rows, columns = np.indices((n_pixels, n_pixels)) - n_pixels / 2
    changes = [1j * rows * reference, 1j * columns * reference]
    changes += [ifft2(-2j * np.pi * along * spectra) for along in (frequency[:, None], frequency)]
    modes, _ = np.linalg.qr(reference.reshape(n_modes, -1).T)
    explained, *terms = (
        (change - (change @ modes.conj()) @ modes.T).ravel()
        for change in (values.reshape(n_modes, -1) for values in (probe - reference, *changes))
    )
    matrix = np.array(terms)
    found = np.linalg.lstsq((matrix.conj() @ matrix.T).real, (matrix.conj() @ explained).real, rcond=None)[0]
    return found[:2], found[2:]


def _ramped(values: Array, slope: np.ndarray, origin: tuple[int, int] = (0, 0)) -> Array:
    """Return values (..., y, x) complex64 with a phase of this slope, rad/pixel, (y, x), added.

    The phase is zero at pixel zero, whatever pixel the `origin` of the array is: for all tiles the same ramp.
    """
    rows, columns = (
        np.exp(1j * k * (first + np.arange(n)))
        for k, first, n in zip(slope, origin, values.shape[-2:], strict=True)
    )
    return values * (rows[:, None] * columns).astype(np.complex64)


def combine_probes(probes: Sequence[Probe], n_frames: Sequence[int]) -> Probe:
    """Return the mean probe of the tiles, weighted with their frames, of the power they have.

    Parameters
    ----------
    probes : sequence of (mode, y, x) complex64
        Of equal power, from `match_gauge`.
    n_frames : sequence of int

    Returns
    -------
    (mode, y, x) complex64, orthogonal modes, strongest first
    """
    mean = sum(n * probe for probe, n in zip(probes, n_frames, strict=True))
    return with_power(orthogonalise_modes(mean), float(abs2(probes[0]).sum())).astype(np.complex64)
