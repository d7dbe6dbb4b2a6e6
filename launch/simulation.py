"""A simulated scan with its truth: sample, probe, positions and the frames a detector would count.

Separate from `launch.beamline`, which plays it: tests, benchmarks and the command `simulate` want the scan
without bluesky. Pure: the same options give the same scan.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from launch.recipe import DEMO_RECIPE, read_recipe
from launch.samples import draw_object
from operators.arrays import Frames, Object, Positions, Probe, centre_origin
from operators.forward import simulate_counts
from operators.geometry import Geometry, window_corners
from operators.probe import with_power
from operators.scan import jittered_raster

ENERGY_EV, DETECTOR_DISTANCE_M, DETECTOR_PIXEL_M = 9000.0, 1.0, 75e-6
MAX_COUNTS = np.iinfo(np.uint16).max


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What to simulate.

    Attributes
    ----------
    n_rows, n_columns : int
        Of the raster.
    step_px, jitter_px : float
        Distance of neighbouring positions and how far each is moved at random, object pixels.
    photons_per_frame : float
        Mean photons of a frame through a transparent sample.
    family : str
        Texture of the sample (launch.samples); the default is never trained on.
    seed : int
        Of sample, jitter and noise.
    recipe : Path
        Training recipe whose probe and material are used: a network trained by it knows them.
    """

    n_rows: int = 25
    n_columns: int = 25
    step_px: float = 8.0
    jitter_px: float = 1.0
    photons_per_frame: float = 4e5
    family: str = "glyphs"
    seed: int = 0
    recipe: Path = DEMO_RECIPE


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedScan:
    """A scan of which everything is known.

    Attributes
    ----------
    frames : (frame, row, col) uint16, counts
        As a detector sends them, zero frequency at the array centre.
    positions_m : (frame, 2) float64, metres
        Probe on the sample, (y, x); `geometry.to_pixels` of them is the window's corner in `object`.
    object : (row, col) complex64
        The truth.
    probe : (mode, y, x) complex64
        The truth, of as many photons as a frame.
    geometry : Geometry
    """

    frames: Frames
    positions_m: Positions
    object: Object
    probe: Probe
    geometry: Geometry


def simulate_scan(simulation: Simulation) -> SimulatedScan:
    """Returns a scan in boustrophedon order over a jittered raster, with Poisson noise.

    Raises
    ------
    ValueError
        If the recipe or an option is unusable, or a count does not fit 16 bits.
    """
    rng = np.random.default_rng(simulation.seed)
    recipe = read_recipe(simulation.recipe)
    n_pixels = recipe.n_pixels
    probe = with_power(recipe.probe.nominal_modes(n_pixels), simulation.photons_per_frame)
    corners = _snaked_corners(simulation, rng)
    rows, columns = corners.max(axis=0) + n_pixels
    object_ = draw_object(simulation.family, recipe.material, (rows, columns), rng)
    counts = simulate_counts(object_, probe, corners, rng)
    if counts.max() > MAX_COUNTS:
        raise ValueError(
            f"{simulation.photons_per_frame:g} photons per frame put {counts.max()} counts on one pixel, "
            f"a 16-bit detector holds {MAX_COUNTS}: use fewer"
        )
    geometry = Geometry(
        energy_ev=ENERGY_EV,
        detector_distance_m=DETECTOR_DISTANCE_M,
        detector_pixel_m=DETECTOR_PIXEL_M,
        n_pixels=n_pixels,
    )
    return SimulatedScan(
        frames=centre_origin(counts).astype(np.uint16),
        positions_m=geometry.to_metres(corners.astype(np.float64)),
        object=object_,
        probe=probe,
        geometry=geometry,
    )


def _snaked_corners(simulation: Simulation, rng: np.random.Generator) -> NDArray[np.int64]:
    shape = simulation.n_rows, simulation.n_columns
    positions = jittered_raster(*shape, simulation.step_px, simulation.jitter_px, rng).reshape(*shape, 2)
    positions[1::2] = positions[1::2, ::-1].copy()
    # Whole pixels: the frames are exact at the positions that are reported.
    corners = window_corners(positions.reshape(-1, 2))
    return corners - corners.min(axis=0)
