"""The published picture in square tiles with versions, so that a client gets only what it does not have.

Tiles are fixed in absolute object pixels: a picture that grows adds tiles and never renames them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.geometry import Bounds

LAYERS: dict[str, Any] = {
    "object": np.complex64,
    "sigma": np.float32,
    "photons": np.float32,
    "source": np.uint8,
}


@dataclass(slots=True)
class Tile:
    """Layers (y, x) of one tile and the version that changed them last."""

    version: int
    layers: dict[str, NDArray[Any]]


class TileStore:
    """The tiles of one scan."""

    def __init__(self, tile_px: int) -> None:
        self.tile_px = tile_px
        self._tiles: dict[tuple[int, int], Tile] = {}  # the one that changed last is last

    def touched_by(self, bounds: Bounds) -> Iterator[tuple[int, int]]:
        """Yields the indices of the tiles that share a pixel with `bounds`."""
        side = self.tile_px
        for row in range(bounds.top // side, -(-bounds.bottom // side)):
            for column in range(bounds.left // side, -(-bounds.right // side)):
                yield row, column

    def bounds_of(self, index: tuple[int, int]) -> Bounds:
        """Returns the absolute object pixels of a tile."""
        top, left = index[0] * self.tile_px, index[1] * self.tile_px
        return Bounds(top, left, top + self.tile_px, left + self.tile_px)

    def put(self, index: tuple[int, int], layers: dict[str, NDArray[Any]], version: int) -> None:
        """Replaces a tile; no `version` is lower than one before."""
        self._tiles.pop(index, None)
        self._tiles[index] = Tile(version, layers)

    def strips_of(self, indices: Iterable[tuple[int, int]]) -> Iterator[Bounds]:
        """Yields the absolute object pixels of tiles, those of neighbours in a row as one piece."""
        by_place = enumerate(sorted(indices))
        for _, strip in groupby(by_place, lambda item: (item[1][0], item[1][1] - item[0])):
            tiles = [self.bounds_of(index) for _, index in strip]
            yield tiles[0].union(tiles[-1])

    def put_strip(self, bounds: Bounds, layers: dict[str, NDArray[Any]], version: int) -> None:
        """Replaces the tiles that make up `bounds`, as `put` does each."""
        for index in self.touched_by(bounds):
            window = self.bounds_of(index).slices_in(bounds)
            self.put(index, {name: layer[window].copy() for name, layer in layers.items()}, version)

    def shows(self, index: tuple[int, int], source: int) -> bool:
        """Says whether any pixel of a tile is from `source`."""
        return index in self._tiles and bool((self._tiles[index].layers["source"] == source).any())

    def changed_after(self, version: int) -> list[NDArray[Any]]:
        """Returns the buffers of an ObjectUpdate: indices (tile, 2), then each layer (tile, y, x)."""
        newest_first = takewhile(lambda item: item[1].version > version, reversed(self._tiles.items()))
        news = [index for index, _ in newest_first]
        indices = np.array(news, np.int32).reshape(-1, 2)
        shape = (len(news), self.tile_px, self.tile_px)
        buffers: list[NDArray[Any]] = [indices]
        for name, dtype in LAYERS.items():
            layer = np.empty(shape, dtype)
            for row, index in enumerate(news):
                layer[row] = self._tiles[index].layers[name]
            buffers.append(layer)
        return buffers
