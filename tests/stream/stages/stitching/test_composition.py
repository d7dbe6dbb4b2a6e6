import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from operators.geometry import Bounds
from operators.mosaic.joining import Plane
from operators.mosaic.mosaic import Mosaic, phase_variance
from operators.mosaic.stitching import stitch
from operators.patches import add_patches
from stream.stages.stitching.composition import MOSAIC, NOTHING, REFINED, Refined, compose
from tests.helpers.stream.scans import Sample, sample, snapshot_of


@pytest.fixture(scope="module")
def scanned():
    return Sample()


@pytest.fixture(scope="module")
def mosaic(scanned):
    sigma = np.full(scanned.patches.shape, 0.1, np.float32)
    return stitch(scanned.patches, sigma, scanned.illumination, scanned.corners)


def part(scanned, bounds):
    """Return the truth on `bounds` in a phase of its own, as refinement leaves it."""
    top, left = scanned.origin
    return scanned.truth[bounds.top - top : bounds.bottom - top, bounds.left - left : bounds.right - left]


def inside(mosaic, margin=6):
    b = mosaic.bounds
    return Bounds(b.top + margin, b.left + margin, b.bottom - 2 * margin, b.right - 2 * margin)


def ramped(object_, bounds, slope, offset=0.0):
    return (object_ * Plane(offset=offset, slope=slope).over(bounds)).astype(np.complex64)


class Front:
    """The upper part of a wider sample refined; the mosaic of the first frames goes on below it.

    The mosaic has a slope and an offset of its own, and amplitudes a tenth too small. Frames from
    `island` on were stitched before those between, half a radian off, and that was never found out.
    """

    def __init__(self, slope=(0.04, -0.02), n_refined=112, n_placed=154, island=None):
        self.scanned = Sample(n_side=14)
        corners, n = self.scanned.corners[:n_placed], self.scanned.probe.shape[-1]
        places = [Bounds.of_windows(corner[None], n) for corner in corners]
        patches = [
            ramped(0.9 * p, b, slope, 1.0)
            for p, b in zip(self.scanned.patches[:n_placed], places, strict=True)
        ]
        sigma = np.full((n_placed, n, n), 0.1, np.float32)
        self.mosaic = stitch(np.stack(patches), sigma, self.scanned.illumination, corners)
        if island is not None:
            known = self.mosaic.windows(corners)
            known[island:] *= np.exp(0.5j)
            self.mosaic = Mosaic(self.scanned.illumination)
            for numbers in (slice(0, 28), slice(island, n_placed), slice(28, island)):
                agreed = np.ones(len(corners[numbers]), np.complex64)
                self.mosaic.add(known[numbers], sigma[numbers], corners[numbers], agreed)
        self.bounds = Bounds.of_windows(corners[:n_refined], n)
        self.photons = np.zeros(self.bounds.shape, np.float32)
        add_patches(self.photons, self.scanned.illumination, corners[:n_refined] - self.bounds.origin)
        self.shone = np.zeros(self.mosaic.bounds.shape, np.float32)  # by all frames placed
        add_patches(self.shone, self.scanned.illumination, corners - self.mosaic.bounds.origin)
        self.counted = self.mosaic.photons_on(self.mosaic.bounds)
        self.refined = Refined.of(self.snapshot(), self.mosaic, None)

    def snapshot(self, slope=(0.0, 0.0), **changes):
        object_ = ramped(part(self.scanned, self.bounds), self.bounds, slope)
        values = {"illumination": self.photons, "probe": self.scanned.probe.astype(np.complex64)}
        return snapshot_of(object_, self.bounds, **values | changes)

    def layers(self):
        joint = self.refined.joint(self.mosaic)
        return compose(self.mosaic.bounds, self.mosaic, self.refined, joint=joint)

    def border(self, source):
        """Return the pixels within 3 of the border, on the refined and on the mosaic's side, well lit."""
        lit = self.shone > 0.3 * np.median(self.shone[source == REFINED])
        return tuple(
            lit & (source == this) & binary_dilation(source == other, iterations=3)
            for this, other in ((REFINED, MOSAIC), (MOSAIC, REFINED))
        )

    def wrong(self, object_):
        truth = np.ones(object_.shape, np.complex64)
        inside = Bounds.of_windows(self.scanned.corners, self.scanned.probe.shape[-1])
        shared = inside.intersection(self.mosaic.bounds)
        truth[shared.slices_in(self.mosaic.bounds)] = part(self.scanned, shared)
        return object_ / truth


def phase_between(a, b):
    return np.angle(np.vdot(a, b))


def test_an_empty_picture_knows_nothing():
    layers = compose(Bounds(-4, -4, 4, 4), Mosaic(np.ones((8, 8))), None)
    assert (layers["source"] == NOTHING).all()
    assert (layers["object"] == 0).all()
    assert (layers["photons"] == 0).all()
    assert np.isinf(layers["sigma"]).all()


def test_the_mosaic_is_shown_where_it_is_known_also_on_tiles_that_reach_beyond_it(mosaic):
    picture = mosaic.picture(mosaic.bounds)
    window = mosaic.bounds.padded(5)
    layers = compose(window, mosaic, None)
    known = np.zeros(window.shape, bool)
    known[mosaic.bounds.slices_in(window)] = np.isfinite(picture.sigma)
    assert (layers["source"] == np.where(known, MOSAIC, NOTHING)).all()
    for name in ("object", "sigma", "photons"):
        np.testing.assert_array_equal(layers[name][known], getattr(picture, name)[np.isfinite(picture.sigma)])


def test_the_refined_object_is_shown_over_the_mosaic_where_it_was_illuminated(scanned, mosaic):
    bounds = inside(mosaic)
    illumination = np.full(bounds.shape, 500.0, np.float32)
    illumination[:3] = 0.04  # the probe of the snapshot has a peak of 1
    refined = Refined.of(snapshot_of(part(scanned, bounds), bounds, illumination=illumination), mosaic, None)
    layers = compose(mosaic.bounds, mosaic, refined)
    expected = compose(mosaic.bounds, mosaic, None)["source"]
    lit = expected[bounds.slices_in(mosaic.bounds)]
    lit[3:] = REFINED
    assert (layers["source"] == expected).all()
    np.testing.assert_array_equal(layers["object"][expected == REFINED], refined.object[3:].ravel())
    assert (layers["photons"][expected == REFINED] == 500).all()


def test_refined_ground_beside_the_mosaic_is_shown_too(scanned, mosaic):
    far = Bounds(1000, 1000, 1020, 1020)
    refined = Refined.of(snapshot_of(sample(far.shape), far), mosaic, None)
    assert (compose(far, mosaic, refined)["source"] == REFINED).all()
    assert (compose(Bounds(0, 500, 8, 508), mosaic, refined)["source"] == NOTHING).all()


@pytest.mark.parametrize("n_refined", [112, 28], ids=["much common ground", "little"])
@pytest.mark.parametrize("slope", [(0.0, 0.0), (0.04, -0.02), (-0.1, 0.1)], ids=str)
def test_the_image_has_no_step_of_phase_or_amplitude_where_refined_ground_ends(n_refined, slope):
    front = Front(slope, n_refined, n_placed=n_refined + 42)
    layers = front.layers()
    sides = front.border(layers["source"])
    assert all(side.sum() > 50 for side in sides)
    refined, mosaic = (front.wrong(layers["object"])[side].mean() for side in sides)
    # The patches are exact: what is left is the ramp that the few cells do not tell, over six pixels.
    assert abs(phase_between(refined, mosaic)) < 0.01
    assert abs(mosaic / refined) == pytest.approx(1, abs=0.01)


def test_a_mosaic_of_islands_meets_refined_ground_although_its_parts_disagree():
    front = Front((0.0, 0.0), n_refined=140, n_placed=182, island=98)

    def step(joint):
        layers = compose(front.mosaic.bounds, front.mosaic, front.refined, joint=joint)
        refined, mosaic = (front.wrong(layers["object"])[side] for side in front.border(layers["source"]))
        return abs(phase_between(refined.mean(), mosaic.mean()))

    assert step(None) > 0.3
    assert step(front.refined.joint(front.mosaic)) < 0.05


def test_refined_ground_stays_as_it_is_when_the_mosaic_is_joined_to_it():
    front = Front()
    layers = front.layers()
    shown = layers["source"] == REFINED
    expected = np.zeros(shown.shape, np.complex64)
    expected[front.bounds.slices_in(front.mosaic.bounds)] = front.refined.object
    np.testing.assert_array_equal(layers["object"][shown], expected[shown])


@pytest.mark.parametrize("power", [1.0, 250.0], ids=["known power", "power found by refinement"])
def test_the_photons_of_a_pixel_are_those_of_all_frames_shown_on_either_side_of_the_border(power):
    front = Front()
    scaled = np.float32(np.sqrt(power)) * front.scanned.probe
    changes = {"probe": scaled.astype(np.complex64), "illumination": np.float32(power) * front.photons}
    front.refined = Refined.of(front.snapshot(**changes), front.mosaic, None)
    layers = front.layers()
    shown = layers["source"] > NOTHING
    assert all(side.any() for side in front.border(layers["source"]))
    found = layers["photons"] / power
    assert (found[shown] < 1.0001 * front.shone[shown]).all()
    # The mosaic leaves out what little light there is around the lit part of its windows.
    assert (found[shown] > 0.9999 * front.counted[shown]).all()
    assert (front.counted[shown] > 0.93 * front.shone[shown]).all()


def test_settled_ground_stays_when_a_refined_probe_has_given_the_object_another_ramp():
    front = Front()
    before = front.refined
    rng = np.random.default_rng(1)
    probe = front.scanned.probe * np.exp(1j * rng.normal(0, 0.05, front.scanned.probe.shape))
    changed = front.snapshot((0.02, -0.03), probe=probe.astype(np.complex64))
    after = Refined.of(changed, front.mosaic, before)
    lit = front.photons > 0.1 * front.photons.max()
    moved = np.angle(after.object * before.object.conj())[lit]
    assert np.abs(moved).max() < 1e-3, "the ramp was 1.5 rad from end to end"
    np.testing.assert_allclose(after.sigma[lit], before.sigma[lit], rtol=0.05)


def test_with_the_probe_as_it_was_a_ramp_that_refinement_takes_out_is_taken_out():
    front = Front()
    wrong = Refined.of(front.snapshot((0.01, 0.0)), front.mosaic, None)
    right = Refined.of(front.snapshot(), front.mosaic, wrong)
    difference = right.object * part(front.scanned, front.bounds).conj()
    assert np.ptp(np.angle(difference * np.conj(difference.sum()))) < 1e-4


@pytest.mark.parametrize("turn", [0.0, 1.0, 3.0, -2.0])
def test_the_first_refined_object_continues_the_phase_of_the_mosaic(scanned, mosaic, turn):
    bounds = inside(mosaic)
    object_ = (part(scanned, bounds) * np.exp(1j * turn)).astype(np.complex64)
    refined = Refined.of(snapshot_of(object_, bounds), mosaic, None)
    assert abs(phase_between(refined.object, mosaic.picture(bounds).object)) < 1e-3
    np.testing.assert_allclose(np.abs(refined.object), np.abs(object_), rtol=1e-5)


def test_the_next_one_continues_the_one_before_however_the_mosaic_has_turned(scanned, mosaic):
    bounds = inside(mosaic)
    first = Refined.of(snapshot_of(part(scanned, bounds), bounds), mosaic, None)
    sigma = np.full(scanned.patches.shape, 0.1, np.float32)
    turned = stitch(scanned.patches * np.complex64(1j), sigma, scanned.illumination, scanned.corners)
    larger = Bounds(bounds.top - 4, bounds.left, bounds.bottom, bounds.right + 3)
    object_ = (part(scanned, larger) * np.exp(2.0j)).astype(np.complex64)
    second = Refined.of(snapshot_of(object_, larger), turned, first)
    assert abs(phase_between(second.object[bounds.slices_in(larger)], first.object)) < 1e-3


def test_without_anything_to_agree_with_the_object_stays_as_it_is(scanned, mosaic):
    far = Bounds(1000, 1000, 1020, 1020)
    object_ = sample(far.shape)
    np.testing.assert_array_equal(Refined.of(snapshot_of(object_, far), mosaic, None).object, object_)
    dark = Mosaic(scanned.illumination)
    np.testing.assert_array_equal(Refined.of(snapshot_of(object_, far), dark, None).object, object_)


def test_the_error_bar_of_a_still_pixel_is_its_photon_noise(scanned, mosaic):
    bounds = inside(mosaic)
    snapshot = snapshot_of(part(scanned, bounds), bounds)
    first = Refined.of(snapshot, mosaic, None)
    floor = np.sqrt(phase_variance(1e3 * np.abs(first.object) ** 2))
    np.testing.assert_allclose(first.sigma, floor, rtol=1e-5)
    np.testing.assert_allclose(Refined.of(snapshot, mosaic, first).sigma, floor, rtol=1e-2)


def test_a_pixel_that_still_moves_has_a_larger_error_bar(scanned, mosaic):
    bounds = inside(mosaic)
    object_ = part(scanned, bounds)
    first = Refined.of(snapshot_of(object_, bounds), mosaic, None)
    moved = object_.copy()
    moved[5:8, 5:8] *= np.exp(0.5j).astype(np.complex64)
    second = Refined.of(snapshot_of(moved, bounds), mosaic, first)
    assert second.sigma[6, 6] > 0.2
    assert (second.sigma[12:] < 2 * first.sigma[12:]).all()


def test_at_the_growing_edge_the_mosaic_is_shown_until_refinement_has_used_as_much_light():
    mosaic = Mosaic(np.ones((8, 8), np.float32))
    patches = np.full((4, 8, 8), 0.5, np.complex64)
    mosaic.add(patches, np.full((4, 8, 8), 0.1), np.zeros((4, 2), np.int64))
    assert mosaic.bounds is not None
    behind, level = (
        Refined(
            object=np.ones((8, 8), np.complex64),
            photons=np.full((8, 8), photons, np.float32),
            sigma=np.full((8, 8), 0.1, np.float32),
            probe=np.ones((1, 8, 8), np.complex64),
            power=64.0,
            least=0.05,
            brightest=photons,
            bounds=Bounds(0, 0, 8, 8),
            withheld=np.zeros((8, 8), bool),
            withheld_tiles=frozenset(),
            gauge=Plane(),
            n_updates=1,
            epoch=1.0,
            error=0.0,
        )
        for photons in (1.0, 4.0)
    )
    window = Bounds(0, 0, 8, 8)
    assert (compose(window, mosaic, behind)["source"] == MOSAIC).all()
    assert (compose(window, mosaic, level)["source"] == REFINED).all()


def test_where_refined_ground_is_withheld_the_mosaic_is_shown_with_its_own_error_bar():
    front = Front()
    tile = front.bounds.top // 8 + 2, front.bounds.left // 8 + 2  # of half a window
    front.refined = Refined.of(front.snapshot(withheld=np.array([tile])), front.mosaic, None)
    layers, joint = front.layers(), front.refined.joint(front.mosaic)
    whole = compose(front.mosaic.bounds, front.mosaic, Refined.of(front.snapshot(), front.mosaic, None))
    withheld = np.zeros(front.mosaic.bounds.shape, bool)
    bounds = Bounds(tile[0] * 8, tile[1] * 8, tile[0] * 8 + 8, tile[1] * 8 + 8)
    withheld[bounds.slices_in(front.mosaic.bounds)] = True
    assert (whole["source"][withheld] == REFINED).all()
    assert (layers["source"][withheld] == MOSAIC).all()
    assert (layers["source"][~withheld] == whole["source"][~withheld]).all()
    below = front.mosaic.picture(bounds)
    np.testing.assert_array_equal(layers["sigma"][withheld], below.sigma.ravel())
    np.testing.assert_allclose(
        layers["object"][withheld], (below.object * joint.over(bounds)).ravel(), rtol=1e-4
    )
    np.testing.assert_array_equal(layers["photons"], whole["photons"])


def test_ground_withheld_where_there_is_no_mosaic_is_shown_all_the_same():
    front = Front()
    everywhere = np.stack(np.meshgrid(np.arange(-5, 20), np.arange(-5, 20)), axis=-1).reshape(-1, 2)
    refined = Refined.of(front.snapshot(withheld=everywhere), front.mosaic, None)
    assert refined.withheld.all()
    empty = Mosaic(front.scanned.illumination)
    assert (compose(front.bounds, empty, refined)["source"] == REFINED).any()
    assert (compose(front.bounds, front.mosaic, refined)["source"] == MOSAIC).any()
    assert refined.joint(front.mosaic) is None


def test_ground_that_changed_is_taken_up_in_the_gauge_of_the_whole_and_the_object_grows(scanned, mosaic):
    bounds = inside(mosaic)
    whole = Refined.of(snapshot_of(part(scanned, bounds) * np.complex64(1j), bounds), mosaic, None)
    before = {name: getattr(whole, name).copy() for name in ("object", "photons", "sigma")}
    tile = Bounds(bounds.bottom - 8, bounds.right - 8, bounds.bottom + 8, bounds.right + 8)
    raw = np.full(tile.shape, 0.5j, np.complex64)
    withheld = (bounds.top // 8 + 1, bounds.left // 8 + 1)  # of half a window
    state = snapshot_of(raw, bounds.union(tile), n_updates=70, withheld=np.array([withheld]))
    changed = whole.changed(state, [(tile, raw, np.full(tile.shape, 5e3, np.float32))])
    assert (changed.n_updates, changed.brightest) == (70, 5e3)
    there = tile.slices_in(changed.bounds)
    np.testing.assert_allclose(changed.object[there], raw * whole.gauge.over(tile), rtol=1e-5)
    assert (changed.photons[there] == 5e3).all()
    is_other = np.ones(changed.bounds.shape, bool)
    is_other[there] = False
    for name, value in before.items():
        grown = getattr(changed, name)
        kept = is_other[bounds.slices_in(changed.bounds)]
        np.testing.assert_array_equal(grown[bounds.slices_in(changed.bounds)][kept], value[kept])
    unknown = is_other.copy()
    unknown[bounds.slices_in(changed.bounds)] = False
    assert (changed.photons[unknown] == 0).all()
    [decided] = changed.decided_anew(whole)
    assert decided == Bounds(8 * withheld[0], 8 * withheld[1], 8 * withheld[0] + 8, 8 * withheld[1] + 8)
    assert changed.withheld[decided.slices_in(changed.bounds)].all()
    assert changed.withheld.sum() == 64
