"""What batches were expected to bring against what they brought, and what follows for the next ones."""

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from operators.steering.maps import Map, block_mean

KEPT = 0.3  # of the predicted gain: below, a promise is broken
N_BROKEN_PLACE, N_BROKEN_BATCH = 2, 3  # in a row, until a place is abandoned, the predictions distrusted
WORTH_JUDGING = 0.05  # of the weighted variance: who predicts less is not proved wrong by an image that stays
TILE_CELLS = 4  # side of the places that are judged, in squares of the maps
MOST_PROMISES = 8  # batches that may be on their way into the image


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Promise:
    """What was known and predicted when a batch was recommended.

    Attributes
    ----------
    n_frames : int
        In the image that shows the batch.
    weights, before : (row, col) float32
        Importance, and `uncertainty` of each place, rad^2.
    predicted : (row, col) float
        Fall of the weighted variance, rad^2.
    is_lit : (row, col) bool
        Where the batch has a point.
    """

    n_frames: int
    weights: Map
    before: Map
    predicted: Map
    is_lit: NDArray[np.bool_]


class Audit:
    """Settles promises when an image shows them.

    Parameters
    ----------
    shape : (int, int)
        Of the maps.

    Attributes
    ----------
    predicted_gain, realised_gain : float
        Of the last batch that an image showed, rad^2 x squares: what was predicted, and by how much the
        weighted variance of the ground that the prediction is about has fallen since.
    is_abandoned : (row, col) bool
        Where measuring twice in a row brought much less than predicted.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.predicted_gain = self.realised_gain = 0.0
        self._promises: deque[Promise] = deque(maxlen=MOST_PROMISES)
        self._shape, self._n_broken_batches = shape, 0
        self._n_broken = np.zeros(_tiles(np.zeros(shape, np.float32)).shape, np.int64)
        self.is_abandoned: NDArray[np.bool_] = np.zeros(shape, bool)

    @property
    def is_distrusted(self) -> bool:
        """Whether the last batches all brought much less than predicted."""
        return self._n_broken_batches >= N_BROKEN_BATCH

    def promise(self, promise: Promise) -> None:
        """Remember a batch; of too many the oldest is forgotten."""
        self._promises.append(promise)

    def settle(self, n_frames: int, now: Map) -> None:
        """Judge the batches that an image of `n_frames` shows, by the uncertainty of each place `now`.

        That is (row, col) float32, rad^2, as `Promise.before`.
        """
        while self._promises and self._promises[0].n_frames <= n_frames:
            self._judge(self._promises.popleft(), now)

    def _judge(self, promise: Promise, now: Map) -> None:
        realised = promise.weights * (promise.before - now)
        self.predicted_gain = float(promise.predicted.sum(dtype=np.float64))
        self.realised_gain = float(realised[promise.predicted > 0].sum(dtype=np.float64))
        if not promise.is_lit.any():
            return
        predicted, at_stake = promise.predicted.sum(), (promise.weights * promise.before).sum()
        if realised.sum(dtype=np.float64) < KEPT * predicted:
            # An image that changed as a whole, as when the refinement takes over: no place is to blame.
            self._n_broken_batches += int(predicted >= WORTH_JUDGING * at_stake)
            return
        self._n_broken_batches = 0
        is_broken = _tiles(realised) < KEPT * _tiles(promise.predicted)
        n_broken = np.where(is_broken, self._n_broken + 1, 0)
        self._n_broken = np.where(_tiles(promise.is_lit) > 0, n_broken, self._n_broken)
        tiles = (self._n_broken >= N_BROKEN_PLACE).repeat(TILE_CELLS, axis=0).repeat(TILE_CELLS, axis=1)
        self.is_abandoned = tiles[: self._shape[0], : self._shape[1]]


def _tiles(values: NDArray[np.generic]) -> Map:
    """Return the mean over each tile, those at the lower and right edge filled up with zeros."""
    rows, columns = (-n % TILE_CELLS for n in values.shape)
    return block_mean(np.pad(values, ((0, rows), (0, columns))), TILE_CELLS)
