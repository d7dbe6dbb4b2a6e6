"""What a scan became: object, probe and what belongs to them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from operators.arrays import Array, Object, Positions, Probe
from operators.geometry import Bounds, Geometry
from operators.metrics.errors import FRC
from operators.mosaic.scan_maps import scan_maps
from operators.optics.coherence import line_of_travel


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstruction:
    """What a scan became.

    Attributes
    ----------
    object : (row, col) complex64
        Transmission; 1 where no frame lit it, see `operators.reconstruct.transparent_where_unlit`.
    bounds : Bounds
        Absolute object pixels that `object` covers.
    probe : (mode, y, x) complex64
    photons : (row, col) float32
        That fell on each object pixel.
    positions_m : (frame, 2) float64, metres
        Probe on the sample, (y, x), of the frames used; `geometry.to_pixels` of them are window corners in
        absolute object pixels.
    frame_numbers : (frame,) int64
    geometry : Geometry
    error_history : (epoch,) float64
        Amplitude error.
    maps : mapping of str to (row, col) array
        Further maps on the same pixels: sigma, mosaic ...
    halves : FRC or None
        Agreement of two reconstructions from half the frames each, where it was measured.
    moments : (frame, 4) float32 or None
        Of the patterns of these frames, as of `operators.optics.moments.moments`.
    travel_m, spread_m : (frame, 2) float64, metres, or None
        Way of the probe on the sample during an exposure, and standard deviation of its captures, (y, x),
        where there were several of a frame.
    """

    object: Object
    bounds: Bounds
    probe: Probe
    photons: Array
    positions_m: Positions
    frame_numbers: NDArray[np.int64]
    geometry: Geometry
    error_history: NDArray[np.float64]
    maps: Mapping[str, Array]
    halves: FRC | None = None
    moments: NDArray[np.float32] | None = None
    travel_m: Positions | None = None
    spread_m: Positions | None = None

    @property
    def centre_m(self) -> tuple[float, float]:
        """The position, (y, x) metres, of a frame whose window is in the middle of the object."""
        n, pixel_m = self.geometry.n_pixels, self.geometry.object_pixel_m
        (top, left), (height, width) = self.bounds.origin, self.bounds.shape
        return (top + (height - n) / 2) * pixel_m, (left + (width - n) / 2) * pixel_m

    @property
    def losses(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Epochs, from 1, and the amplitude error at the end of each, as far as it is known."""
        known = np.flatnonzero(np.isfinite(self.error_history))
        return known + 1, np.asarray(self.error_history, np.float64)[known]

    def motion(self) -> dict[str, float]:
        """Returns how far the probe moved during an exposure, and how its captures spread, object pixels.

        Nothing where that is not known.
        """
        if self.travel_m is None or self.spread_m is None or not len(self.travel_m):
            return {}
        pixel_m = self.geometry.object_pixel_m
        return {
            "travel_px": float(np.hypot(*line_of_travel(self.travel_m))) / pixel_m,
            "spread_px": float(np.sqrt(np.mean(np.square(self.spread_m).sum(axis=1)))) / pixel_m,
            "probe_modes": len(self.probe),
        }

    def scan_maps(self) -> tuple[dict[str, NDArray[np.float32]], float]:
        """Returns what the patterns show without probe and model, and the side of its cells, object pixels.

        As of `operators.mosaic.scan_maps.scan_maps`; nothing where no moments are known.
        """
        if self.moments is None or not len(self.moments):
            return {}, 1.0
        centres_px = self.geometry.to_pixels(self.positions_m) + self.geometry.n_pixels / 2
        return scan_maps(self.moments, centres_px, self.bounds, self.geometry.n_pixels)
