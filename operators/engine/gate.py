"""Decide where the refined object is shown: where it would explain new frames better than the mosaic does.

That a frame is explained by an object that was fitted to it is no evidence by itself: an object that follows
the noise of its frames is counted as wrong by as much.
"""

from array import array
from collections import deque
from collections.abc import Sequence

import numpy as np

from operators.arrays import Corners, Mask
from operators.engine.frame_store import spread
from operators.engine.refiner import Refiner
from operators.geometry import Bounds
from operators.mosaic.mosaic import Mosaic

FRAMES_OF_TILE = 3
PIXELS_AT_ONCE = (
    24 * FRAMES_OF_TILE * 64**2
)  # of patterns: bounds what a look costs, however large the object is
FRAMES_OF_CLOSING, EPOCHS_TO_SEE_ALL = 128, 3
RELAPSE = 1.05  # times the misfit of the mosaic, before ground that was shown is withheld again

Tile = tuple[int, int]


class Gate:
    """Which tiles of one object are withheld because the mosaic explains their frames better.

    Tiles are squares of half a window, counted in absolute object pixels. A tile is withheld until it has
    been looked at, and those withheld are looked at most often.

    Parameters
    ----------
    n_pixels : int
        Side of a window.
    """

    def __init__(self, n_pixels: int) -> None:
        self._side = tile_side(n_pixels)
        self._middle = n_pixels // 2
        self._most = max(2, PIXELS_AT_ONCE // (FRAMES_OF_TILE * n_pixels**2))
        self._frames: dict[Tile, array[int]] = {}  # whose window has its middle there
        self._corners = np.zeros((0, 2), np.int64)  # by frame number
        self._withheld: deque[Tile] = deque()  # the one looked at longest ago first
        self._shown: deque[Tile] = deque()

    @property
    def withheld(self) -> np.ndarray:
        """Row and column of each tile that is not to be shown, (tile, 2) int64."""
        return np.array(sorted(self._withheld), np.int64).reshape(-1, 2)

    def place(self, numbers: Sequence[int], corners: Corners) -> None:
        """Note where more frames lie; corners are absolute pixels, (frame, 2) int64."""
        if (end := max(numbers, default=-1) + 1) > len(self._corners):
            corners_so_far = self._corners
            self._corners = np.zeros((max(end, 2 * len(corners_so_far)), 2), np.int64)
            self._corners[: len(corners_so_far)] = corners_so_far
        self._corners[list(numbers)] = corners
        tiles = (corners + self._middle) // self._side
        for number, (row, column) in zip(numbers, tiles.tolist(), strict=True):
            if (row, column) not in self._frames:
                self._withheld.appendleft((row, column))
                self._frames[row, column] = array("q")
            self._frames[row, column].append(number)

    def restore(self, withheld: np.ndarray) -> None:
        """Show all tiles placed but those `withheld`, (tile, 2) int64, as a snapshot has them."""
        kept = {(row, column) for row, column in withheld.tolist()}
        self._withheld = deque(tile for tile in self._frames if tile in kept)
        self._shown = deque(tile for tile in self._frames if tile not in kept)

    def look(self, engine: Refiner, mosaic: Mosaic) -> None:
        """Decide anew about some tiles.

        Parameters
        ----------
        engine : Refiner
            Holds all frames that were placed.
        mosaic : Mosaic
            With the patches of these frames.
        """
        n_shown = min(len(self._shown), max(self._most // 2, self._most - len(self._withheld)))
        looked_at = [(self._shown.popleft(), RELAPSE) for _ in range(n_shown)]
        n_withheld = min(len(self._withheld), self._most - n_shown)
        looked_at += [(self._withheld.popleft(), 1.0) for _ in range(n_withheld)]
        for (tile, margin), ratio in zip(
            looked_at, self._ratios([tile for tile, _ in looked_at], engine, mosaic), strict=True
        ):
            (self._shown if ratio < margin else self._withheld).append(tile)

    def _ratios(self, tiles: list[Tile], engine: Refiner, mosaic: Mosaic) -> list[float]:
        """Return the misfit of the refined object over that of the mosaic, for each tile."""
        if not tiles:
            return []
        samples = [spread(self._frames[tile], FRAMES_OF_TILE).tolist() for tile in tiles]
        windows = [mosaic.windows(self._corners[sample]) for sample in samples]
        numbers = [number for sample in samples for number in sample]
        starts = np.cumsum([0, *map(len, samples[:-1])])
        left, noise = (np.add.reduceat(values, starts) for values in engine.misfits(numbers))
        by_mosaic, _ = (
            np.add.reduceat(values, starts) for values in engine.misfits(numbers, np.concatenate(windows))
        )
        return (expected_of_new(left, noise) / np.maximum(by_mosaic, 1e-12)).tolist()


class Closing:
    """Tells whether the closing of a scan is worth showing: never what explains less than how it began.

    It begins when all frames are there and have been seen: half of every batch are new ones.
    """

    def __init__(self) -> None:
        self._begins_at: int | None = None  # epochs ended
        self._left: float | None = None

    def leads_away(self, engine: Refiner, numbers: Sequence[int] | np.ndarray) -> bool:
        """Whether the object explains some of these frames, all there are, worse than as it began.

        Both states were fitted to the same frames: what is left compares them as it is.
        """
        n_epochs = len(engine.error_history)
        if self._begins_at is None:
            self._begins_at = n_epochs + EPOCHS_TO_SEE_ALL
        if n_epochs < self._begins_at:
            return False
        left = float(engine.misfits(spread(numbers, FRAMES_OF_CLOSING).tolist())[0].sum())
        if self._left is None:
            self._left = left
        return not left <= self._left


def expected_of_new(left: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Return what new frames would leave of an object that leaves so much of those it was fitted to.

    What is missing below the noise is noise that was fitted, and new frames have another.
    """
    return noise + np.abs(left - noise)


def tile_side(n_pixels: int) -> int:
    """Return the side of the tiles that are decided about, for windows of `n_pixels`."""
    return max(1, n_pixels // 2)


def withheld_bounds(tile: Tile, n_pixels: int) -> Bounds:
    """Return the absolute object pixels of a tile that is decided about, for windows of `n_pixels`."""
    side = tile_side(n_pixels)
    top, left = tile[0] * side, tile[1] * side
    return Bounds(top, left, top + side, left + side)


def withheld_on(bounds: Bounds, withheld: np.ndarray, n_pixels: int) -> Mask:
    """Return which pixels of `bounds` lie in tiles withheld, (row, col) bool.

    Parameters
    ----------
    bounds : Bounds
        Absolute object pixels.
    withheld : (tile, 2) int64
    n_pixels : int
        Side of a window.
    """
    mask = np.zeros(bounds.shape, bool)
    for row, column in withheld.tolist():
        shared = withheld_bounds((row, column), n_pixels).intersection(bounds)
        if shared is not None:
            mask[shared.slices_in(bounds)] = True
    return mask
