import numpy as np
import pytest

from operators.arrays import to_numpy
from operators.patches import add_patches, extract_patches

CORNERS = np.array(
    [[0, 0], [3, 5], [3, 5], [2, 4], [12, 8]]
)  # a repeated, an overlapping and both extreme ones
SHAPE, N_PIXELS = (20, 16), 8


def whole_numbers(rng, *shape):
    """Complex numbers whose sums and products are exact, so that adjointness can be asserted exactly."""
    return (rng.integers(-9, 10, shape) + 1j * rng.integers(-9, 10, shape)).astype(np.complex64)


def test_a_patch_is_the_object_under_its_window(xp):
    object_ = xp.arange(320).reshape(SHAPE)
    patches = extract_patches(object_, CORNERS, N_PIXELS)
    assert patches.shape == (5, 8, 8)
    for patch, (row, column) in zip(patches, CORNERS, strict=True):
        assert bool((patch == object_[row : row + 8, column : column + 8]).all())


def test_patches_are_copies(xp):
    object_ = xp.zeros(SHAPE)
    extract_patches(object_, CORNERS, N_PIXELS)[...] = 1
    assert not bool(object_.any())


def test_extract_and_add_are_exactly_adjoint(xp):
    rng = np.random.default_rng(0)
    object_ = xp.asarray(whole_numbers(rng, *SHAPE))
    patches = xp.asarray(whole_numbers(rng, len(CORNERS), N_PIXELS, N_PIXELS))
    added = xp.zeros(SHAPE, np.complex64)
    add_patches(added, patches, CORNERS)
    left = (extract_patches(object_, CORNERS, N_PIXELS).conj() * patches).sum()
    right = (object_.conj() * added).sum()
    assert complex(left) == complex(right) != 0


def test_one_patch_for_all_windows_counts_how_often_a_pixel_is_covered(xp):
    coverage = xp.zeros(SHAPE, np.float32)
    add_patches(coverage, xp.ones((N_PIXELS, N_PIXELS), np.float32), CORNERS)
    expected = np.zeros(SHAPE)
    for row, column in CORNERS:
        expected[row : row + 8, column : column + 8] += 1
    np.testing.assert_array_equal(to_numpy(coverage), expected)
    assert coverage.dtype == np.float32


def test_corners_may_live_where_the_object_lives(xp):
    object_ = xp.arange(320).reshape(SHAPE)
    there = extract_patches(object_, xp.asarray(CORNERS), N_PIXELS)
    assert bool((there == extract_patches(object_, CORNERS, N_PIXELS)).all())


@pytest.mark.parametrize("outside", [[-1, 0], [0, -1], [13, 0], [0, 9]])
def test_a_window_outside_is_refused_with_counts_and_bounds(outside):
    corners = np.array([[1, 2], outside])
    with pytest.raises(ValueError, match=r"1 of 2 windows of 8 x 8 pixels .* shape \(20, 16\)") as refused:
        extract_patches(np.zeros(SHAPE), corners, N_PIXELS)
    top, left = corners.min(axis=0)
    assert f"rows {top}.." in str(refused.value)
    assert f"columns {left}.." in str(refused.value)
    object_ = np.zeros(SHAPE)
    with pytest.raises(ValueError, match="1 of 2 windows"):
        add_patches(object_, np.ones((2, 8, 8)), corners)
    assert not object_.any(), "a refused addition must leave the object as it was"


def test_fractional_corners_are_refused():
    with pytest.raises(ValueError, match="window_corners"):
        extract_patches(np.zeros(SHAPE), np.array([[0.5, 1.0]]), N_PIXELS)


def test_a_patch_missing_is_refused():
    with pytest.raises(ValueError, match=r"\(5, 8, 8\) or \(8, 8\), got \(4, 8, 8\)"):
        add_patches(np.zeros(SHAPE), np.ones((4, 8, 8)), CORNERS)


def test_no_windows_give_no_patches(xp):
    none = np.empty((0, 2), np.int64)
    object_ = xp.zeros(SHAPE)
    add_patches(object_, extract_patches(object_, none, N_PIXELS), none)
    assert not bool(object_.any())
