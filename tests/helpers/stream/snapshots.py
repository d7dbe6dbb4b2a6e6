"""Refined objects whose tiles all say which version they belong to."""

import numpy as np

from operators.geometry import Bounds
from stream.record.snapshot import TILE_PX, tiles_on
from tests.helpers.stream.scans import snapshot_of

TILES = tiles_on(Bounds(-30, 0, 100, 200))


def state_of(n_updates):
    bounds = Bounds(-30, 0, 100, 200)
    object_ = np.ones(bounds.shape, np.complex64)
    return snapshot_of(object_, bounds, n_updates=n_updates, illumination=np.ones(bounds.shape, np.float32))


def tile_of(value):
    shape = (TILE_PX, TILE_PX)
    return np.full(shape, value, np.complex64), np.full(shape, value, np.float32)


def all_alike(n, tiles=TILES):
    """Return a state and tiles that all say which version they belong to."""
    return state_of(n), [(index, tile_of(n)) for index in tiles]
