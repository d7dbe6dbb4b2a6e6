"""Which frames a stage takes first when it cannot take all: those that show ground that none has shown yet.

The image then covers what has been scanned at any rate; what it gains least from waits until there is time.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from operators.arrays import Array, Corners
from operators.mosaic.new_ground import NewGround
from stream.record.passage import NONE
from stream.record.scan import Numbers, Scan, State

OLDEST = 16
"""One frame in so many is the oldest that waits, whatever it shows: none waits as long as the load lasts."""


class GroundOrder:
    """The order of the frames of one scan at one stage, the same whenever the stage begins again.

    Parameters
    ----------
    scan : Scan
    stage : str
        What it is done with counts as shown.
    corners_of : callable
        Gives (frame, 2) int64, absolute object pixels, of frames whose position is known.
    illumination : callable
        Gives |P|^2 summed over modes, (y, x) float32, photons, None while the probe is not known: until then
        the oldest go first.
    """

    def __init__(
        self,
        scan: Scan,
        stage: str,
        corners_of: Callable[[Numbers], Corners],
        illumination: Callable[[], Array | None],
    ) -> None:
        self._scan, self._corners_of, self._illumination = scan, corners_of, illumination
        self._ground: NewGround | None = None
        taken = scan.done(stage)
        self._taken, self._waiting = [taken], NONE  # of those whose position is not looked up yet
        self._n_taken = len(taken)
        self._is_noted = np.zeros(0, bool)  # taken or waiting
        self._n_ready, self._end = (
            0,
            0,
        )  # of those that were ready at the last look: how many still are, the end

    def take(self, numbers: Numbers) -> None:
        """Notes that the stage works on these frames; looked at when the order is asked for."""
        self._taken.append(numbers)
        self._n_taken += len(numbers)
        self._n_ready -= int(np.count_nonzero(self._are_noted(numbers)))

    def first_of(self, ready: Numbers, n_most: int) -> Numbers:
        """Returns up to `n_most` of the frames that are `ready`: those that show the most new ground.

        With equal ground the older go first, and after those with new ground the others do. A frame whose
        position is not known shows nothing. Given and returned ascending.
        """
        ground = self._known_ground()
        if ground is None:
            return ready[:n_most]
        self._look(ground, ready)
        n_oldest = (self._n_taken + n_most) // OLDEST - self._n_taken // OLDEST
        oldest = ready[:n_oldest]
        ground.show(self._corners_of(self._placed(oldest)[0]))
        with_ground = np.array(ground.first(n_most - len(oldest)), np.int64)
        chosen = np.concatenate([oldest, with_ground])
        others = ready[: n_most + len(with_ground)]
        others = others[~np.isin(others, chosen)]
        return np.sort(np.concatenate([chosen, others[: n_most - len(chosen)]]))

    def _known_ground(self) -> NewGround | None:
        if self._ground is None and (illumination := self._illumination()) is not None:
            self._ground = NewGround(illumination)
        return self._ground

    def _look(self, ground: NewGround, ready: Numbers) -> None:
        """Take up what was taken, what has become ready, and what has got a position since the last time."""
        placed, left = self._placed(np.concatenate(self._taken))
        self._taken = [left]
        ground.show(self._corners_of(placed))
        self._note(placed)
        self._note(left)
        new = self._new_of(ready)
        self._note(new)
        still = self._waiting[_are_among(ready, self._waiting)]
        placed, self._waiting = self._placed(np.concatenate([still, new]))
        ground.wait(placed, self._corners_of(placed))

    def _new_of(self, ready: Numbers) -> Numbers:
        """Return those that were not ready at the last look: the youngest, unless a count says otherwise."""
        n_old = int(np.searchsorted(ready, self._end))
        new = ready[n_old:] if n_old == self._n_ready else ready[~self._are_noted(ready)]
        self._n_ready, self._end = len(ready), max(self._end, int(ready.max(initial=-1)) + 1)
        return new

    def _placed(self, numbers: Numbers) -> tuple[Numbers, Numbers]:
        """Return those whose position is known, and the others."""
        is_placed = self._scan.states("positions", numbers) == State.DONE
        return numbers[is_placed], numbers[~is_placed]

    def _note(self, numbers: Numbers) -> None:
        self._make_room(numbers)
        self._is_noted[numbers] = True

    def _are_noted(self, numbers: Numbers) -> NDArray[np.bool_]:
        self._make_room(numbers)
        return self._is_noted[numbers]

    def _make_room(self, numbers: Numbers) -> None:
        n_more = int(numbers.max(initial=-1)) + 1 - len(self._is_noted)
        if n_more > 0:
            self._is_noted = np.pad(self._is_noted, (0, n_more + len(self._is_noted)))


def _are_among(held: Numbers, numbers: Numbers) -> NDArray[np.bool_]:
    """Return which of `numbers` are held; `held` is ascending and may be much longer."""
    return np.searchsorted(held, numbers) < np.searchsorted(held, numbers, side="right")
