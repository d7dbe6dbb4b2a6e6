import numpy as np
import pytest

from operators.geometry import Bounds
from operators.mosaic.blocks import SIDE, Blocks

WHOLE = Bounds(-SIDE - 7, -5, SIDE + 20, 2 * SIDE + 3)


@pytest.fixture
def added():
    """Return blocks and what they hold on WHOLE, as one array."""
    rng, blocks, plain = np.random.default_rng(0), Blocks(2, np.float32), np.zeros((2, *WHOLE.shape))
    for _ in range(40):
        n_rows, n_columns = rng.integers(1, 90, 2)
        top, left = (int(rng.integers(low, high)) for low, high in ((-SIDE, SIDE - 80), (0, 2 * SIDE - 90)))
        bounds = Bounds(top, left, top + int(n_rows), left + int(n_columns))
        values = rng.integers(0, 9, (2, n_rows, n_columns)).astype(np.float32)
        blocks.add(values, bounds)
        plain[:, *bounds.slices_in(WHOLE)] += values
    return blocks, plain


def test_sums_are_those_of_one_large_array(added):
    blocks, plain = added
    np.testing.assert_array_equal(blocks.on(WHOLE), plain)
    part = Bounds(-3, SIDE - 4, 9, SIDE + 5)
    np.testing.assert_array_equal(blocks.on(part, layers=slice(1)), plain[:1, *part.slices_in(WHOLE)])


@pytest.mark.parametrize("step", [2, 3, 7, SIDE + 1])
def test_every_few_pixels_are_those_of_the_whole(added, step):
    blocks, plain = added
    np.testing.assert_array_equal(blocks.on(WHOLE, step), plain[:, ::step, ::step])


def test_what_was_handed_out_does_not_change(added):
    blocks, plain = added
    part = blocks.on(WHOLE)
    blocks.add(np.ones((2, 5, 5), np.float32), Bounds(0, 0, 5, 5))
    np.testing.assert_array_equal(part, plain)


def test_blocks_take_others_times_a_factor(added):
    blocks, plain = added
    other = Blocks(2, np.float32)
    far = Bounds(10 * SIDE, 10 * SIDE, 10 * SIDE + 2, 10 * SIDE + 2)
    for bounds in (Bounds(0, 0, 3, 3), far):
        other.add(np.ones((2, *bounds.shape), np.float32), bounds)
    blocks.take(other, np.float32(4))
    plain[:, *Bounds(0, 0, 3, 3).slices_in(WHOLE)] += 4
    np.testing.assert_array_equal(blocks.on(WHOLE), plain)
    assert (blocks.on(far) == 4).all()
