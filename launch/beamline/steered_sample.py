"""A simulated sample with structure on a part of its field: measured anywhere, and judged.

Pure: the same options give the same sample, and the same frames for the same way over it.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, label

from launch.beamline.simulation import DETECTOR_DISTANCE_M, DETECTOR_PIXEL_M, ENERGY_EV, MAX_COUNTS
from launch.training.recipe import DEMO_RECIPE, read_recipe
from operators.arrays import Frames, Object, Positions, Probe, centre_origin
from operators.geometry import Geometry
from operators.metrics.gauge import remove_gauge
from operators.optics.forward import simulate_counts
from operators.optics.probe import with_power
from operators.optics.samples import object_from_texture, texture
from operators.optics.trajectories import fermat_spiral
from stream.steering.motor_axes import Axes, Limits

SIDE_PX = 384
ISLAND_PX = 22.0  # correlation length of where structure is
PHOTONS = 4e5  # per frame, as launch/recipes/demo.yaml says
EDGE_PX = 0.4  # of room at the limits, so that rounding leaves no point outside


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseSample:
    """What to simulate.

    Attributes
    ----------
    family : str
        Texture of the islands (operators.optics.samples).
    share : float
        Of the field that has structure.
    seed : int
        Of islands, texture and noise.
    """

    family: str = "glyphs"
    share: float = 0.15
    seed: int = 0


@dataclass(slots=True, kw_only=True, eq=False)
class Specimen:
    """A sample, the probe on it, and a detector behind it.

    Attributes
    ----------
    object : (row, col) complex64
        The truth; transparent outside the islands.
    region : (row, col) bool
        The islands.
    probe : (mode, y, x) complex64, of as many photons as a frame
    geometry : Geometry
    rng : numpy.random.Generator
        Of the noise.
    """

    object: Object
    region: NDArray[np.bool_]
    probe: Probe
    geometry: Geometry
    rng: np.random.Generator = field(repr=False)

    @property
    def span_px(self) -> int:
        """How far positions reach on each axis, object pixels."""
        return SIDE_PX - self.geometry.n_pixels

    @property
    def axes(self) -> Axes:
        """What motor positions mean: micrometres."""
        return Axes(geometry=self.geometry, unit="um", signs=(1, 1))

    @property
    def limits(self) -> Limits:
        """Motor positions on the sample, micrometres."""
        pixel_um = self.geometry.object_pixel_m * 1e6
        return ((-EDGE_PX * pixel_um, (self.span_px + EDGE_PX) * pixel_um),) * 2

    def expose(self, positions_um: Positions) -> Frames:
        """Returns the frames (frame, row, col) uint16 that a detector counts at these positions."""
        corners = self.axes.centres(positions_um) - self.geometry.n_pixels // 2
        counts = simulate_counts(self.object, self.probe, corners, self.rng)
        return centre_origin(np.minimum(counts, MAX_COUNTS)).astype(np.uint16)

    def spiral(self, n_positions: int) -> Positions:
        """Returns a Fermat spiral of so many positions over the field, micrometres, on whole pixels."""
        low, high = 0.5 * self.span_px / n_positions**0.5, 2 * self.span_px / n_positions**0.5
        for _ in range(40):
            step = (low + high) / 2
            spiral = fermat_spiral(4 * n_positions, step)
            inside = spiral[np.abs(spiral).max(axis=1) <= self.span_px / 2]
            low, high = (step, high) if len(inside) > n_positions else (low, step)
        corners = np.rint(fermat_spiral(4 * n_positions, low) + self.span_px / 2)
        corners = corners[((corners >= 0) & (corners <= self.span_px)).all(axis=1)][:n_positions]
        return self.axes.positions(corners + self.geometry.n_pixels // 2)

    def error_of(self, picture: Object) -> float:
        """Returns the phase error on the islands over the variation of the truth there; 1 for a constant.

        Parameters
        ----------
        picture : (row, col) complex64
            On the pixels of the truth.

        Notes
        -----
        Global phase and ramp are removed over all islands, then one phase per island: ground that is
        measured sparsely does not tie their phases together, in no pattern.
        """
        picture = remove_gauge(picture, self.object, shift=False, weights=self.region.astype(float))
        islands, n_islands = label(self.region)
        wrong = variation = 0.0
        for island in range(1, n_islands + 1):
            inside = islands == island
            difference, truth = picture[inside] * self.object[inside].conj(), self.object[inside]
            wrong += float((np.angle(difference * np.exp(-1j * np.angle(difference.sum()))) ** 2).sum())
            variation += float((np.angle(truth * np.exp(-1j * np.angle(truth.sum()))) ** 2).sum())
        return float(np.sqrt(wrong / variation))


def simulate_specimen(sample: SparseSample) -> Specimen:
    """Returns the sample in the demo's probe.

    Raises
    ------
    ValueError
        If the family is unknown.
    """
    rng = np.random.default_rng(sample.seed)
    recipe = read_recipe(DEMO_RECIPE)
    n_pixels, shape = recipe.n_pixels, (SIDE_PX, SIDE_PX)
    height = gaussian_filter(rng.standard_normal(shape), ISLAND_PX, mode="wrap")
    inner = slice(n_pixels // 2, -n_pixels // 2)  # where the centre of a probe can be
    region = np.zeros(shape, bool)
    region[inner, inner] = (height > np.quantile(height, 1 - sample.share))[inner, inner]
    thickness = texture(sample.family, shape, rng) * gaussian_filter(region.astype(np.float32), 1.0)
    return Specimen(
        object=object_from_texture(thickness, recipe.material.complex),
        region=region,
        probe=with_power(recipe.probe.nominal(n_pixels)[None], PHOTONS),
        geometry=Geometry(
            energy_ev=ENERGY_EV,
            detector_distance_m=DETECTOR_DISTANCE_M,
            detector_pixel_m=DETECTOR_PIXEL_M,
            n_pixels=n_pixels,
        ),
        rng=rng,
    )
