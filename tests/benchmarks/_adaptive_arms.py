"""The samples and the arms of the benchmark of adaptive scanning, and the refiner that all of them share.

Separate from `tests.benchmarks.adaptive`, which compares them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter, label
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from operators.arrays import abs2
from operators.forward import simulate_counts
from operators.gauge import remove_gauge
from operators.geometry import Geometry
from operators.importance import RELEVANT, StopRule
from operators.network_interface import Network
from operators.objects import HELD_OUT_FAMILIES, object_from_texture, texture
from operators.predict import Predictor
from operators.probe import with_power
from operators.refiner import Refiner, RefinerConfig, closing_fraction
from operators.routing import snake_route
from operators.scan import fermat_spiral, jittered_raster
from operators.stitch import Mosaic
from stream.live_image import LiveImage
from stream.motor_axes import Axes
from stream.policy import Policy, PolicyConfig

SIDE, N_PIXELS = 384, 64
SPAN = SIDE - N_PIXELS  # centres and corners move over so many pixels
PHOTONS, PROBE_ERROR, EPOCHS = 3e5, 0.1, 40
BATCH = 32
SHARES = {"sparse": 0.15, "half": 0.5, "uniform": 1.0}
TARGETS_RAD = (0.1, 0.15, 0.2)
GEOMETRY = Geometry(energy_ev=9000.0, detector_distance_m=1.0, detector_pixel_m=75e-6, n_pixels=N_PIXELS)
AXES = Axes(geometry=GEOMETRY, unit="um")
LIMITS = ((-0.4e6 * GEOMETRY.object_pixel_m, (SPAN + 0.4) * 1e6 * GEOMETRY.object_pixel_m),) * 2


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
class Scan:
    """What an arm measured, in the order of travel."""

    corners: np.ndarray
    patterns: np.ndarray
    n_violations: int = 0
    stops: tuple[tuple[float, float], ...] = ()  # target, true error of the live image at the stop, rad

    @property
    def path_px(self) -> float:
        """Length of the way."""
        return float(np.hypot(*np.diff(self.corners, axis=0).T).sum())


Arm = Callable[[Sample, int], Scan]


def refine(sample: Sample, scan: Scan) -> float:
    """Return the error of the reconstruction; the same for every arm."""
    refiner = Refiner(RefinerConfig(seed=0), sample.guess)
    refiner.append(range(len(scan.corners)), scan.patterns, scan.corners.astype(float))
    while refiner.epoch < EPOCHS:
        refiner.step(fraction=closing_fraction(refiner.epoch, EPOCHS))
    snapshot = refiner.snapshot()
    whole = np.ones((SIDE, SIDE), np.complex64)
    bounds = snapshot.bounds
    whole[bounds.top : bounds.bottom, bounds.left : bounds.right] = snapshot.object
    return sample.error_of(whole)[0]


def raster_arm(sample: Sample, n: int) -> Scan:
    """Return a raster with a fifth of its step as jitter."""
    side = round(np.sqrt(n))
    step = SPAN / (side - 1)
    return _planned(sample, jittered_raster(side, side, step, 0.2 * step, np.random.default_rng(n)))


def fermat_arm(sample: Sample, n: int) -> Scan:
    """Return a Fermat spiral with exactly `n` positions inside the square field."""
    low, high = 0.5 * SPAN / np.sqrt(n), 2 * SPAN / np.sqrt(n)
    for _ in range(40):
        step = (low + high) / 2
        spiral = fermat_spiral(4 * n, step)
        inside = spiral[np.abs(spiral).max(axis=1) <= SPAN / 2]
        low, high = (step, high) if len(inside) > n else (low, step)
    return _planned(sample, (inside if len(inside) >= n else spiral)[:n] + SPAN / 2)


def random_arm(sample: Sample, n: int) -> Scan:
    """Return positions drawn at random."""
    return _planned(sample, np.random.default_rng(n).uniform(0, SPAN, (n, 2)))


def _planned(sample: Sample, positions: np.ndarray) -> Scan:
    corners = np.clip(np.rint(positions), 0, SPAN).astype(np.int64)
    corners = corners[snake_route(corners, SPAN / np.sqrt(len(corners)))]
    return Scan(corners=corners, patterns=sample.measure(corners))


def adaptive_arm(sample: Sample, n: int, *, stale: int = 0, knows: bool = False) -> Scan:
    """Return what the policy measures when it sees the live mosaic, `stale` batches late, or `knows` all."""
    illumination = abs2(sample.probe).sum(axis=0)
    policy = Policy(PolicyConfig(axes=AXES, limits=LIMITS, seed=1), illumination)
    mosaic, images = Mosaic(illumination), []
    measured, patterns = np.zeros((0, 2)), []
    rules = {target: StopRule(target) for target in TARGETS_RAD}
    stops, n_violations = {}, 0
    while len(measured) < n:
        if knows:
            policy.look(_true_image(sample, len(measured)))
        elif len(images) > stale:
            policy.look(images[-1 - stale])
            _judge_stops(policy, rules, stops, sample, images[-1])
        before, weights = AXES.centres(measured), policy._candidate_weights
        _, points = policy.recommend(min(BATCH, n - len(measured)))
        measured = np.concatenate([measured, points])
        policy.count(measured)
        n_violations += _violations(policy, weights, before, AXES.centres(measured))
        corners = AXES.centres(points) - N_PIXELS // 2
        patterns.append(sample.measure(corners))
        mosaic.add(*sample.predictor.predict(patterns[-1]), corners)
        images.append(_mosaic_image(mosaic, len(measured)))
    return Scan(
        corners=AXES.centres(measured) - N_PIXELS // 2,
        patterns=np.concatenate(patterns),
        n_violations=n_violations,
        stops=tuple(stops.items()),
    )


def _judge_stops(
    policy: Policy, rules: dict[float, StopRule], stops: dict[float, float], sample: Sample, image: LiveImage
) -> None:
    """Note the true error of the image at the first moment that each target would have stopped the scan."""
    for target, rule in rules.items():
        if policy._surveyed:
            rule.look(policy.quality)
        if rule.is_met and target not in stops:
            stops[target] = sample.error_of(_on_field(image))[1]


def _violations(policy: Policy, weights: np.ndarray, before: np.ndarray, after: np.ndarray) -> int:
    """Return holes in ground that was refinable before a batch with room for more than filling holes.

    Counted from the definition, not from what the selector says.
    """
    if len(before) < 9 or policy.selection.n_closure == len(policy.selection):
        return 0
    reach = policy._selector.graph.reach_px
    pairs = cKDTree(before).query_pairs(reach, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(before),) * 2)
    group = connected_components(graph, directed=False)[1]
    refinable = before[np.bincount(group)[group] >= 9]
    if not len(refinable):
        return 0
    important = policy._selector.lattice.centres[weights >= RELEVANT]
    if not len(important):
        return 0
    near = cKDTree(refinable).query(important)[0] <= 2 * reach
    return int((cKDTree(after).query(important[near])[0] > reach).sum())


def _on_field(image: LiveImage) -> np.ndarray:
    whole = np.ones((SIDE, SIDE), np.complex64)
    for row in range(image.object.shape[0]):
        at, columns = row + image.origin_px[0], np.arange(image.object.shape[1]) + image.origin_px[1]
        inside = (columns >= 0) & (columns < SIDE) & (image.object[row] != 0)
        if 0 <= at < SIDE:
            whole[at, columns[inside]] = image.object[row, inside]
    return whole


def _mosaic_image(mosaic: Mosaic, n_frames: int) -> LiveImage:
    picture = mosaic.picture(mosaic.bounds)
    return live_image(picture.object, picture.sigma, picture.photons, picture.bounds.origin, n_frames)


def _true_image(sample: Sample, n_frames: int) -> LiveImage:
    shape = sample.object.shape
    return live_image(sample.object, np.full(shape, 0.01), np.full(shape, 1e4), (0, 0), n_frames)


def live_image(object_: Any, sigma: Any, photons: Any, origin: tuple[int, int], n_frames: int) -> LiveImage:
    return LiveImage(
        object=object_,
        sigma=sigma,
        photons=photons,
        source=np.ones(object_.shape, np.uint8),
        path=np.zeros((0, 2), np.float32),
        origin_px=origin,
        object_pixel_m=GEOMETRY.object_pixel_m,
        scan="bench",
        run_id="bench",
        version=n_frames,
        frames_seen=n_frames,
        epoch=0.0,
        model="",
        config_hash="",
        error=None,
        time_to_image_ms=None,
        counts={},
        is_final=False,
        note="",
    )
