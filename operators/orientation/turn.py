"""The eight ways in which recorded positions may lie on the frames, and which of them frames can tell apart.

Turning or mirroring frames and positions together turns or mirrors probe and object and changes nothing else;
negating positions on both axes turns both by 180 degrees and conjugates them, and gives the very same frames.
So of 8 orientations of the detector times 8 of the positions four classes are left, each of positions and
their negatives.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from operators.arrays import Frames, Positions


@dataclass(frozen=True, slots=True, order=True)
class Turn:
    """How recorded positions become those of the probe along the rows and columns of a frame.

    Attributes
    ----------
    exchanged : bool
        Whether the two axes are exchanged, first.
    signs : (int, int)
        +1 or -1 for y and x, after that.
    """

    exchanged: bool = False
    signs: tuple[int, int] = (1, 1)

    def __call__(self, positions: Positions) -> Positions:
        """Return positions (frame, 2), (y, x), turned; the unit stays."""
        return (positions[:, ::-1] if self.exchanged else positions) * np.array(self.signs, np.float64)

    @property
    def negated(self) -> "Turn":
        """The one with both signs turned, which the same frames allow."""
        return Turn(self.exchanged, (-self.signs[0], -self.signs[1]))

    @property
    def kind(self) -> "Turn":
        """The one that stands for its class: itself or its negative, whichever leaves y its sign."""
        return self if self.signs[0] > 0 else self.negated

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The same as a matrix, (2, 2), for column vectors (y, x)."""
        return self(np.eye(2)).T

    def after(self, first: "Turn") -> "Turn":
        """Return the turn that does `first` and then this one."""
        return _of_matrix(self.matrix @ first.matrix)

    @property
    def inverse(self) -> "Turn":
        """The turn that undoes this one."""
        return _of_matrix(self.matrix.T)


def _of_matrix(matrix: NDArray[np.float64]) -> Turn:
    down, right = (int(sign) for sign in matrix.sum(axis=1))
    return Turn(bool(matrix[0, 1]), (down, right))


TURNS = tuple(Turn(exchanged, (y, x)) for exchanged in (False, True) for y in (1, -1) for x in (1, -1))
CLASSES = tuple(turn for turn in TURNS if turn.kind == turn)


def turned_frames(frames: Frames, turn: Turn) -> Frames:
    """Return frames (frame, row, col) as a detector that is turned, mirrored or both would send them.

    What was at (row, col) from the middle is at `turn` of that: exact for frames with zero frequency at
    n // 2 only where what has no counterpart on the other side is dark, one line for even sides.
    """
    turned = frames.transpose(0, 2, 1) if turn.exchanged else frames
    for axis, sign in enumerate(turn.signs, start=1):
        if sign < 0:
            turned = np.flip(turned, axis)
            if frames.shape[axis] % 2 == 0:
                turned = np.roll(turned, 1, axis)
    return np.ascontiguousarray(turned)
