"""Positions that were captured on the fly: pieces of datasets, joined axis by axis into whole frames.

Documents say which captures are written, for each axis on its own, in any order; a frame has its position
when all its captures of all axes can be read.
"""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.documents.codec import DocumentError
from stream.documents.stream_files import Dataset, NotYetError, read_captures

MOST_CAPTURES = 65_536  # that are read at once, so that the stage keeps hearing
MOST_PIECES = 32  # of an axis that wait for the other one
MOST_HELD = 2**20  # captures within documents that wait for the other axis; the first are dropped


@dataclass(frozen=True, eq=False, slots=True)
class Values:
    """Captures that came within a document."""

    values: NDArray[np.float64]


class Piece(NamedTuple):
    """Captures without a gap.

    They are counted from the start of the run, as if each row of the source were `per_row` of them: a
    position may be shared by several frames.
    """

    first: int
    stop: int
    at: int  # of the source's captures, the one that is `first`
    per_frame: int
    per_row: int
    source: Dataset | Values

    @property
    def frames(self) -> tuple[int, int]:
        """First of the whole frames, and the one after the last."""
        return -(-self.first // self.per_frame), self.stop // self.per_frame

    def cut(self, first: int, stop: int) -> "Piece":
        """Returns captures `first` to `stop` of the piece."""
        return self._replace(first=first, stop=stop, at=self.at + first - self.first)

    def without(self, frames: tuple[int, int]) -> "Iterator[Piece]":
        """Yields what is left when whole frames have been read."""
        first, stop = (number * self.per_frame for number in frames)
        if self.first < first:
            yield self.cut(self.first, first)
        if stop < self.stop:
            yield self.cut(stop, self.stop)

    def read(self, frames: tuple[int, int]) -> NDArray[np.float64]:
        """Returns (frame, capture) float64 of these frames, as many as are whole in the source."""
        first, stop = (self.at + number * self.per_frame - self.first for number in frames)
        row, end = first // self.per_row, -(-stop // self.per_row)
        if isinstance(self.source, Values):
            rows = self.source.values[row:end]
        else:
            rows = read_captures(self.source, row, end)
        captures = np.repeat(rows, self.per_row)[first - row * self.per_row :][: stop - first]
        n_whole = len(captures) // self.per_frame
        return captures[: n_whole * self.per_frame].reshape(n_whole, self.per_frame)


class Frames(NamedTuple):
    """Frames that have all their captures."""

    numbers: NDArray[np.int64]  # (frame,)
    captures: list[NDArray[np.float64]]  # of each axis, (frame, capture)


class FlownAxes:
    """Holds what documents promised, axis by axis, until it can be read.

    Attributes
    ----------
    waits_for : str
        Why the last look found less than all axes were promised; empty where nothing is waited for.
    """

    def __init__(self, n_axes: int) -> None:
        self._pieces: list[list[Piece]] = [[] for _ in range(n_axes)]
        self._is_new = False
        self.waits_for = ""

    @property
    def is_waiting(self) -> bool:
        """Whether another look may find frames, though no other document comes."""
        return self._is_new or bool(self.waits_for)

    def add(self, axis: int, piece: Piece) -> None:
        """Takes note of captures that are written; of too many that stay alone the oldest are dropped."""
        pieces, self._is_new = self._pieces[axis], True
        for k, other in enumerate(pieces):
            if other.stop != piece.first and other.first != piece.stop:
                continue
            one, next_one = (other, piece) if other.stop == piece.first else (piece, other)
            if joined := _joined(one, next_one):
                del pieces[k]
                self.add(axis, joined)
                return
        pieces.append(piece)
        del pieces[: max(len(pieces) - MOST_PIECES, 0)]

    def read(self) -> Frames | None:
        """Returns frames that can be read by now, some thousands at most; None where there are none.

        Raises
        ------
        DocumentError
            If a file holds something else; what was to be read there is dropped.
        """
        self.waits_for = ""
        stuck: dict[Dataset | Values, str] = {}  # which have no more by now
        # What is first in a file is written first.
        in_order = [sorted(pieces, key=lambda piece: piece.first) for pieces in self._pieces]
        for chosen, (first, last) in _overlaps(in_order, stuck):
            per_frame = max(piece.per_frame for piece in chosen)
            stop = min(last, first + max(MOST_CAPTURES // per_frame, 1))
            captures = []
            for piece in chosen:
                if piece.source in stuck:
                    break
                try:
                    captures.append(piece.read((first, stop)))
                except NotYetError as error:
                    stuck[piece.source] = str(error)
                    break
                except DocumentError:
                    self._take(chosen, (first, last))
                    self._is_new = True  # others may be sound
                    raise
                if len(captures[-1]) < stop - first:
                    stop = first + len(captures[-1])
                    stuck[piece.source] = (
                        f"{piece.source} ends before frame {stop}, documents promise up to {last - 1}"
                    )
            if len(captures) == len(chosen) and stop > first:
                self._take(chosen, (first, stop))
                self._is_new = True  # there may be more
                return Frames(np.arange(first, stop), [one[: stop - first] for one in captures])
        self._is_new = False
        self.waits_for = next(iter(stuck.values()), "")
        return None

    def _take(self, chosen: Sequence[Piece], frames: tuple[int, int]) -> None:
        for pieces, piece in zip(self._pieces, chosen, strict=True):
            k = next(k for k, one in enumerate(pieces) if one is piece)
            pieces[k : k + 1] = piece.without(frames)


def _overlaps(
    axes: Sequence[Sequence[Piece]],
    stuck: Container[Dataset | Values],
    chosen: tuple[Piece, ...] = (),
    frames: tuple[int, int] = (0, 2**62),
) -> Iterator[tuple[tuple[Piece, ...], tuple[int, int]]]:
    """Yield a piece of each axis and the whole frames that they share, none of a source that is stuck."""
    if len(chosen) == len(axes):
        yield chosen, frames
        return
    for piece in axes[len(chosen)]:
        first, stop = piece.frames
        shared = max(first, frames[0]), min(stop, frames[1])
        if shared[0] < shared[1] and piece.source not in stuck:
            yield from _overlaps(axes, stuck, (*chosen, piece), shared)


def _joined(one: Piece, other: Piece) -> Piece | None:
    """Return two pieces as one, None where the second does not go on where the first ends."""
    if other.first != one.stop or (one.per_frame, one.per_row) != (other.per_frame, other.per_row):
        return None
    if isinstance(one.source, Values) and isinstance(other.source, Values):
        before = one.source.values[one.at :][: one.stop - one.first]
        both = np.append(before, other.source.values[other.at :])
        joined = one._replace(stop=other.stop, at=0, source=Values(both))
        return joined.cut(max(joined.first, joined.stop - MOST_HELD), joined.stop)
    if other.source == one.source and other.at == one.at + one.stop - one.first:
        return one._replace(stop=other.stop)
    return None
