import numpy as np
import pytest

from operators.geometry import Bounds
from operators.mosaic.mosaic import Mosaic
from tests.helpers.stream.scans import N_PIXELS, Sample

SMALL, LARGE, BETWEEN = np.arange(28), np.arange(84, 196), np.arange(28, 84)  # rows of 14 frames


@pytest.fixture(scope="module")
def scanned():
    return Sample(n_side=14)


@pytest.fixture
def apart(scanned):
    """Return a mosaic of two islands."""
    mosaic = Mosaic(scanned.illumination)
    for numbers in (SMALL, LARGE):
        add(mosaic, scanned, numbers)
    assert mosaic.n_islands == 2
    return mosaic


def add(mosaic, scanned, numbers):
    sigma = np.full((len(numbers), N_PIXELS, N_PIXELS), 0.1, np.float32)
    return mosaic.add(scanned.patches[numbers], sigma, scanned.corners[numbers])


def ground(scanned, numbers):
    return Bounds.of_windows(scanned.corners[numbers], N_PIXELS)


def phases(mosaic, scanned):
    """Return the phase of the mosaic against the truth, where it is known."""
    bounds = ground(scanned, np.arange(len(scanned)))
    object_ = mosaic.object_on(bounds.intersection(mosaic.bounds))
    return np.angle((object_ * scanned.truth.conj())[object_ != 0])


def test_islands_take_one_phase_when_a_patch_lies_on_both(apart, scanned):
    assert np.ptp(phases(apart, scanned)) > 0.1
    add(apart, scanned, BETWEEN)
    assert apart.n_islands == 1
    assert np.ptp(phases(apart, scanned)) < 1e-4


def test_the_smaller_island_is_turned_and_the_larger_one_stays(apart, scanned):
    # What comes between covers the last row of the small one and the first rows of the large one.
    grounds = [ground(scanned, numbers) for numbers in (SMALL[:1], LARGE[56:])]
    small, large = (apart.object_on(bounds) for bounds in grounds)
    [turned] = add(apart, scanned, BETWEEN)
    assert all(turned.contains(lit) for lit in apart.lit_at(scanned.corners[SMALL]))
    assert turned.intersection(ground(scanned, LARGE[-1:])) is None
    assert abs(np.angle(np.vdot(small, apart.object_on(grounds[0])))) > 0.1
    np.testing.assert_array_equal(apart.object_on(grounds[1]), large)


def test_an_island_that_is_turned_keeps_its_error_bar(apart, scanned):
    alone = Bounds(*ground(scanned, SMALL[:14]).origin, *ground(scanned, SMALL[13:14]).origin)
    before = apart.picture(alone)
    assert add(apart, scanned, BETWEEN)
    after = apart.picture(alone)
    np.testing.assert_allclose(after.sigma, before.sigma, rtol=1e-4)
    np.testing.assert_array_equal(after.photons, before.photons)


def test_a_scan_in_order_is_one_island_and_nothing_is_turned():
    scanned = Sample(n_side=8, step=3.0)
    mosaic = Mosaic(scanned.illumination)
    assert add(mosaic, scanned, np.arange(len(scanned))) == []
    assert mosaic.n_islands == 1


def test_a_patch_without_light_brings_no_islands_together(apart, scanned):
    corners = scanned.corners[BETWEEN]
    dark = np.zeros((len(corners), N_PIXELS, N_PIXELS), np.complex64)
    assert apart.add(dark, np.ones(dark.shape, np.float32), corners) == []


@pytest.mark.parametrize("step", [2, 3, 7])
def test_every_few_pixels_of_the_mosaic_are_those_of_the_whole(apart, step):
    b = apart.bounds
    part = Bounds(b.top + 1, b.left + 2, b.bottom - 3, b.right - 1)
    np.testing.assert_array_equal(apart.object_on(part, step), apart.object_on(part)[::step, ::step])


def test_patches_in_any_order_end_as_one_island_in_one_phase(scanned):
    mosaic = Mosaic(scanned.illumination)
    order = np.random.default_rng(0).permutation(len(scanned))
    n_islands = []
    for number in order:
        add(mosaic, scanned, [number])
        n_islands.append(mosaic.n_islands)
    assert max(n_islands) > 5
    assert n_islands[-1] == 1
    assert np.ptp(phases(mosaic, scanned)) < 1e-4
