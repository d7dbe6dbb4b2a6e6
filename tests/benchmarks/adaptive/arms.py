"""The samples of the adaptive benchmark, its planned arms, and the refiner that all arms share."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, label

from operators.engine.backends import get_backend
from operators.engine.config import RefinerConfig, closing_fraction
from operators.engine.refiner import Refiner
from operators.geometry import Bounds, Geometry
from operators.metrics.gauge import remove_gauge
from operators.network.interface import Network
from operators.network.predictor import Predictor
from operators.optics.forward import simulate_counts
from operators.optics.probe import with_power
from operators.optics.samples import HELD_OUT_FAMILIES, object_from_texture, texture
from operators.optics.trajectories import fermat_spiral, jittered_raster
from operators.steering.routes import snake_route

SIDE, N_PIXELS = 384, 64
SPAN = SIDE - N_PIXELS  # centres and corners move over so many pixels
PHOTONS, PROBE_ERROR, EPOCHS = 3e5, 0.1, 40
SHARES = {"sparse": 0.15, "half": 0.5, "uniform": 1.0}
GEOMETRY = Geometry(energy_ev=9000.0, detector_distance_m=1.0, detector_pixel_m=75e-6, n_pixels=N_PIXELS)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Instrument:
    """The demo's probe of unit power, its material and its network."""

    probe: np.ndarray
    material: complex
    network: Network


class Sample:
    """An object with structure on a part of it, and what measures it."""

    def __init__(self, kind: str, seed: int, instrument: Instrument, photons: float = PHOTONS) -> None:
        rng = self._rng = np.random.default_rng(seed)
        self.probe = with_power(instrument.probe, photons)
        field = gaussian_filter(rng.standard_normal((SIDE, SIDE)), 22, mode="wrap")
        inner = slice(N_PIXELS // 2, -N_PIXELS // 2)
        self.region = np.zeros((SIDE, SIDE), bool)
        self.region[inner, inner] = (field > np.quantile(field, 1 - SHARES[kind]))[inner, inner]
        edge = gaussian_filter(self.region.astype(np.float32), 1.0) if kind != "uniform" else 1.0
        self.object = object_from_texture(
            texture(HELD_OUT_FAMILIES[seed % 2], (SIDE, SIDE), rng) * edge, instrument.material
        )
        error = gaussian_filter(rng.standard_normal((2, N_PIXELS, N_PIXELS)), (0, 4, 4))
        error *= PROBE_ERROR / error.std()
        guess = self.probe * (1 + error[0] + 1j * error[1]).astype(np.complex64)
        self.guess = with_power(guess, photons)
        self.predictor = Predictor(instrument.network, self.probe, batch_size=8, device="cpu")

    def measure(self, corners: np.ndarray) -> np.ndarray:
        """Return patterns (frame, ky, kx) float32."""
        return simulate_counts(self.object, self.probe, corners, self._rng).astype(np.float32)

    def error_of(self, picture: np.ndarray) -> tuple[float, float]:
        """Return the phase error in the region, over the variation of the truth and in radians."""
        picture = remove_gauge(picture, self.object, shift=False, weights=self.region.astype(float))
        parts, n_parts = label(self.region)
        wrong = variation = n = 0.0
        for part in range(1, n_parts + 1):
            inside = parts == part
            difference = picture[inside] * self.object[inside].conj()
            difference = np.angle(difference * np.exp(-1j * np.angle(difference.sum())))
            truth = self.object[inside] * np.exp(-1j * np.angle(self.object[inside].sum()))
            wrong += float((difference**2).sum())
            variation += float((np.angle(truth) ** 2).sum())
            n += inside.sum()
        return float(np.sqrt(wrong / variation)), float(np.sqrt(wrong / n))


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredScan:
    """What an arm measured, in the order of travel."""

    corners: np.ndarray
    patterns: np.ndarray
    n_violations: int = 0
    stops: tuple[tuple[float, float], ...] = ()  # target, true error of the live image at the stop, rad

    @property
    def path_px(self) -> float:
        """Length of the way."""
        return float(np.hypot(*np.diff(self.corners, axis=0).T).sum())

    def first(self, n: int) -> "MeasuredScan":
        """Return what had been measured after `n` positions."""
        return MeasuredScan(corners=self.corners[:n], patterns=self.patterns[:n])


def refine(sample: Sample, scan: MeasuredScan) -> float:
    """Return the error of the reconstruction; the same for every arm."""
    refiner = Refiner(RefinerConfig(seed=0), sample.guess, run_update=get_backend("auto").update)
    refiner.append(range(len(scan.corners)), scan.patterns, scan.corners.astype(float))
    while refiner.epoch < EPOCHS:
        refiner.step(fraction=closing_fraction(refiner.epoch, EPOCHS))
    snapshot = refiner.snapshot()
    whole = np.ones((SIDE, SIDE), np.complex64)
    whole[snapshot.bounds.slices_in(Bounds(0, 0, SIDE, SIDE))] = snapshot.object
    return sample.error_of(whole)[0]


def raster_arm(sample: Sample, n: int) -> MeasuredScan:
    """Return a raster with a fifth of its step as jitter."""
    side = round(np.sqrt(n))
    step = SPAN / (side - 1)
    return _planned(sample, jittered_raster(side, side, step, 0.2 * step, np.random.default_rng(n)))


def fermat_arm(sample: Sample, n: int) -> MeasuredScan:
    """Return a Fermat spiral with exactly `n` positions inside the square field."""
    low, high = 0.5 * SPAN / np.sqrt(n), 2 * SPAN / np.sqrt(n)
    for _ in range(40):
        step = (low + high) / 2
        spiral = fermat_spiral(4 * n, step)
        inside = spiral[np.abs(spiral).max(axis=1) <= SPAN / 2]
        low, high = (step, high) if len(inside) > n else (low, step)
    return _planned(sample, (inside if len(inside) >= n else spiral)[:n] + SPAN / 2)


def random_arm(sample: Sample, n: int) -> MeasuredScan:
    """Return positions drawn at random."""
    return _planned(sample, np.random.default_rng(n).uniform(0, SPAN, (n, 2)))


def _planned(sample: Sample, positions: np.ndarray) -> MeasuredScan:
    corners = np.clip(np.rint(positions), 0, SPAN).astype(np.int64)
    corners = corners[snake_route(corners, SPAN / np.sqrt(len(corners)))]
    return MeasuredScan(corners=corners, patterns=sample.measure(corners))
