import numpy as np
import pytest

from operators.geometry import Bounds
from operators.metrics.errors import nrmse
from operators.mosaic import phase_sync, stitching
from operators.mosaic.mosaic import KNOWN_FRACTION, LOSS_OF_INFORMATION, Mosaic, phase_variance
from operators.mosaic.stitching import stitch, stitch_parts
from operators.optics.trajectories import fermat_spiral, jittered_raster
from operators.patches import extract_patches

N = 16
PEAK_PHOTONS = 1e4


def illumination(peak=PEAK_PHOTONS):
    r2 = ((np.indices((N, N)) - (N - 1) / 2) ** 2).sum(axis=0)
    return (peak * np.exp(-r2 / 18)).astype(np.float32)


def smooth_object(shape):
    y, x = np.indices(shape)
    phase = 0.8 * np.sin(0.23 * y + 0.1 * x) + 0.5 * np.cos(0.17 * x)
    return ((0.9 + 0.1 * np.cos(0.2 * y)) * np.exp(1j * phase)).astype(np.complex64)


class Scan:
    """Windows on an object, and its patches as a network gives them: each in a phase of its own."""

    def __init__(self, positions, seed=0, noise=0.0):
        rng = np.random.default_rng(seed)
        self.corners = np.round(positions).astype(np.int64)
        self.bounds = Bounds.of_windows(self.corners, N)
        self.truth = smooth_object(self.bounds.shape)
        patches = extract_patches(self.truth, self.corners - self.bounds.origin, N)
        phases = rng.uniform(-np.pi, np.pi, (len(self.corners), 1, 1))
        error = rng.normal(0, noise, patches.shape)
        self.patches = (patches * np.exp(1j * (phases + error))).astype(np.complex64)
        self.sigma = np.full(patches.shape, max(noise, 0.01), np.float32)

    def shuffled(self, rng):
        order = rng.permutation(len(self.corners))
        self.corners, self.patches, self.sigma = self.corners[order], self.patches[order], self.sigma[order]
        return self

    def stitched(self, **options):
        return stitch(self.patches, self.sigma, illumination(), self.corners, **options)

    def error(self, mosaic):
        picture = mosaic.picture(self.bounds)
        known = np.isfinite(picture.sigma)
        return nrmse(picture.object, self.truth, known).c


def raster(*, step=4.0, **options):
    return Scan(jittered_raster(9, 8, step, 1.0, np.random.default_rng(5)) - 17, **options)


def test_patches_of_arbitrary_phase_become_the_object():
    scan = raster()
    mosaic = Mosaic(illumination())
    mosaic.add(scan.patches, scan.sigma, scan.corners)
    assert scan.error(mosaic) < 1e-5
    assert (mosaic.n_patches, mosaic.n_islands) == (72, 1)


@pytest.mark.parametrize("positions", [raster().corners, fermat_spiral(80, 4.0)], ids=["raster", "spiral"])
def test_stitching_recovers_the_object_in_any_order_of_the_scan(positions):
    assert Scan(positions).error(Scan(positions).stitched()) < 1e-5
    for seed in range(3):
        scan = Scan(positions).shuffled(np.random.default_rng(seed))
        assert scan.error(scan.stitched()) < 1e-5


@pytest.mark.parametrize("seed", range(3))
def test_patches_that_come_at_random_are_one_piece_in_the_end(seed):
    scan = raster(step=8.0).shuffled(np.random.default_rng(seed))
    mosaic = Mosaic(illumination())
    mosaic.add(scan.patches[:12], scan.sigma[:12], scan.corners[:12])
    assert mosaic.n_islands > 3
    mosaic.add(scan.patches[12:], scan.sigma[12:], scan.corners[12:])
    assert mosaic.n_islands == 1
    assert scan.error(mosaic) < 1e-5


def test_the_same_patches_give_the_same_mosaic_to_the_last_bit():
    one, other = raster(noise=0.2).stitched(), raster(noise=0.2).stitched()
    assert one.bounds is not None
    for name in ("object", "sigma", "photons"):
        assert (getattr(one.picture(one.bounds), name) == getattr(other.picture(one.bounds), name)).all()


def test_stitching_brings_noisy_patches_closer_together_than_one_pass():
    def one_pass(scan):
        mosaic = Mosaic(illumination())
        mosaic.add(scan.patches, scan.sigma, scan.corners)
        return mosaic

    scans = [raster(noise=0.8, seed=seed) for seed in range(4)]
    assert np.mean([s.error(s.stitched()) for s in scans]) < np.mean([s.error(one_pass(s)) for s in scans])


def test_of_a_window_only_the_lit_part_is_added():
    wide = np.zeros((64, 64), np.float32)
    wide[20:36, 30:46] = illumination()
    mosaic = Mosaic(wide)
    assert mosaic.lit == Bounds(20, 30, 36, 46)
    # Of a network that sees less than that, the rest is unknown.
    mosaic.add(np.full((1, 32, 32), 2, np.complex64), np.full((1, 32, 32), 0.1), np.array([[100, 200]]))
    assert mosaic.bounds == Bounds(100, 200, 164, 264)
    object_ = mosaic.object_on(mosaic.bounds)
    inside, beyond = object_[28, 38], object_[28, 47 - 1]
    assert (inside, beyond) == (2, 0)


def test_where_patches_overlap_the_brighter_one_counts_by_the_cube_of_the_probe():
    mosaic = Mosaic(illumination())
    patches = np.stack([np.full((N, N), a, np.complex64) for a in (1.0, 2.0)])
    mosaic.add(patches, np.full((2, N, N), 0.1, np.float32), np.array([[0, 0], [0, 4]]))
    one, other = (illumination()[8, column] ** 1.5 for column in (10, 6))
    found = mosaic.picture(Bounds(8, 10, 9, 11)).object
    np.testing.assert_allclose(found, (one + 2 * other) / (one + other), rtol=1e-5)


def test_the_error_bar_is_finite_exactly_where_there_are_photons():
    scan = raster()
    mosaic = scan.stitched()
    picture = mosaic.picture(mosaic.bounds)
    photons = np.zeros(mosaic.bounds.shape)
    for top, left in scan.corners - mosaic.bounds.origin:
        photons[top : top + N, left : left + N] += illumination()
    np.testing.assert_allclose(picture.photons, photons, rtol=1e-5)
    known = picture.photons > KNOWN_FRACTION * illumination().max()
    assert (np.isfinite(picture.sigma) == known).all()
    assert (picture.sigma[known] > 0).all()
    assert (picture.object[~known] == 0).all()


def test_the_error_bar_covers_the_error():
    """Independent errors of 0.3 rad in each patch: neither far over- nor understated."""
    scan = raster(noise=0.3)
    picture = scan.stitched().picture(scan.bounds)
    known = np.isfinite(picture.sigma) & (picture.photons > PEAK_PHOTONS)
    product = picture.object * scan.truth.conj()
    error = np.angle(product * np.exp(-1j * np.angle(product[known].sum())))[known]
    assert 0.3 < np.sqrt(np.mean((error / picture.sigma[known]) ** 2)) < 1.2


def test_more_certain_patches_give_a_more_certain_mosaic():
    scan = raster()
    least = stitch(scan.patches, scan.sigma, illumination(), scan.corners).picture(scan.bounds).sigma
    most = stitch(scan.patches, scan.sigma * 30, illumination(), scan.corners).picture(scan.bounds).sigma
    known = np.isfinite(least)
    assert (most[known] > least[known]).all()


def test_patches_that_disagree_have_a_larger_error_bar():
    scan = raster()
    agreed = scan.stitched().picture(scan.bounds).sigma
    rng = np.random.default_rng(1)
    scan.patches *= np.exp(1j * rng.normal(0, 0.5, scan.patches.shape)).astype(np.complex64)
    disagreed = scan.stitched().picture(scan.bounds).sigma
    inner = np.isfinite(agreed) & (agreed < np.median(agreed[np.isfinite(agreed)]))
    assert np.median(disagreed[inner]) > 3 * np.median(agreed[inner])


def test_the_canvas_grows_in_every_direction_and_nothing_moves():
    scan = raster()
    order = np.argsort(np.abs(scan.corners - scan.corners[30]).max(axis=1), kind="stable")
    at_once, one_by_one = Mosaic(illumination()), Mosaic(illumination())
    at_once.add(scan.patches[order], scan.sigma[order], scan.corners[order])
    for i in order:
        one_by_one.add(scan.patches[i : i + 1], scan.sigma[i : i + 1], scan.corners[i : i + 1])
    one, other = at_once.picture(scan.bounds), one_by_one.picture(scan.bounds)
    np.testing.assert_array_equal(one.object, other.object)
    np.testing.assert_array_equal(one.sigma, other.sigma)


def test_a_picture_is_cut_from_absolute_pixels():
    mosaic = raster().stitched()
    whole = mosaic.picture(mosaic.bounds)
    part = Bounds(-5, 0, 7, 9)
    np.testing.assert_array_equal(mosaic.picture(part).object, whole.object[part.slices_in(mosaic.bounds)])
    assert mosaic.picture(part).bounds == part


def test_windows_are_the_mosaic_where_it_is_known_and_one_elsewhere():
    scan = raster()
    mosaic = scan.stitched()
    windows = mosaic.windows(scan.corners[:3])
    for window, corner in zip(windows, scan.corners[:3], strict=True):
        picture = mosaic.picture(Bounds.of_windows(corner[None], N))
        known = np.isfinite(picture.sigma)
        np.testing.assert_array_equal(window[known], picture.object[known])
        assert (window[~known] == 1).all()
    assert (mosaic.windows(scan.corners[:1])[0, [0, -1], [0, -1]] == 1).any(), (
        "the corner of the scan is dark"
    )


def test_windows_far_apart_are_those_that_each_place_has():
    scan = raster()
    mosaic = Mosaic(illumination())
    for distance in (0, 500):
        mosaic.add(scan.patches, scan.sigma, scan.corners + distance)
    apart = np.concatenate([scan.corners[:2], scan.corners[:2] + 500])
    here, there = mosaic.windows(apart[:2]), mosaic.windows(apart[2:])
    np.testing.assert_array_equal(mosaic.windows(apart), np.concatenate([here, there]))


def test_a_mosaic_without_an_error_model_is_the_same_and_has_no_picture():
    scan = raster()
    mosaics = [Mosaic(illumination(), **told) for told in ({}, {"error_model": None})]
    for mosaic in mosaics:
        mosaic.add(scan.patches, scan.sigma, scan.corners)
    full, lean = (mosaic.windows(scan.corners) for mosaic in mosaics)
    np.testing.assert_array_equal(lean, full)
    with pytest.raises(ValueError, match="without an error model"):
        mosaics[1].picture(scan.bounds)


def test_an_empty_mosaic_says_so():
    mosaic = Mosaic(illumination())
    mosaic.add(np.zeros((0, N, N)), np.zeros((0, N, N)), np.zeros((0, 2), np.int64))
    assert mosaic.bounds is None
    with pytest.raises(ValueError, match="no patch has been added"):
        mosaic.picture(Bounds(0, 0, 1, 1))
    assert stitch(*[np.zeros((0, N, N))] * 2, illumination(), np.zeros((0, 2), np.int64)).bounds is None


def nearest_first(corners):
    """Return the order in which the nearest to all before is next, found by looking at all of them."""
    order, distance2 = [0], np.full(len(corners), np.inf)
    for _ in corners[1:]:
        distance2 = np.minimum(distance2, ((corners - corners[order[-1]]) ** 2).sum(axis=1))
        distance2[order] = np.inf
        order.append(int(distance2.argmin()))
    return order


@pytest.mark.parametrize(
    "corners",
    [
        raster().corners,
        raster(step=8.0).shuffled(np.random.default_rng(0)).corners,
        raster(step=1.0).corners,  # many at the same place
        3 * np.indices((9, 9)).reshape(2, -1).T,  # all neighbours equally near
        np.indices((4, 60)).reshape(2, -1).T * [20, 1],  # dense along lines that are far apart
        np.stack([np.arange(30) % 11, 2 * (np.arange(30) % 11)], axis=1),  # on one line, some again
        np.array([[3, 4]]),
        np.array([[3, 4], [3, 4], [100, 4]]),
    ],
    ids=["raster", "shuffled", "dense", "grid", "fly scan", "line", "one", "two places"],
)
def test_the_patch_nearest_to_those_before_is_next(corners):
    order = phase_sync.result_of(stitching.neighbours_first(corners.astype(np.int64)))
    assert order.tolist() == nearest_first(corners)


def test_patches_that_are_not_in_memory_together_are_stitched_alike(monkeypatch):
    scan, most = raster(noise=0.02), []
    at_once = stitch(scan.patches, scan.sigma, illumination(), scan.corners).picture(scan.bounds)

    def read(rows):
        most.append(len(rows))
        return scan.patches[rows], scan.sigma[rows]

    monkeypatch.setattr(stitching, "PART", 7)
    monkeypatch.setattr(phase_sync, "REGION", 0.5)
    in_parts = stitch_parts(read, illumination(), scan.corners).picture(scan.bounds)
    for layer in ("object", "sigma", "photons"):
        np.testing.assert_array_equal(getattr(in_parts, layer), getattr(at_once, layer))
    assert max(most) < len(scan.corners)


def test_photons_alone_bound_the_error_by_their_square_root():
    np.testing.assert_allclose(
        phase_variance(np.array([1e2, 1e4])), LOSS_OF_INFORMATION / 2 / np.array([1e2, 1e4])
    )
    assert np.isfinite(phase_variance(np.zeros(1))).all()
