"""A simulated scan with its truth: sample, probe, positions and the frames a detector would count.

Pure: the same options give the same scan. What real beamlines do to a scan (a partly coherent or wandering
beam, a stage that is not where it says, an imperfect detector) is off unless asked for.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydantic.dataclasses
from numpy.typing import NDArray
from pydantic import ConfigDict

from launch.training.recipe import DEMO_RECIPE, read_recipe
from launch.training.samples import check_family, draw_object
from operators.arrays import Corners, Frames, Mask, Object, Positions, Probe, centre_origin
from operators.geometry import Geometry, window_corners
from operators.optics.coherence import mixed_probe
from operators.optics.detector_effects import DetectorEffects, draw_detector
from operators.optics.forward import simulate_counts
from operators.optics.probe import with_power
from operators.optics.trajectories import jittered_raster, random_drift

ENERGY_EV, DETECTOR_DISTANCE_M, DETECTOR_PIXEL_M = 9000.0, 1.0, 75e-6
MAX_COUNTS = np.iinfo(np.uint16).max


@dataclass(frozen=True, slots=True, kw_only=True)
class BeamEffects:
    """What the beam does; the defaults are a coherent and steady one.

    Attributes
    ----------
    blur_px : float
        Standard deviation of the probe's place during an exposure (source size, vibration), object pixels.
    coherence_px : float, optional
        Transverse coherence length at the sample, object pixels; infinite unless given.
    travel_px : float
        How far the stage flies along a row during an exposure, object pixels.
    n_modes : int
        Modes of the probe that the three above are written as.
    drift : float
        Root mean square by which the photons per frame wander over the scan, as a share of their mean.
    """

    blur_px: float = 0.0
    coherence_px: float | None = None
    travel_px: float = 0.0
    n_modes: int = 4
    drift: float = 0.0

    def modes(self, probe: Probe) -> Probe:
        """Return the modes, (mode, y, x) complex64, that a coherent or less coherent probe becomes."""
        return mixed_probe(
            probe,
            self.n_modes,
            coherence_px=self.coherence_px,
            travel_px=(0.0, self.travel_px),
            blur_px=self.blur_px,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StageEffects:
    """How far the probe is from where the positions say.

    Attributes
    ----------
    drift_px : float
        Root mean square of a slow drift over the scan, in y and in x, object pixels.
    error_px : float
        Standard deviation of a random error of each frame, in y and in x, object pixels.
    """

    drift_px: float = 0.0
    error_px: float = 0.0


# Checked like a configuration, because `simulate --config` reads it from a file.
@pydantic.dataclasses.dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Simulation:
    """What to simulate.

    Attributes
    ----------
    n_rows : int
        Rows of the raster: positions in y.
    n_columns : int
        Positions in each row, in x; frames are rows times columns.
    step_px : float
        Distance of neighbouring positions, along a row and from row to row, object pixels; the probe of the
        demo is 28 wide, which makes an overlap of 71 %.
    jitter_px : float
        How far each position is moved at random, at most, in y and in x, object pixels: a perfect grid would
        leave its own period in the object.
    photons_per_frame : float
        Mean photons of a frame through a transparent sample.
    family : str
        Texture of the sample (launch.training.samples); the default is never trained on.
    seed : int
        Of sample, jitter, noise and effects.
    recipe : Path
        Training recipe whose probe and material are used: a network trained by it knows them.
    beam : BeamEffects
    stage : StageEffects
    detector : DetectorEffects
    """

    n_rows: int = 25
    n_columns: int = 25
    step_px: float = 8.0
    jitter_px: float = 1.0
    photons_per_frame: float = 4e5
    family: str = "glyphs"
    seed: int = 0
    recipe: Path = DEMO_RECIPE
    beam: BeamEffects = field(default_factory=BeamEffects)
    stage: StageEffects = field(default_factory=StageEffects)
    detector: DetectorEffects = field(default_factory=DetectorEffects)

    def __post_init__(self) -> None:
        """Refuses a family that there is not, before anything is drawn."""
        check_family(self.family)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedScan:
    """A scan of which everything is known.

    Attributes
    ----------
    frames : (frame, row, col) uint16, counts
        As a detector sends them, zero frequency at the array centre.
    positions_m : (frame, 2) float64, metres
        Probe on the sample as the stage says, (y, x).
    true_positions_m : (frame, 2) float64, metres
        Where it was: `geometry.to_pixels` of them is the window's corner in `object`.
    object : (row, col) complex64
        The truth.
    probe : (mode, y, x) complex64
        The truth, of as many photons as a frame.
    nominal_probe : (mode, y, x) complex64
        What is known before the scan: without what the beam's effects do to it.
    flux : (frame,) float64
        Photons of each frame over those of the probe.
    mask : (row, col) bool
        True = valid.
    background : (row, col) float32, counts
        Of a mean frame without sample.
    geometry : Geometry
    """

    frames: Frames
    positions_m: Positions
    true_positions_m: Positions
    object: Object
    probe: Probe
    nominal_probe: Probe
    flux: NDArray[np.float64]
    mask: Mask
    background: NDArray[np.float32]
    geometry: Geometry


def simulate_scan(simulation: Simulation) -> SimulatedScan:
    """Returns a scan in boustrophedon order over a jittered raster, with Poisson noise.

    Raises
    ------
    ValueError
        If the recipe or an option is unusable, or a count does not fit 16 bits.
    """
    rng = np.random.default_rng(simulation.seed)
    # Of their own, so that switching an effect on changes neither sample nor jitter.
    effects_rng = np.random.default_rng((simulation.seed, 1))
    recipe = read_recipe(simulation.recipe)
    n_pixels = recipe.n_pixels
    nominal = with_power(recipe.probe.nominal_modes(n_pixels), simulation.photons_per_frame)
    probe = simulation.beam.modes(nominal)
    reported = _snaked_corners(simulation, rng)
    corners = _true_corners(reported, simulation.stage, effects_rng)
    reported, corners = reported - corners.min(axis=0), corners - corners.min(axis=0)
    rows, columns = corners.max(axis=0) + n_pixels
    object_ = draw_object(simulation.family, recipe.material, (rows, columns), rng)
    flux = 1 + random_drift(len(corners), simulation.beam.drift, effects_rng)
    detector = draw_detector(simulation.detector, n_pixels, effects_rng)
    counts = simulate_counts(object_, probe, corners, rng, detector=detector, flux=flux)
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
        positions_m=geometry.to_metres(reported.astype(np.float64)),
        true_positions_m=geometry.to_metres(corners.astype(np.float64)),
        object=object_,
        probe=probe,
        nominal_probe=nominal,
        flux=flux,
        mask=centre_origin(detector.valid),
        background=centre_origin(detector.background * detector.gain),
        geometry=geometry,
    )


def _true_corners(reported: Corners, stage: StageEffects, rng: np.random.Generator) -> Corners:
    drift = np.stack([random_drift(len(reported), stage.drift_px, rng) for _ in range(2)], axis=1)
    return window_corners(reported + drift + stage.error_px * rng.standard_normal(reported.shape))


def _snaked_corners(simulation: Simulation, rng: np.random.Generator) -> NDArray[np.int64]:
    shape = simulation.n_rows, simulation.n_columns
    positions = jittered_raster(*shape, simulation.step_px, simulation.jitter_px, rng).reshape(*shape, 2)
    positions[1::2] = positions[1::2, ::-1].copy()
    # Whole pixels: the frames are exact at the positions that are reported.
    corners = window_corners(positions.reshape(-1, 2))
    return corners - corners.min(axis=0)
