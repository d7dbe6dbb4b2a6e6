"""How long frames took, counted in classes: a histogram that only grows."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


def _none() -> NDArray[np.int64]:
    return np.zeros(len(BOUNDS_S) + 1, np.int64)


@dataclass(frozen=True, slots=True)
class Times:
    """Durations of frames by class; the last class has no upper bound.

    Attributes
    ----------
    n_in_class : (class,) int64
        One more than there are `BOUNDS_S`; a bound belongs to the class below it.
    total_s : float
    """

    n_in_class: NDArray[np.int64] = field(default_factory=_none)
    total_s: float = 0.0

    def plus(self, seconds: NDArray[np.float64]) -> Self:
        """Returns these and (frame,) float64 more; less than zero, of a clock that was set, is zero."""
        held_s = np.maximum(seconds, 0.0)
        classes = np.searchsorted(BOUNDS_S, held_s)
        n_more = np.bincount(classes, minlength=len(self.n_in_class))
        return type(self)(self.n_in_class + n_more, self.total_s + float(held_s.sum()))

    def up_to(self) -> dict[str, int]:
        """Returns how many took at most so long, by the bound in seconds as Prometheus writes it."""
        names = (*map(str, BOUNDS_S), "+Inf")
        return dict(zip(names, self.n_in_class.cumsum().tolist(), strict=True))
