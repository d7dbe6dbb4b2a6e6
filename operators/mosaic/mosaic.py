"""Stitch patches into a mosaic of the object, with what is known about its error.

The live image where nothing better is known yet. A patch fixes the object only up to a global phase, so
each one is turned to agree with what lies under it before it is added.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from operators.arrays import Array, Corners, Mask, Object, Patches, abs2
from operators.geometry import Bounds, lie_far_apart
from operators.mosaic.blocks import Blocks
from operators.mosaic.error_bars import DEFAULT_ERROR_MODEL, ErrorModel
from operators.mosaic.islands import Islands
from operators.mosaic.light import lit_part, middle_of
from operators.patches import UNIFORM_PHASE_SIGMA, extract_patches

LIT = 0.005
"""Of the peak of the light: where a window has less, its patch is left out. It has next to no weight there,
and most of a window is dark."""
KNOWN_FRACTION = 0.05  # of one probe's peak illumination: below it a pixel counts as unseen
LOSS_OF_INFORMATION = 1.35  # full Cramer-Rao bound over the diagonal one at usual overlap


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
    error_model : ErrorModel or None
        How its sigma is made of what is known about its error. None for a mosaic that is not asked for it:
        that one takes less than half the memory.

    Attributes
    ----------
    lit : Bounds
        Pixels of a window that count: outside them there is less than `LIT` of the peak of the light.
    light : (y, x) float32, photons
        Illumination of these.
    """

    def __init__(self, illumination: Array, error_model: ErrorModel | None = DEFAULT_ERROR_MODEL) -> None:
        self.weights = np.asarray(illumination, np.float32)
        self.power = float(self.weights.sum())  # photons of the probe
        self.error_model = error_model
        self.lit = lit_part(self.weights, LIT)
        self.n_patches = 0
        self.bounds: Bounds | None = None
        self.light = self.weights[self.lit.slices_in(Bounds(0, 0, *self.weights.shape))].copy()
        self._islands = Islands()  # of w p
        # of |P|^2, w and, for the error, w |p|^2, w s^2, w^2 s^2
        self._sums = Blocks(5 if error_model else 2, np.float32)
        self._weighted: dict[int, _WeightedPatch] = {}  # by side of the patches

    @property
    def n_islands(self) -> int:
        """Parts of which no patch has told yet how their phases stand to each other."""
        return len(self._islands)

    def add(
        self, patches: Patches, sigma: Array, corners: Corners, turns: Array | None = None
    ) -> list[Bounds]:
        """Adds patches one after the other, each in the phase of what already lies under it.

        Returns the absolute pixels of islands that were turned because a patch lies on a larger one, too.

        Parameters
        ----------
        patches : (frame, y, x) complex64
            Of whole windows, or of the middle of them that the network sees.
        sigma : (frame, y, x) real, radians
            Standard deviation of each patch's phase.
        corners : (frame, 2) int64, absolute object pixels
            Of the windows.
        turns : (frame,) complex64, optional
            Phase factors with which the patches agree, instead of finding them.
        """
        if not len(patches):
            return []
        n, turned = self.weights.shape[-1], []
        self.grow(Bounds.of_windows(corners, n))
        patch = self._patch_of(patches.shape[-1])
        for index, bounds in enumerate(self.lit_at(corners)):
            patch.take(patches[index], sigma[index])
            if turns is None:
                turned += self._islands.place(patch.seen, patch.weighted, bounds)
            else:
                self._islands.add(turns[index] * patch.weighted, bounds)
            self._sums.add(patch.layers, bounds)
        self.n_patches += len(patches)
        return turned

    def lit_at(self, corners: Corners) -> list[Bounds]:
        """Returns the absolute pixels to which the windows at `corners`, (frame, 2) int64, are added."""
        (top, left), (n_rows, n_columns) = self.lit.origin, self.lit.shape
        places = (corners + np.array([top, left])).tolist()
        return [Bounds(row, column, row + n_rows, column + n_columns) for row, column in places]

    def grow(self, bounds: Bounds) -> None:
        """Has the mosaic cover `bounds` as well."""
        self.bounds = bounds if self.bounds is None else self.bounds.union(bounds)

    def picture(self, bounds: Bounds) -> Picture:
        """Returns the mosaic on `bounds`; raises ValueError while no patch has been added.

        Only a mosaic with an error model has a picture.
        """
        if self.error_model is None:
            raise ValueError("the mosaic was made without an error model: ask for `object_on`")
        photons, mean, terms = self._layers_on(bounds)
        sigma = np.sqrt(self.error_model.variance(terms))
        sigma[~self._known(photons)] = np.inf
        return Picture(object=mean, photons=photons, sigma=sigma, bounds=bounds)

    def photons_on(self, bounds: Bounds) -> Array:
        """Returns the photons that fell on each pixel of `bounds`, (row, col) float32."""
        return self._sums.on(bounds, layers=slice(1))[0]

    def object_on(self, bounds: Bounds, step: int = 1) -> Object:
        """Returns every `step`th row and column of `bounds`; 0 where nothing is known."""
        photons, gains = self._sums.on(bounds, step, slice(2))
        return self._mean(photons, _inverse(gains), self._islands.sums_on(bounds, step))

    def windows(self, corners: Corners) -> Patches:
        """Returns (frame, y, x) complex64, the mosaic under each window; 1 where nothing is known."""
        n = self.weights.shape[-1]
        if lie_far_apart(corners, n):
            return np.concatenate([self.windows(corner[None]) for corner in corners])
        bounds = Bounds.of_windows(corners, n)
        photons, gains = self._sums.on(bounds, layers=slice(2))
        object_ = self._mean(photons, _inverse(gains), self._islands.sums_on(bounds))
        return extract_patches(np.where(self._known(photons), object_, 1), corners - bounds.origin, n)

    def error_terms(self, bounds: Bounds) -> Array:
        """Returns (4, row, col) float32, rad^2: what `ErrorModel` weighs, on `bounds`."""
        return self._layers_on(bounds)[2]

    def _layers_on(self, bounds: Bounds) -> tuple[Array, Object, Array]:
        """Return photons, object and error terms on `bounds`."""
        if self.bounds is None:
            raise ValueError("the mosaic is empty: no patch has been added")
        photons, gains, *squares = self._sums.on(bounds)
        inverse = _inverse(gains)
        mean = self._mean(photons, inverse, self._islands.sums_on(bounds))
        return photons, mean, _error_terms(photons, inverse, squares, mean)

    def _known(self, photons: Array) -> Mask:
        return photons > KNOWN_FRACTION * self.weights.max()

    def _mean(self, photons: Array, inverse: Array, sums: Object) -> Object:
        sums *= inverse * self._known(photons)
        return sums

    def _patch_of(self, n_seen: int) -> "_WeightedPatch":
        """Return what weighs patches of this side."""
        if n_seen not in self._weighted:
            middle = middle_of(self.weights.shape[-1], n_seen)
            self._weighted[n_seen] = _WeightedPatch(
                self.light, self.lit, middle, has_error=self.error_model is not None
            )
        return self._weighted[n_seen]


class _WeightedPatch:
    """One patch after the other as it is added, in the same memory: fresh memory is not in the cache.

    Parameters
    ----------
    light : (y, x) float32, photons
    lit, middle : Bounds
        Pixels of a window that `light` has, and that patches have. Around these a patch is 1 and its phase
        unknown.
    has_error : bool
        Whether there are layers for the error.

    Attributes
    ----------
    seen, weighted : (y, x) complex64
        The patch by |P|^2, as far as its pixels tell a phase, and by its weight w = |P|^3.
    layers : (5, y, x) float32
        |P|^2, w and, for the error, w |p|^2, w s^2 and w^2 s^2.
    """

    def __init__(self, light: Array, lit: Bounds, middle: Bounds, *, has_error: bool) -> None:
        steep = light * np.sqrt(light / light.max())
        self.seen, self.weighted = light.astype(np.complex64), steep.astype(np.complex64)
        unknown = np.float32(UNIFORM_PHASE_SIGMA**2) * steep
        errors = [steep, unknown, steep * unknown] if has_error else []
        self.layers = np.stack([light, steep, *errors])
        shared = lit.intersection(middle)
        self._from = (slice(0), slice(0)) if shared is None else shared.slices_in(middle)
        inside = (slice(0), slice(0)) if shared is None else shared.slices_in(lit)
        self._light, self._steep = light[inside].copy(), steep[inside].copy()
        self._seen, self._weighted = self.seen[inside], self.weighted[inside]
        self._errors = self.layers[2:, *inside]

    def take(self, patch: Array, sigma: Array) -> None:
        """Takes a patch, (y, x) complex64, and the standard deviation of its phase, rad."""
        patch = patch[self._from]
        np.multiply(patch, self._light, out=self._seen)
        np.multiply(patch, self._steep, out=self._weighted)
        if len(self._errors):
            power, spread, steep_spread = self._errors
            np.multiply(self._steep, abs2(patch), out=power)
            np.multiply(self._steep, sigma[self._from].astype(np.float32) ** 2, out=spread)
            np.multiply(self._steep, spread, out=steep_spread)


def _error_terms(photons: Array, inverse: Array, squares: Sequence[Array], mean: Object) -> Array:
    """Return photon noise, the network's own estimate as if errors were shared or not, disagreement."""
    power, spread, spread_weighted = squares
    mean2, terms = abs2(mean), np.empty((4, *mean.shape), np.float32)
    amplitude2 = np.maximum(mean2, np.float32(1e-3))
    np.divide(0.5, np.maximum(photons * amplitude2, np.float32(1e-3)), out=terms[0])
    np.multiply(spread, inverse, out=terms[1])
    np.multiply(spread_weighted, np.square(inverse), out=terms[2])
    np.divide(np.maximum(power * inverse - mean2, 0), 2 * amplitude2, out=terms[3])
    return terms


def _inverse(gains: Array) -> Array:
    """Return 1 / gains, 1 where there are none."""
    return 1 / np.where(gains > 0, gains, np.float32(1))


def phase_variance(photons: Array) -> Array:
    """Returns the Cramer-Rao bound on the phase of a pixel that `photons` have passed, radians^2."""
    return LOSS_OF_INFORMATION / (2 * np.maximum(photons, 1e-3))
