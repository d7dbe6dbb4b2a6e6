import numpy as np
import pytest

from operators.geometry import Bounds
from stream.live.tile_store import LAYERS, TileStore

SIDE = 8


def layers(value):
    return {name: np.full((SIDE, SIDE), value, dtype) for name, dtype in LAYERS.items()}


def test_tiles_lie_at_fixed_absolute_pixels_also_below_zero():
    store = TileStore(SIDE)
    assert store.bounds_of((0, 0)) == Bounds(0, 0, 8, 8)
    assert store.bounds_of((-1, -2)) == Bounds(-8, -16, 0, -8)


@pytest.mark.parametrize(
    ("bounds", "touched"),
    [
        (Bounds(0, 0, 8, 8), {(0, 0)}),
        (Bounds(-1, 7, 1, 9), {(-1, 0), (-1, 1), (0, 0), (0, 1)}),
        (Bounds(-8, -8, 0, 0), {(-1, -1)}),
        (Bounds(-9, -1, -8, 0), {(-2, -1)}),
    ],
)
def test_tiles_touched_are_those_that_share_a_pixel(bounds, touched):
    assert set(TileStore(SIDE).touched_by(bounds)) == touched


def test_tiles_touched_cover_any_window_and_none_is_touched_in_vain():
    rng = np.random.default_rng(0)
    store = TileStore(SIDE)
    for top, left in rng.integers(-40, 40, (50, 2)).tolist():
        height, width = rng.integers(1, 30, 2).tolist()
        window = Bounds(top, left, top + height, left + width)
        covered = np.zeros((120, 120), int)  # pixel [0, 0] is absolute pixel (-60, -60)
        for index in store.touched_by(window):
            tile = store.bounds_of(index)
            part = covered[tile.top + 60 : tile.bottom + 60, tile.left + 60 : tile.right + 60]
            part += 1
            assert min(tile.bottom, window.bottom) > max(tile.top, window.top)
            assert min(tile.right, window.right) > max(tile.left, window.left)
        assert covered.max() == 1
        assert (covered[top + 60 : window.bottom + 60, left + 60 : window.right + 60] == 1).all()


def test_only_tiles_that_changed_after_a_version_are_given():
    store = TileStore(SIDE)
    store.put((0, 0), layers(1), version=1)
    store.put((-3, 2), layers(2), version=2)
    store.put((0, 0), layers(3), version=3)
    indices, *given = store.changed_after(2)
    assert indices.tolist() == [[0, 0]]
    for layer, (_name, dtype) in zip(given, LAYERS.items(), strict=True):
        assert layer.dtype == dtype
        assert layer.shape == (1, SIDE, SIDE)
        assert (layer == 3).all()
    indices, object_, *_ = store.changed_after(-1)
    by_index = {tuple(index): layer for index, layer in zip(indices.tolist(), object_, strict=True)}
    assert {index: layer[0, 0] for index, layer in by_index.items()} == {(0, 0): 3, (-3, 2): 2}


def test_neighbours_of_a_row_are_put_in_one_piece():
    store = TileStore(SIDE)
    strips = [*store.strips_of({(0, 1), (1, 0), (0, 0), (0, 3), (-1, 2)})]
    assert strips == [Bounds(-8, 16, 0, 24), Bounds(0, 0, 8, 16), Bounds(0, 24, 8, 32), Bounds(8, 0, 16, 8)]
    pixels = np.arange(SIDE * 2 * SIDE).reshape(SIDE, 2 * SIDE)
    store.put_strip(strips[1], {name: pixels.astype(dtype) for name, dtype in LAYERS.items()}, version=1)
    indices, _, sigma, *_ = store.changed_after(0)
    given = {tuple(index): layer for index, layer in zip(indices.tolist(), sigma, strict=True)}
    np.testing.assert_array_equal(given[0, 0], pixels[:, :SIDE])
    np.testing.assert_array_equal(given[0, 1], pixels[:, SIDE:])


def test_nothing_new_is_an_update_without_tiles():
    store = TileStore(SIDE)
    store.put((0, 0), layers(1), version=1)
    indices, *given = store.changed_after(1)
    assert indices.shape == (0, 2)
    assert indices.dtype == np.int32
    assert [layer.shape for layer in given] == [(0, SIDE, SIDE)] * len(LAYERS)


def test_what_was_given_does_not_change_when_a_tile_does():
    store = TileStore(SIDE)
    store.put((0, 0), layers(1), version=1)
    _, object_, *_ = store.changed_after(-1)
    store.put((0, 0), layers(9), version=2)
    assert (object_ == 1).all()
