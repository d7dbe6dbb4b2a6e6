"""One picture out of two: the refined object where there is one, the network's mosaic elsewhere."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from operators.arrays import phase_factor
from operators.engine.config import RefinerSnapshot
from operators.geometry import Bounds
from operators.mosaic.mosaic import KNOWN_FRACTION, Mosaic, phase_variance

NOTHING, MOSAIC, REFINED = 0, 1, 2
MOTION_WINDOW_PX = 5
LIGHT_SHARE = 0.6  # of the mosaic's illumination that refinement must have used to know better


@dataclass(frozen=True, slots=True, kw_only=True)
class Refined:
    """A refined object in the phase of the picture around it, with its error.

    Attributes
    ----------
    object : (row, col) complex64
    photons : (row, col) float32
    sigma : (row, col) float32, radians
        Photon noise, and how much the pixel still moved since the picture before.
    least : float, photons
        Illumination from which a pixel counts as known.
    bounds : Bounds
    n_updates : int
    epoch, error : float
        Of the refinement.
    """

    object: NDArray[np.complex64]
    photons: NDArray[np.float32]
    sigma: NDArray[np.float32]
    least: float
    bounds: Bounds
    n_updates: int
    epoch: float
    error: float

    @classmethod
    def of(cls, snapshot: RefinerSnapshot, mosaic: Mosaic, before: "Refined | None") -> "Refined":
        """Returns the snapshot turned by one phase to continue `before`, or the mosaic the first time."""
        neighbour = mosaic if before is None else before
        object_ = snapshot.object * _turn(snapshot.object, snapshot.illumination, snapshot.bounds, neighbour)
        variance = phase_variance(snapshot.illumination * np.abs(object_) ** 2)
        if before is not None:
            variance = variance + _motion(object_, snapshot.bounds, before)
        return cls(
            object=object_,
            photons=snapshot.illumination,
            sigma=np.sqrt(variance).astype(np.float32),
            least=KNOWN_FRACTION * float((np.abs(snapshot.probe) ** 2).sum(axis=0).max()),
            bounds=snapshot.bounds,
            n_updates=snapshot.n_updates,
            epoch=snapshot.epoch,
            error=snapshot.error,
        )

    def turned_to(self, mosaic: Mosaic) -> "Refined":
        """Returns the same object in the phase of another mosaic."""
        return replace(self, object=self.object * _turn(self.object, self.photons, self.bounds, mosaic))


def compose(
    bounds: Bounds, mosaic: Mosaic, refined: Refined | None, *, sigma_factor: float = 1.0
) -> dict[str, NDArray[Any]]:
    """Returns the layers of `stream.live.tile_store` on `bounds`.

    Parameters
    ----------
    bounds : Bounds
        Absolute object pixels, may reach beyond both pictures.
    mosaic : Mosaic
    refined : Refined or None
    sigma_factor : float
        Of the mosaic's error bars, as refined ground has shown them to be wrong by.
    """
    layers: dict[str, NDArray[Any]] = {
        "object": np.zeros(bounds.shape, np.complex64),
        "sigma": np.full(bounds.shape, np.inf, np.float32),
        "photons": np.zeros(bounds.shape, np.float32),
        "source": np.zeros(bounds.shape, np.uint8),
    }
    if mosaic.bounds is not None and (shared := bounds.intersection(mosaic.bounds)) is not None:
        picture = mosaic.picture(shared)
        values = (picture.object, np.float32(sigma_factor) * picture.sigma, picture.photons)
        _put(layers, shared.slices_in(bounds), np.isfinite(picture.sigma), values, MOSAIC)
    if refined is not None and (shared := bounds.intersection(refined.bounds)) is not None:
        window, target = shared.slices_in(refined.bounds), shared.slices_in(bounds)
        values = (refined.object[window], refined.sigma[window], refined.photons[window])
        # At the growing edge the mosaic has frames that refinement has not come to yet.
        light = refined.photons[window] / refined.least
        mosaic_light = layers["photons"][target] / (KNOWN_FRACTION * mosaic.weights.max())
        _put(layers, target, (light > 1) & (light >= LIGHT_SHARE * mosaic_light), values, REFINED)
    return layers


def _put(layers: dict[str, Any], window: Any, known: Any, values: tuple[Any, ...], source: int) -> None:
    for name, value in zip(("object", "sigma", "photons"), values, strict=True):
        layers[name][window] = np.where(known, value, layers[name][window])
    layers["source"][window] = np.where(known, np.uint8(source), layers["source"][window])


def _turn(
    object_: NDArray[Any], photons: NDArray[Any], bounds: Bounds, neighbour: Refined | Mosaic
) -> np.complex64:
    """Return the phase factor that keeps the picture from jumping: refinement leaves it free."""
    shared = None if neighbour.bounds is None else bounds.intersection(neighbour.bounds)
    if shared is None:
        return np.complex64(1)
    if isinstance(neighbour, Mosaic):
        reference = neighbour.picture(shared).object
    else:
        reference = neighbour.object[shared.slices_in(neighbour.bounds)]
    window = shared.slices_in(bounds)
    return phase_factor(np.vdot(object_[window] * photons[window], reference))


def _motion(object_: NDArray[Any], bounds: Bounds, before: Refined) -> NDArray[np.float32]:
    """Return the squared phase by which pixels moved since `before`, smoothed; zero on new ground."""
    motion = np.zeros(bounds.shape, np.float32)
    shared = bounds.intersection(before.bounds)
    if shared is not None:
        window = shared.slices_in(bounds)
        product = object_[window] * before.object[shared.slices_in(before.bounds)].conj()
        motion[window] = uniform_filter(np.angle(product) ** 2, MOTION_WINDOW_PX)
    return motion
