import numpy as np
import pytest

from operators.arrays import to_numpy
from operators.engine.canvas import Canvas
from operators.geometry import Bounds

N = 16
HERE, THERE = np.array([[3, 5], [9, 12]]), np.array([[300, 310], [304, 306]])


@pytest.fixture
def patches(xp):
    rng = np.random.default_rng(0)
    values = rng.uniform(0.5, 1, (4, N, N)) * np.exp(1j * rng.uniform(-0.5, 0.5, (4, N, N)))
    return xp.asarray(values.astype(np.complex64))


def canvas(xp):
    return Canvas(Bounds(-8, -8, 400, 400), xp)


def test_windows_far_apart_are_seeded_as_those_of_either_place_alone(xp, patches):
    weights, both, one_by_one = xp.ones((N, N), xp.float32), canvas(xp), canvas(xp)
    both.seed(patches, weights, np.concatenate([HERE, THERE]), 1.0)
    one_by_one.seed(patches[:2], weights, HERE, 1.0)
    one_by_one.seed(patches[2:], weights, THERE, 1.0)
    np.testing.assert_allclose(to_numpy(both.object), to_numpy(one_by_one.object), rtol=1e-5)
    assert (to_numpy(both.object) != 1).sum() > 2 * N**2


def test_windows_far_apart_are_turned_together_into_the_phase_of_what_is_refined(xp, patches):
    weights, seeded, expected = xp.ones((N, N), xp.float32), canvas(xp), canvas(xp)
    expected.seed(patches, weights, np.concatenate([HERE, THERE]), 1.0)
    refined = Bounds(3, 5, 12, 21).slices_in(seeded.bounds)  # of the first window, and of no other
    seeded.object[refined] = expected.object[refined] * np.complex64(1j)
    seeded.illumination[refined] = 1
    seeded.seed(patches, weights, np.concatenate([HERE, THERE]), 1.0)
    is_seeded = to_numpy(expected.object) != 1
    turned = to_numpy(seeded.object)[is_seeded] / to_numpy(expected.object)[is_seeded]
    np.testing.assert_allclose(turned, 1j, atol=1e-5)


def test_a_canvas_that_grows_keeps_what_is_on_it(xp, patches):
    grown = canvas(xp)
    grown.seed(patches, xp.ones((N, N), xp.float32), np.concatenate([HERE, THERE]), 1.0)
    before, bounds = to_numpy(grown.object).copy(), grown.bounds
    grown.grow(Bounds(-20, -8, 500, 420))
    assert grown.object.shape == grown.illumination.shape == grown.sums.correction.shape == (520, 428)
    np.testing.assert_array_equal(to_numpy(grown.object)[bounds.slices_in(grown.bounds)], before)
