"""The arms of the benchmark of adaptive scanning that decide as they go, from what a live image shows them.

The image is that of the live pipeline: the demo's network on Poisson counts, stitched, with its own sigma;
no stand-in.
"""

import heapq
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from operators.arrays import abs2
from operators.mosaic.mosaic import Mosaic, phase_variance
from operators.steering.importance import PRIOR_VARIANCE, RELEVANT, StopRule
from operators.steering.maps import block_mean
from operators.steering.routes import Travel, snake_route
from stream.live.image import LiveImage
from stream.steering.config import PolicyConfig
from stream.steering.motor_axes import Axes
from stream.steering.policy import Policy
from tests.benchmarks.adaptive.arms import GEOMETRY, N_PIXELS, SIDE, SPAN, MeasuredScan, Sample
from tests.helpers.stream.live_images import live_image

BATCH = 32
TARGETS_RAD = (0.1, 0.15, 0.2)
AXES = Axes(geometry=GEOMETRY, unit="um", signs=(1, 1))
LIMITS = ((-0.4e6 * GEOMETRY.object_pixel_m, (SPAN + 0.4) * 1e6 * GEOMETRY.object_pixel_m),) * 2


def steered_scan(
    sample: Sample,
    n: int,
    *,
    stale: int = 0,
    knows: bool = False,
    greedy: bool = False,
    travel: Travel | None = None,
) -> MeasuredScan:
    """Return what is measured by a policy that sees the live mosaic.

    Parameters
    ----------
    sample : Sample
    n : int
        Positions.
    stale : int
        Batches by which the image is late.
    knows : bool
        The policy sees the truth instead: the oracle.
    greedy : bool
        After the survey every point is the one of the largest predicted gain, instead of the lattice's.
    travel : Travel, optional
        What the policy is told about moving.
    """
    illumination = abs2(sample.probe).sum(axis=0)
    policy = Policy(replace(PolicyConfig(limits=LIMITS, seed=1).aims(AXES), travel=travel), illumination)
    mosaic, measured = Mosaic(illumination), np.zeros((0, 2))
    images: list[LiveImage] = []
    patterns: list[np.ndarray] = []
    rules = {target: StopRule(target) for target in TARGETS_RAD}
    stops: dict[float, float] = {}
    n_violations = 0
    while len(measured) < n:
        if knows:
            policy.look(_true_image(sample, len(measured)))
        elif len(images) > stale:
            policy.look(images[-1 - stale])
            _judge_stops(policy, rules, stops, sample, images[-1])
        before, weights = AXES.centres(measured), policy._candidate_weights
        if greedy and policy.is_surveyed:
            points = AXES.positions(greedy_batch(policy, illumination, min(BATCH, n - len(measured))))
        else:
            _, points = policy.recommend(min(BATCH, n - len(measured)))
        measured = np.concatenate([measured, points])
        policy.count(measured)
        n_violations += 0 if greedy else _violations(policy, weights, before, AXES.centres(measured))
        corners = AXES.centres(points) - N_PIXELS // 2
        patterns.append(sample.measure(corners))
        mosaic.add(*sample.predictor.predict(patterns[-1]), corners)
        images.append(_mosaic_image(mosaic, len(measured)))
    return MeasuredScan(
        corners=AXES.centres(measured) - N_PIXELS // 2,
        patterns=np.concatenate(patterns),
        n_violations=n_violations,
        stops=tuple(stops.items()),
    )


def greedy_batch(policy: Policy, illumination: np.ndarray, n_points: int) -> np.ndarray:
    """Return the points that greedily lower sum w / J most, (1 - 1/e)-good since the fall is submodular.

    Lazily (Minoux, 1978): a gain that was larger than another only falls when more is measured.
    """
    maps, centres = policy.maps, policy._selector.lattice.centres.reshape(-1, 2)
    footprint = (block_mean(illumination, maps.cell_px) / phase_variance(1.0)).ravel()
    shape = (illumination.shape[-1] // maps.cell_px,) * 2
    corner = np.rint((centres - N_PIXELS // 2) / maps.cell_px).astype(int) - maps.cells.origin
    cells = corner[:, None] + np.argwhere(np.ones(shape))
    cells = np.clip(cells, 0, np.array(maps.cells.shape) - 1) @ (maps.cells.shape[1], 1)
    precision = (maps.photons / phase_variance(1.0) + 1 / PRIOR_VARIANCE).ravel()
    weights = policy._weights.ravel()

    def gain(of: Any) -> Any:
        at = precision[cells[of]]
        return (weights[cells[of]] * (1 / at - 1 / (at + footprint))).sum(axis=-1)

    best = [(-value, index) for index, value in enumerate(gain(slice(None)))]
    heapq.heapify(best)
    chosen: list[int] = []
    while len(chosen) < n_points:
        _, index = heapq.heappop(best)
        now = -gain(index)
        if now <= best[0][0]:
            chosen.append(index)
            precision[cells[index]] += footprint
        else:
            heapq.heappush(best, (now, index))
    picked = centres[chosen]
    return picked[snake_route(picked, policy._selector.diameter_px, policy._selector.graph.last)]


def _judge_stops(
    policy: Policy, rules: dict[float, StopRule], stops: dict[float, float], sample: Sample, image: LiveImage
) -> None:
    """Note the true error of the image at the first moment that each target would have stopped the scan."""
    for target, rule in rules.items():
        if policy.is_surveyed:
            rule.look(policy.quality)
        if rule.is_met and target not in stops:
            stops[target] = sample.error_of(_on_field(image))[1]


def _violations(policy: Policy, weights: np.ndarray, before: np.ndarray, after: np.ndarray) -> int:
    """Return holes in ground that was refinable before a batch with room for more than filling holes.

    Counted from the definition, not from what the selector says.
    """
    chosen = policy.selection
    if len(before) < 9 or chosen is None or chosen.n_closure == len(chosen):
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
    assert mosaic.bounds is not None
    picture = mosaic.picture(mosaic.bounds)
    return shown(picture.object, picture.sigma, picture.photons, picture.bounds.origin, n_frames)


def _true_image(sample: Sample, n_frames: int) -> LiveImage:
    shape = sample.object.shape
    return shown(sample.object, np.full(shape, 0.01), np.full(shape, 1e4), (0, 0), n_frames)


def shown(
    object_: Any, sigma: Any, photons: Any, origin: tuple[int, int], n_frames: int, path: Any = ()
) -> LiveImage:
    """Return the live image of so many frames; every pixel is the network's."""
    return live_image(
        object_,
        sigma=sigma,
        photons=photons,
        source=np.ones(object_.shape, np.uint8),
        path=np.asarray(path, np.float32).reshape(-1, 2),
        origin_px=origin,
        object_pixel_m=GEOMETRY.object_pixel_m,
        version=n_frames,
        frames_seen=n_frames,
    )
