"""One picture out of two: the refined object where there is one, the network's mosaic elsewhere."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from operators.arrays import Array, Mask, Object, Probe, abs2
from operators.engine.config import RefinerSnapshot, RefinerState
from operators.engine.gate import Tile, withheld_bounds, withheld_on
from operators.geometry import Bounds
from operators.mosaic.joining import Joint, Plane, join, plane_between
from operators.mosaic.mosaic import KNOWN_FRACTION, Mosaic, phase_variance

NOTHING, MOSAIC, REFINED = 0, 1, 2
MOTION_WINDOW_PX = 5
MOST_SAMPLES = 1 << 20  # of a picture, for its phase: more take longer and say the same
SAME_PROBE = 1 - 1e-6
LIGHT_SHARE = 0.6  # of the mosaic's illumination that refinement must have used to know better

Layers: TypeAlias = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refined:
    """A refined object in the phase of the picture around it, with its error.

    Attributes
    ----------
    object : (row, col) complex64
    photons : (row, col) float32
    sigma : (row, col) float32, radians
        Photon noise, and how much the pixel still moved since the picture before.
    probe : (mode, y, x) complex64
        That it goes with.
    power : float, photons
        Of that probe.
    least : float, photons
        Illumination from which a pixel counts as known.
    brightest : float, photons
        Illumination of the brightest pixel.
    bounds : Bounds
        Of the arrays, which may reach beyond what is known.
    withheld : (row, col) bool
        Where the mosaic explains the frames better.
    withheld_tiles : frozenset
        The same as tiles of `operators.engine.gate`.
    gauge : Plane
        Phase by which the object differs from that of the refinement.
    n_updates : int
    epoch, error : float
        Of the refinement.
    """

    object: NDArray[np.complex64]
    photons: NDArray[np.float32]
    sigma: NDArray[np.float32]
    probe: Probe
    power: float
    least: float
    brightest: float
    bounds: Bounds
    withheld: Mask
    withheld_tiles: frozenset[Tile]
    gauge: Plane
    n_updates: int
    epoch: float
    error: float

    @classmethod
    def of(cls, snapshot: RefinerSnapshot, mosaic: Mosaic, before: "Refined | None") -> "Refined":
        """Returns the snapshot in the gauge of `before`, the first time in the phase of the mosaic.

        Patterns leave the phase free and, where the probe was refined since, a ramp. With the probe as it was
        a ramp is an error that refinement takes out: it is left to it.
        """
        gauge = _phase_of_mosaic(snapshot, mosaic) if before is None else _gauge_of(snapshot, before)
        object_, intensity = snapshot.object * gauge.over(snapshot.bounds), abs2(snapshot.probe).sum(axis=0)
        variance = phase_variance(snapshot.illumination * np.abs(object_) ** 2)
        if before is not None:
            variance = variance + _motion(object_, snapshot.bounds, before)
        return cls(
            object=object_,
            photons=snapshot.illumination,
            sigma=np.sqrt(variance).astype(np.float32),
            probe=snapshot.probe,
            power=float(intensity.sum()),
            least=KNOWN_FRACTION * float(intensity.max()),
            brightest=float(snapshot.illumination.max()),
            bounds=snapshot.bounds,
            withheld=withheld_on(snapshot.bounds, snapshot.withheld, snapshot.probe.shape[-1]),
            withheld_tiles=_tiles(snapshot.withheld),
            gauge=gauge,
            n_updates=snapshot.n_updates,
            epoch=snapshot.epoch,
            error=snapshot.error,
        )

    def changed(self, state: RefinerState, tiles: Iterable[tuple[Bounds, Object, Array]]) -> "Refined":
        """Returns it with newer ground, in the same gauge; this one is not to be used any more.

        Parameters
        ----------
        state : RefinerState
        tiles : iterable of (Bounds, (y, x) complex64, (y, x) float32)
            What changed: absolute pixels, object, photons.
        """
        intensity, grown = abs2(state.probe).sum(axis=0), self._covering(state.bounds)
        brightest = grown.brightest
        for bounds, object_, photons in tiles:
            if (shared := bounds.intersection(grown.bounds)) is None:
                continue
            here, there = shared.slices_in(bounds), shared.slices_in(grown.bounds)
            turned = object_[here] * self.gauge.over(shared)
            variance = phase_variance(photons[here] * np.abs(turned) ** 2)
            grown.sigma[there] = np.sqrt(variance + _motion(turned, shared, grown))
            grown.object[there], grown.photons[there] = turned, photons[here]
            brightest = max(brightest, float(photons[here].max()))
        withheld_tiles = _tiles(state.withheld)
        for tile in withheld_tiles ^ self.withheld_tiles:
            shared = withheld_bounds(tile, state.probe.shape[-1]).intersection(grown.bounds)
            if shared is not None:
                grown.withheld[shared.slices_in(grown.bounds)] = tile in withheld_tiles
        return replace(
            grown,
            withheld_tiles=withheld_tiles,
            probe=state.probe,
            power=float(intensity.sum()),
            least=KNOWN_FRACTION * float(intensity.max()),
            brightest=brightest,
            n_updates=state.n_updates,
            epoch=state.epoch,
            error=state.error,
        )

    def _covering(self, bounds: Bounds) -> "Refined":
        """Return the same on arrays that cover `bounds`, with a margin that makes it rare."""
        if self.bounds.contains(bounds):
            return self
        union = self.bounds.union(bounds)
        larger = union.padded(max(union.shape) // 8)
        inside = self.bounds.slices_in(larger)
        object_, photons = np.ones(larger.shape, np.complex64), np.zeros(larger.shape, np.float32)
        sigma = np.full(larger.shape, np.inf, np.float32)
        object_[inside], photons[inside], sigma[inside] = self.object, self.photons, self.sigma
        withheld = np.zeros(larger.shape, bool)
        withheld[inside] = self.withheld
        return replace(self, object=object_, photons=photons, sigma=sigma, withheld=withheld, bounds=larger)

    def decided_anew(self, before: "Refined") -> list[Bounds]:
        """Returns the ground that is withheld here and was shown before, or the other way round."""
        n_pixels = self.probe.shape[-1]
        return [withheld_bounds(tile, n_pixels) for tile in self.withheld_tiles ^ before.withheld_tiles]

    def joint(self, mosaic: Mosaic) -> Joint | None:
        """Returns what makes the mosaic go on where this ends, None where they have no common ground.

        The mosaic moves: refined ground is the better known and, after the first minutes, the larger.
        """
        shared = None if mosaic.bounds is None else self.bounds.intersection(mosaic.bounds)
        if shared is None or mosaic.bounds is None:
            return None
        step = _step(shared)
        here = _sampled(shared.slices_in(self.bounds), step)
        there, photons = mosaic.object_on(shared, step), self.photons[here]
        known = (photons > self.least) & (there != 0) & ~self.withheld[here]
        weights = np.where(known, photons, np.float32(0))
        return join(self.object[here], there, weights, shared, mosaic.bounds, step) if weights.any() else None


def compose(
    bounds: Bounds,
    mosaic: Mosaic,
    refined: Refined | None,
    *,
    joint: Joint | None = None,
    sigma_factor: float = 1.0,
) -> Layers:
    """Returns the layers of `stream.live.tile_store` on `bounds`.

    Parameters
    ----------
    bounds : Bounds
        Absolute object pixels, may reach beyond both pictures.
    mosaic : Mosaic
    refined : Refined or None
    joint : Joint, optional
        Of the two (`Refined.joint`): without it each is in its own phase.
    sigma_factor : float
        Of the mosaic's error bars, as refined ground has shown them to be wrong by.
    """
    # One unit for both: the power of a known probe may be nominal, refinement knows that of the frames.
    power = 1.0 if refined is None else refined.power / mosaic.power
    shared = None if refined is None else bounds.intersection(refined.bounds)
    if refined is None or shared is None:
        return _of_mosaic(bounds, mosaic, joint, power, sigma_factor)
    layers = _nothing(bounds)
    layers["photons"] += np.float32(power) * mosaic.photons_on(bounds)
    window, target = shared.slices_in(refined.bounds), shared.slices_in(bounds)
    used, shone = refined.photons[window], layers["photons"][target]
    # At the growing edge the mosaic has frames that refinement has not come to yet: it is shown there, and
    # where it is not, their photons fell all the same.
    known = (used > refined.least) & (used >= LIGHT_SHARE * shone)
    layers["photons"][target] = np.maximum(used, shone)
    _put(layers, target, known, refined.object[window], refined.sigma[window], np.uint8(REFINED))
    is_open = layers["source"] == NOTHING
    is_open[target] |= refined.withheld[window]
    if is_open.any():
        below = _of_mosaic(bounds, mosaic, joint, power, sigma_factor)
        known = is_open & (below["source"] == MOSAIC)
        _put(layers, (slice(None), slice(None)), known, below["object"], below["sigma"], below["source"])
    layers["photons"][layers["source"] == NOTHING] = 0
    return layers


def _nothing(bounds: Bounds) -> Layers:
    return {
        "object": np.zeros(bounds.shape, np.complex64),
        "sigma": np.full(bounds.shape, np.inf, np.float32),
        "photons": np.zeros(bounds.shape, np.float32),
        "source": np.zeros(bounds.shape, np.uint8),
    }


def _of_mosaic(
    bounds: Bounds, mosaic: Mosaic, joint: Joint | None, power: float, sigma_factor: float
) -> Layers:
    """Return the layers where there is nothing but the mosaic, its photons times `power`."""
    if mosaic.bounds is None:
        return _nothing(bounds)
    picture = mosaic.picture(bounds)
    known = np.isfinite(picture.sigma)
    return {
        "object": picture.object if joint is None else picture.object * joint.over(bounds),
        "sigma": np.float32(sigma_factor) * picture.sigma,
        "photons": np.where(known, np.float32(power) * picture.photons, np.float32(0)),
        "source": np.where(known, np.uint8(MOSAIC), np.uint8(NOTHING)),
    }


def _put(
    layers: Layers, window: tuple[slice, slice], known: Mask, object_: Object, sigma: Array, source: Array
) -> None:
    for name, value in (("object", object_), ("sigma", sigma), ("source", source)):
        layers[name][window] = np.where(known, value, layers[name][window])


def _tiles(indices: NDArray[np.int64]) -> frozenset[Tile]:
    return frozenset((row, column) for row, column in indices.tolist())


def _phase_of_mosaic(snapshot: RefinerSnapshot, mosaic: Mosaic) -> Plane:
    """Return the phase in which the first snapshot continues what has been published so far."""
    shared = None if mosaic.bounds is None else snapshot.bounds.intersection(mosaic.bounds)
    if shared is None:
        return Plane()
    step = _step(shared)
    here = _sampled(shared.slices_in(snapshot.bounds), step)
    product = mosaic.object_on(shared, step) * snapshot.object[here].conj() * snapshot.illumination[here]
    return Plane(offset=float(np.angle(product.sum())))


def _gauge_of(snapshot: RefinerSnapshot, before: Refined) -> Plane:
    """Return the phase plane that keeps the picture from jumping."""
    shared = snapshot.bounds.intersection(before.bounds)
    if shared is None:
        return Plane()
    step = _step(shared)
    here, there = (_sampled(shared.slices_in(of.bounds), step) for of in (snapshot, before))
    photons = np.minimum(snapshot.illumination[here], before.photons[there])
    product = before.object[there] * snapshot.object[here].conj() * photons
    if _agreement(snapshot.probe, before.probe) > SAME_PROBE:
        return Plane(offset=float(np.angle(product.sum())))
    return plane_between(product, shared, step)


def _agreement(a: Probe, b: Probe) -> float:
    """Return the squared cosine between two probes, 1 for equal ones of any power."""
    return float(np.abs(np.vdot(a, b)) ** 2 / (abs2(a).sum() * abs2(b).sum())) if a.shape == b.shape else 0.0


def _step(bounds: Bounds) -> int:
    """Return every how many pixels two pictures are compared: the cost of that is bounded."""
    return max(1, math.ceil(math.sqrt(math.prod(bounds.shape) / MOST_SAMPLES)))


def _sampled(window: tuple[slice, slice], step: int) -> tuple[slice, slice]:
    rows, columns = window
    return slice(rows.start, rows.stop, step), slice(columns.start, columns.stop, step)


def _motion(object_: NDArray[Any], bounds: Bounds, before: Refined) -> NDArray[np.float32]:
    """Return the squared phase by which pixels moved since `before`, smoothed; zero on new ground."""
    motion = np.zeros(bounds.shape, np.float32)
    shared = bounds.intersection(before.bounds)
    if shared is not None:
        window = shared.slices_in(bounds)
        product = object_[window] * before.object[shared.slices_in(before.bounds)].conj()
        motion[window] = uniform_filter(np.angle(product) ** 2, MOTION_WINDOW_PX)
    return motion
