"""A scan of any length whose frames repeat, so that drawing them costs nothing beside sending them.

The sample repeats after a tile and so do the jittered positions: frames at the same place of two tiles are
the same counts, and refinement sees a scan that fits together.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from operators.arrays import Positions, Probe, centre_origin
from operators.geometry import Geometry
from operators.optics.forward import simulate_counts
from operators.optics.probe import with_power, zone_plate_probe
from operators.optics.samples import object_from_texture, texture

ENERGY_EV, DETECTOR_DISTANCE_M, DETECTOR_PIXEL_M = 9000.0, 1.0, 75e-6
PHOTONS = 4e5
N_PER_TILE = 16  # positions along a side of the tile


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatingScan:
    """A raster in boustrophedon order with the probe of the demo, scaled to the side of the patterns.

    Attributes
    ----------
    n_frames : int
        The last row may be short.
    n_pixels : int
        Side of a frame; the step of the raster is an eighth of it.
    is_stamped : bool
        Whether each frame says in its first two pixels which it is (`stamped`): no two are alike then.
    """

    n_frames: int
    n_pixels: int = 128
    is_stamped: bool = False

    @property
    def step_px(self) -> int:
        """Distance of neighbouring positions, object pixels."""
        return self.n_pixels // 8

    @property
    def pupil_radius_px(self) -> float:
        """As a zone plate fills the detector."""
        return 12 / 64 * self.n_pixels

    @property
    def disc_radius_px(self) -> float:
        """Of the defocused probe on the sample."""
        return 14 / 64 * self.n_pixels

    @property
    def geometry(self) -> Geometry:
        """Of the patterns."""
        return Geometry(
            energy_ev=ENERGY_EV,
            detector_distance_m=DETECTOR_DISTANCE_M,
            detector_pixel_m=DETECTOR_PIXEL_M,
            n_pixels=self.n_pixels,
        )

    def probe(self) -> Probe:
        """Return the probe, (1, y, x) complex64."""
        probe = zone_plate_probe(self.n_pixels, self.pupil_radius_px, self.disc_radius_px)
        return with_power(probe[None], PHOTONS)

    def frames(self) -> NDArray[np.uint16]:
        """Return the different frames, (frame, row, col) counts, zero frequency at the centre."""
        rng = np.random.default_rng(0)
        side, n = N_PER_TILE * self.step_px, self.n_pixels
        tile = object_from_texture(texture("voronoi", (side, side), rng))
        object_ = np.tile(tile, (-(-n // side) + 1,) * 2)[: side + n, : side + n]
        counts = simulate_counts(object_, self.probe(), self._corners_in_tile(), rng)
        return centre_origin(counts).astype(np.uint16)

    def numbers(self) -> NDArray[np.int64]:
        """Return which of `frames` each frame of the scan is, (frame,)."""
        rows, columns = self._raster()
        return (rows % N_PER_TILE) * N_PER_TILE + columns % N_PER_TILE

    def positions_m(self) -> Positions:
        """Return where the probe is for each frame, (frame, 2) float64, (y, x), metres."""
        rows, columns = self._raster()
        tiles = np.stack([rows, columns], axis=1) // N_PER_TILE * (N_PER_TILE * self.step_px)
        corners = tiles + self._corners_in_tile()[self.numbers()]
        return self.geometry.to_metres(corners.astype(np.float64))

    def _raster(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        n_columns = max(round(self.n_frames**0.5), 1)
        rows, columns = np.divmod(np.arange(self.n_frames), n_columns)
        return rows, np.where(rows % 2, n_columns - 1 - columns, columns)

    def _corners_in_tile(self) -> NDArray[np.int64]:
        grid = self.step_px * np.indices((N_PER_TILE, N_PER_TILE)).reshape(2, -1).T
        jitter = np.random.default_rng(1).integers(0, max(self.step_px // 4, 1), grid.shape)
        return (grid + jitter).astype(np.int64)


def stamped(frames: NDArray[np.uint16], numbers: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Return frames (frame, row, col) with their numbers in the first two pixels, the lower 16 bits first."""
    frames = frames.copy()
    frames[:, 0, 0], frames[:, 0, 1] = numbers & 0xFFFF, numbers >> 16
    return frames
