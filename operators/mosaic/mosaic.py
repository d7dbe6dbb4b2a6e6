"""Stitch patches into a mosaic of the object, with what is known about its error.

The live image where nothing better is known yet. A patch fixes the object only up to a global phase, so
each one is turned to agree with what lies under it before it is added.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from operators.arrays import Array, Corners, Mask, Object, Patches, abs2, phase_factor
from operators.geometry import Bounds
from operators.mosaic.error_bars import DEFAULT_ERROR_MODEL, ErrorModel
from operators.mosaic.islands import Islands
from operators.mosaic.phase_sync import synchronise
from operators.patches import extract_patches

PART = 256  # patches that are stitched at a time
KNOWN_FRACTION = 0.05  # of one probe's peak illumination: below it a pixel counts as unseen
LOSS_OF_INFORMATION = 1.35  # full Cramer-Rao bound over the diagonal one at usual overlap

ReadParts: TypeAlias = Callable[[NDArray[np.int64]], tuple[Patches, Array]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """The object on the pixels `bounds`, with its illumination and error.

    Attributes
    ----------
    object : (row, col) complex64
        Zero where nothing is known.
    photons : (row, col) float32
        Photons that fell on each pixel.
    sigma : (row, col) float32, radians
        Standard deviation of the phase; infinite where nothing is known.
    bounds : Bounds
        Absolute object pixels covered.
    """

    object: Object
    photons: Array
    sigma: Array
    bounds: Bounds


class Mosaic:
    """Weighted sums over patches on a canvas that grows with the scan.

    Parameters
    ----------
    illumination : (y, x) float32, photons
        |P|^2 summed over modes. A pixel of a patch weighs |P|^3: towards the rim of the probe patches are
        wrong by more than their photons say. Their own sigma would not weigh better: phases drift then.
    error_model : ErrorModel
        How its sigma is made of what is known about its error.
    """

    def __init__(self, illumination: Array, error_model: ErrorModel = DEFAULT_ERROR_MODEL) -> None:
        self.weights = np.asarray(illumination, np.float32)
        self.power = float(self.weights.sum())  # photons of the probe
        self.error_model = error_model
        self.n_patches = 0
        self.bounds: Bounds | None = None
        self._steep = self.weights * np.sqrt(self.weights / self.weights.max())
        self._photons = np.zeros((0, 0), np.float32)
        self._islands = Islands()  # of w p
        self._gains = np.zeros((0, 0), np.float32)  # of w
        self._squares = np.zeros((3, 0, 0), np.float32)  # of w |p|^2, w s^2, w^2 s^2

    @property
    def n_islands(self) -> int:
        """Parts of which no patch has told yet how their phases stand to each other."""
        return len(self._islands)

    def add(self, patches: Patches, sigma: Array, corners: Corners, *, turn: bool = True) -> list[Bounds]:
        """Adds patches one after the other, each in the phase of what already lies under it.

        Returns the absolute pixels of islands that were turned because a patch lies on a larger one, too.

        Parameters
        ----------
        patches : (frame, y, x) complex64
        sigma : (frame, y, x) float32, radians
            Standard deviation of each patch's phase.
        corners : (frame, 2) int64, absolute object pixels
        turn : bool
            False where the phases agree already.
        """
        if not len(patches):
            return []
        n, turned = self.weights.shape[-1], []
        self.grow(Bounds.of_windows(corners, n))
        for patch, spread, corner in zip(patches, sigma, corners, strict=True):
            bounds = Bounds.of_windows(corner[None], n)
            if turn:
                turned += self._islands.place(patch, self._steep, self.weights, bounds)
            else:
                self._islands.place_unturned(patch, self._steep, bounds)
            self._add_one(patch, spread, bounds)
        return turned

    def grow(self, bounds: Bounds) -> None:
        """Makes room for `bounds`; nothing moves in absolute pixels."""
        if self.bounds is not None and self.bounds.contains(bounds):
            return
        n = self.weights.shape[-1]
        # Growing copies the canvas: a margin makes it rare.
        new = bounds if self.bounds is None else self.bounds.union(bounds.padded(n))
        for name in ("_photons", "_gains", "_squares"):
            old = getattr(self, name)
            grown = np.zeros((*old.shape[:-2], *new.shape), old.dtype)
            if self.bounds is not None:
                rows, columns = self.bounds.slices_in(new)
                grown[..., rows, columns] = old
            setattr(self, name, grown)
        self.bounds = new

    def picture(self, bounds: Bounds) -> Picture:
        """Returns the mosaic on `bounds`; raises ValueError unless they lie inside the canvas."""
        if self.bounds is None:
            raise ValueError("the mosaic is empty: no patch has been added")
        window, mean = bounds.slices_in(self.bounds), self.object_on(bounds)
        photons = self._photons[window]
        known = self._known(photons)
        variance = self.error_model.variance(self._error_terms(window, mean))
        sigma = np.where(known, np.sqrt(variance), np.float32(np.inf))
        return Picture(object=mean, photons=photons.copy(), sigma=sigma, bounds=bounds)

    def photons_on(self, bounds: Bounds) -> Array:
        """Returns the photons that fell on each pixel of `bounds`, inside the canvas, (row, col) float32."""
        assert self.bounds is not None  # noqa: S101  (nothing lies inside no canvas)
        return self._photons[bounds.slices_in(self.bounds)]

    def object_on(self, bounds: Bounds, step: int = 1) -> Object:
        """Returns every `step`th row and column of `bounds`, inside the canvas; 0 where nothing is known."""
        assert self.bounds is not None  # noqa: S101  (nothing lies inside no canvas)
        rows, columns = bounds.slices_in(self.bounds)
        window = slice(rows.start, rows.stop, step), slice(columns.start, columns.stop, step)
        known, sums = self._known(self._photons[window]), self._islands.sums_on(bounds, step)
        return np.where(known, sums / self._known_gains(window), np.complex64(0))

    def windows(self, corners: Corners) -> Patches:
        """Returns (frame, y, x) complex64, the mosaic under each window; 1 where nothing is known."""
        n = self.weights.shape[-1]
        bounds = Bounds.of_windows(corners, n)
        picture = self.picture(bounds)
        known = np.where(np.isfinite(picture.sigma), picture.object, np.complex64(1))
        return extract_patches(known, corners - bounds.origin, n)

    def error_terms(self, bounds: Bounds) -> Array:
        """Returns (4, row, col) float32, rad^2: what `ErrorModel` weighs, on `bounds` inside the canvas."""
        picture = self.picture(bounds)
        assert self.bounds is not None  # noqa: S101  (there is a picture)
        return self._error_terms(bounds.slices_in(self.bounds), picture.object)

    def _known(self, photons: Array) -> Mask:
        return photons > KNOWN_FRACTION * self.weights.max()

    def _known_gains(self, window: tuple[slice, slice]) -> Array:
        gains = self._gains[window]
        return np.where(gains > 0, gains, np.float32(1))

    def _error_terms(self, window: tuple[slice, slice], mean: Object) -> Array:
        """Return photon noise, the network's own estimate as if errors were shared or not, disagreement."""
        gains = self._known_gains(window)
        power, spread, spread_weighted = (square[window] / gains for square in self._squares)
        mean2 = abs2(mean)
        amplitude2 = np.maximum(mean2, 1e-3)
        disagreement = np.maximum(power - mean2, 0) / (2 * amplitude2)
        floor = 1 / (2 * np.maximum(self._photons[window] * amplitude2, 1e-3))
        return np.stack([floor, spread, spread_weighted / gains, disagreement])

    def _add_one(self, patch: Array, sigma: Array, bounds: Bounds) -> None:
        assert self.bounds is not None  # noqa: S101  (grow has run)
        weights, window = self._steep, bounds.slices_in(self.bounds)
        weighted = weights * sigma.astype(np.float32) ** 2
        self._photons[window] += self.weights
        self._gains[window] += weights
        self._squares[(0, *window)] += weights * abs2(patch)
        self._squares[(1, *window)] += weighted
        self._squares[(2, *window)] += weights * weighted
        self.n_patches += 1


def stitch(
    patches: Patches,
    sigma: Array,
    illumination: Array,
    corners: Corners,
    error_model: ErrorModel = DEFAULT_ERROR_MODEL,
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
    read: ReadParts, illumination: Array, corners: Corners, error_model: ErrorModel = DEFAULT_ERROR_MODEL
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
    mosaic = Mosaic(illumination, error_model)
    if not len(corners):
        return mosaic
    bounds = Bounds.of_windows(corners, mosaic.weights.shape[-1])
    mosaic.grow(bounds)
    for rows in _parts(_neighbours_first(corners)):
        mosaic.add(*read(rows), corners[rows])
    mean = mosaic.picture(bounds).object
    agreement = np.empty(len(corners), np.complex64)
    for rows in _parts(np.arange(len(corners))):
        under = extract_patches(mean, corners[rows] - bounds.origin, mosaic.weights.shape[-1])
        agreement[rows] = np.einsum(
            "fyx,yx,fyx->f", read(rows)[0].conj(), mosaic.weights, under, optimize=True
        )
    turns = synchronise(lambda rows: read(rows)[0], mosaic.weights, corners, phase_factor(agreement))
    mosaic = Mosaic(illumination, error_model)
    mosaic.grow(bounds)
    for rows in _parts(np.arange(len(corners))):
        patches, sigma = read(rows)
        mosaic.add(patches * turns[rows, None, None], sigma, corners[rows], turn=False)
    return mosaic


def _parts(rows: Array) -> list[Array]:
    return np.array_split(rows, -(-len(rows) // PART))


def _neighbours_first(corners: Corners) -> Array:
    """Return an order in which every patch comes next to one before it, if it has a neighbour at all.

    Taken at random, patches would join islands whose phases have nothing to do with each other: a bad start
    for matching them all.
    """
    order = np.zeros(len(corners), np.int64)
    y, x = corners.T.astype(np.float64, order="C")
    distance2 = np.full(len(corners), np.inf)
    for i in range(1, len(corners)):
        newest = order[i - 1]
        top, left = y[newest], x[newest]
        y[newest] = distance2[newest] = np.inf  # taken
        np.minimum(distance2, (y - top) ** 2 + (x - left) ** 2, out=distance2)
        order[i] = distance2.argmin()
    return order


def phase_variance(photons: Array) -> Array:
    """Returns the Cramer-Rao bound on the phase of a pixel that `photons` have passed, radians^2."""
    return LOSS_OF_INFORMATION / (2 * np.maximum(photons, 1e-3))
