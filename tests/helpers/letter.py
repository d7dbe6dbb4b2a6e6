"""A sample without any symmetry, how it is scanned, and what a detector then counts, in plain NumPy.

Written out instead of taken from `operators`: a convention that is wrong there must not be wrong here too.
"""

from dataclasses import asdict, dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter

from launch.beamline.accuracy import on_truth
from launch.beamline.simulation import SimulatedScan
from launch.offline.recorded import RecordedScan
from operators.geometry import Bounds, Geometry
from operators.metrics.errors import NRMSE, nrmse
from operators.optics.probe import zone_plate_probe

N_PIXELS = 32
PHOTONS = 1e6
ENERGY_EV, DISTANCE_M, DETECTOR_PIXEL_M = 9000.0, 1.0, 75e-6
WAVELENGTH_M = 1.23984198e-6 / ENERGY_EV
OBJECT_PIXEL_M = WAVELENGTH_M * DISTANCE_M / (N_PIXELS * DETECTOR_PIXEL_M)
GEOMETRY = Geometry(
    energy_ev=ENERGY_EV,
    detector_distance_m=DISTANCE_M,
    detector_pixel_m=DETECTOR_PIXEL_M,
    n_pixels=N_PIXELS,
)
N_SIDE, STEP_PX, GLYPH_PX = 10, 4, 6
GLYPH = ("#####", "#....", "####.", "#....", "#....", "#....")
WELL_LIT = 0.3  # of the peak illumination: where the object is judged


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannedSample:
    """A scan of which everything is known.

    Attributes
    ----------
    frames : (frame, row, col) uint16, counts, zero frequency at the array centre
    positions_m : (frame, 2) float64, metres, the probe on the sample, (y, x)
    truth : (row, col) complex64, its pixel [0, 0] at position 0
    probe : (mode, y, x) complex64
    lit : (row, col) bool, where the object is judged
    geometry : Geometry, as the pipeline is told
    """

    frames: np.ndarray
    positions_m: np.ndarray
    truth: np.ndarray
    probe: np.ndarray
    lit: np.ndarray
    geometry: Geometry = GEOMETRY

    def __len__(self) -> int:
        return len(self.frames)

    def first(self, n_frames: int) -> "ScannedSample":
        """The same scan, ended after `n_frames`."""
        return replace(self, frames=self.frames[:n_frames], positions_m=self.positions_m[:n_frames])

    @property
    def geometry_settings(self) -> dict[str, float]:
        """The section `geometry` of a configuration."""
        return asdict(self.geometry)

    def recorded(self) -> RecordedScan:
        """The scan as offline reconstruction takes it."""
        return RecordedScan(
            frames=self.frames,
            frame_numbers=np.arange(len(self)),
            positions_m=self.positions_m,
            geometry=self.geometry,
            probe=self.probe,
            mask=None,
            name="sample",
        )

    def error(self, object_: np.ndarray, bounds: Bounds) -> NRMSE:
        """How far a reconstruction is from the truth; only a global phase is forgiven."""
        return nrmse(on_truth(object_, bounds, self.truth), self.truth, self.lit.astype(np.float32))


def scan_sample(seed: int = 0) -> ScannedSample:
    """Scan the sample in rows from the top left, each position a pixel or so off its grid."""
    rng = np.random.default_rng(seed)
    grid = STEP_PX * np.indices((N_SIDE, N_SIDE)).reshape(2, -1).T
    corners = grid + rng.integers(-1, 2, grid.shape)
    corners -= corners.min(axis=0)
    truth = _letter(*corners.max(axis=0) + N_PIXELS)
    probe = _lopsided_probe()
    frames = np.empty((len(corners), N_PIXELS, N_PIXELS), np.uint16)
    for number, (row, column) in enumerate(corners):
        window = slice(row, row + N_PIXELS), slice(column, column + N_PIXELS)
        far_field = np.fft.fftshift(np.fft.fft2(probe * truth[window])) / N_PIXELS
        frames[number] = rng.poisson(np.abs(far_field) ** 2)
    return ScannedSample(
        frames=frames,
        positions_m=corners * OBJECT_PIXEL_M,
        truth=truth,
        probe=probe[None],
        lit=illuminated(truth.shape, probe[None], corners),
    )


def sample_of(scan: SimulatedScan) -> ScannedSample:
    """The same of a scan that the product simulates."""
    corners = np.rint(scan.geometry.to_pixels(scan.positions_m)).astype(int)
    return ScannedSample(
        frames=scan.frames,
        positions_m=scan.positions_m,
        truth=scan.object,
        probe=scan.probe,
        lit=illuminated(scan.object.shape, scan.probe, corners),
        geometry=scan.geometry,
    )


def illuminated(shape: tuple[int, int], probe: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Where the object is well lit, (row, col) bool."""
    photons, n_pixels = np.zeros(shape), probe.shape[-1]
    for row, column in corners:
        photons[row : row + n_pixels, column : column + n_pixels] += (np.abs(probe) ** 2).sum(axis=0)
    return photons > WELL_LIT * photons.max()


def _letter(n_rows: int, n_columns: int) -> np.ndarray:
    thickness = np.zeros((n_rows, n_columns))
    letter = np.kron([[sign == "#" for sign in line] for line in GLYPH], np.ones((GLYPH_PX, GLYPH_PX)))
    thickness[18 : 18 + letter.shape[0], 20 : 20 + letter.shape[1]] = letter
    thickness = gaussian_filter(thickness, 1.0)
    return ((1 - 0.3 * thickness) * np.exp(0.8j * thickness)).astype(np.complex64)


def _lopsided_probe() -> np.ndarray:
    y, x = np.indices((N_PIXELS, N_PIXELS)) / N_PIXELS
    probe = zone_plate_probe(N_PIXELS, pupil_radius_px=8, disc_radius_px=11) * (1 + 0.5 * x - 0.3 * y)
    return (probe * np.sqrt(PHOTONS / (np.abs(probe) ** 2).sum())).astype(np.complex64)
