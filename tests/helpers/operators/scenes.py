"""A small simulated scan that refinement converges on within a second."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from operators.arrays import Corners, Object, Patterns, Probe
from operators.engine.config import RefinerSnapshot, closing_fraction
from operators.engine.refiner import Refiner
from operators.metrics.errors import nrmse
from operators.optics.forward import intensities, simulate_counts
from operators.optics.probe import with_power, zone_plate_probe
from operators.patches import extract_patches

N_PIXELS = 32
DISC_PX, PUPIL_PX = 8.0, 6.0
PHOTONS = 1e5


@dataclass(frozen=True)
class Scene:
    truth: Object
    probe: Probe
    corners: Corners
    patterns: Patterns

    origin: tuple[int, int] = (0, 0)

    def error(self, snapshot: RefinerSnapshot) -> float:
        """Variation-normalised error, after the global phase only, half a window inside the edge."""
        return nrmse(*self.common_ground(snapshot)).c

    def common_ground(self, snapshot: RefinerSnapshot) -> tuple[Object, Object]:
        """Object and truth half a window inside the edge."""
        inside = snapshot.bounds.padded(-N_PIXELS // 2)
        rows = slice(inside.top - self.origin[0], inside.bottom - self.origin[0])
        columns = slice(inside.left - self.origin[1], inside.right - self.origin[1])
        return snapshot.object[inside.slices_in(snapshot.bounds)], self.truth[rows, columns]


def make_scene(
    *,
    side: int = 8,
    step: int = 4,
    seed: int = 0,
    photons: float = PHOTONS,
    origin: tuple[int, int] = (0, 0),
    probe: Probe | None = None,
    is_noisy: bool = True,
) -> Scene:
    """A jittered raster over a smooth object; `origin` is the absolute pixel of truth[0, 0]."""
    rng = np.random.default_rng(seed)
    size = N_PIXELS + step * (side - 1) + 2
    truth = smooth_object((size, size), rng)
    if probe is None:
        probe = zone_plate_probe(N_PIXELS, PUPIL_PX, DISC_PX)[None]
    probe = with_power(probe, photons).astype(np.complex64)
    grid = step * np.indices((side, side)).reshape(2, -1).T
    corners = grid + rng.integers(0, 3, grid.shape)
    if is_noisy:
        patterns = simulate_counts(truth, probe, corners, rng).astype(np.float32)
    else:
        patterns = intensities(probe, extract_patches(truth, corners, N_PIXELS)).astype(np.float32)
    return Scene(truth, probe, corners + origin, patterns, origin)


def wrong_probe() -> Probe:
    """A probe out of focus by more than those of the scenes: what refinement starts from."""
    return with_power(zone_plate_probe(N_PIXELS, PUPIL_PX, 1.15 * DISC_PX)[None], PHOTONS)


def smooth_object(shape: tuple[int, int], rng: np.random.Generator) -> Object:
    amplitude, phase = (gaussian_filter(rng.standard_normal(shape), 2.0) for _ in range(2))
    amplitude = 1 - 0.3 * (amplitude - amplitude.min()) / np.ptp(amplitude)
    return (amplitude * np.exp(1.5j * phase / np.abs(phase).max())).astype(np.complex64)


def append_all(refiner: Refiner, scene: Scene, chosen: slice = slice(None)) -> None:
    numbers = np.arange(len(scene.corners))[chosen]
    refiner.append(numbers.tolist(), scene.patterns[chosen], scene.corners[chosen].astype(np.float64))


def run_epochs(refiner: Refiner, n_epochs: float) -> None:
    while refiner.epoch < n_epochs:
        refiner.step()


def run_to(refiner: Refiner, n_epochs: float, closes: bool = False) -> RefinerSnapshot:
    """The picture after so many epochs, with falling steps at the end if the run closes there."""
    while refiner.epoch < n_epochs:
        refiner.step(fraction=closing_fraction(refiner.epoch, n_epochs) if closes else 1.0)
    return refiner.snapshot()


def assert_same_end(found: RefinerSnapshot, expected: RefinerSnapshot) -> None:
    """Rounding grows over epochs, but stays far below the noise of the data."""
    assert abs(found.error - expected.error) < 1e-3 * expected.error
    inside = np.s_[N_PIXELS // 2 : -N_PIXELS // 2, N_PIXELS // 2 : -N_PIXELS // 2]
    difference = found.object[inside] - expected.object[inside]
    assert np.linalg.norm(difference) < 1e-3 * np.linalg.norm(expected.object[inside])
