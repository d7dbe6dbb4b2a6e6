"""The next points to measure: farthest first, weighed by importance, within overlap and dose.

Whatever judgements it is given, what comes out is inside the limits and within the dose, covers the field
in proportion to importance, and leaves no hole in ground that is being refined. The same state and weights
give the same points.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from operators.arrays import Corners
from operators.steering.candidates import Candidates
from operators.steering.dose import DoseMap
from operators.steering.importance import RELEVANT
from operators.steering.overlap import OverlapGraph
from operators.steering.routes import Travel, short_route

NEIGHBOURHOOD = 2.0  # of the overlap distance: how far around refined frames holes are filled
NEAR_DIAMETERS = 2.0  # where the best next point usually is when moving takes long

Weights = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Selection:
    """One batch, in the order of travel.

    Attributes
    ----------
    centres : (point, 2) int64, absolute object pixels
    first : tuple of (int, int)
        Those of them that were asked for.
    n_closure : int
        How many fill a hole in refined ground.
    n_holes : int
        Candidates on refined, important ground that still have no frame within the overlap distance: the
        batch was too small.
    """

    centres: Corners
    first: tuple[tuple[int, int], ...]
    n_closure: int
    n_holes: int

    def __len__(self) -> int:
        return len(self.centres)


class Selector:
    """What has been measured, and which candidates come next.

    Parameters
    ----------
    lattice : Candidates
        Taken over: its distances follow what is measured.
    dose : DoseMap
        Counts what is measured and says what still fits.
    diameter_px : float
        Of the probe, full width at half maximum.
    overlap : float
        Linear overlap of neighbours on refined ground, 0 to 1.
    travel : Travel, optional
        What moving costs; without it only importance counts.

    Notes
    -----
    The priority of a candidate is distance x weight^(1/4), so the spacing at a place goes with weight^(-1/4)
    and the density with its square root, which minimises the weighted variance for a number of points
    (Neyman, J. R. Stat. Soc. 97 (1934) 558). After a batch whose last priority is p, every open candidate
    has a point within p / weight^(1/4) (covering), and no point of it was closer than that to one before it
    (packing). With `travel` each next point is the one with most priority^4 per second instead: dose, area
    and overlap hold as before, covering and packing only in the long run.
    """

    def __init__(
        self,
        lattice: Candidates,
        dose: DoseMap,
        diameter_px: float,
        *,
        overlap: float = 0.6,
        travel: Travel | None = None,
    ) -> None:
        self.lattice, self.dose, self.diameter_px, self.travel = lattice, dose, diameter_px, travel
        self.graph = OverlapGraph((1 - overlap) * diameter_px)
        self.is_open = np.ones(lattice.distance.shape, bool)  # dose is left
        self.is_near_refined = np.zeros(lattice.distance.shape, bool)
        self._selected: tuple[Corners, NDArray[np.float32]] | None = None  # last, and the distances with it

    def measured(self, centres: Corners) -> None:
        """Count exposures, (point, 2) absolute object pixels, on the lattice or not, once triggered."""
        centres = np.asarray(centres, np.int64).reshape(-1, 2)
        self._approach(centres)
        for centre in centres.tolist():
            self.dose.add(centre)
            for refinable in self.graph.add(centre):
                self._mark_refined(refinable)

    def give_up(self, centre: Sequence[int], radius_px: float) -> None:
        """Select no candidate within `radius_px` of `centre`, absolute object pixels, ever again."""
        window = self.lattice.window(centre, radius_px)
        self.is_open[window] &= self.lattice.distance_to(centre, window) > radius_px

    def holes(self, weights: Weights, distance: NDArray[np.float32] | None = None) -> NDArray[np.bool_]:
        """Return which open candidates lie on important, refined ground with no frame within the overlap.

        Parameters
        ----------
        weights : (row, col) float32
            As for `select`.
        distance : (row, col) float32, object pixels, optional
            From the nearest frame; the lattice's own unless given.

        Returns
        -------
        (row, col) bool
        """
        distance = self.lattice.distance if distance is None else distance
        holes: NDArray[np.bool_] = self.is_open & self.is_near_refined & (weights >= RELEVANT)
        return holes & (distance > self.graph.reach_px)

    def select(self, n_points: int, weights: Weights, first: Sequence[Sequence[int]] = ()) -> Selection:
        """Return up to `n_points` points, fewer when dose or candidates run out; none is counted yet.

        Parameters
        ----------
        n_points : int
        weights : (row, col) float32
            Importance x inflation at each candidate of the lattice, 0 where nothing may be measured.
        first : sequence of (int, int), absolute object pixels
            Taken before all others, on the lattice or not: lost frames, a survey.
        """
        with self.dose.trial():
            batch = _Batch(self, weights)
            batch.take_all(first, n_points)
            n_first = len(batch.centres)
            batch.close_holes(n_points)
            n_certain = len(batch.centres)
            if self.travel is None:
                batch.take_farthest(n_points)
            else:
                batch.take_on_the_way(n_points, self.travel)
        self._close(batch.refused)
        centres = np.array(batch.centres, np.int64).reshape(-1, 2)
        centres = centres[short_route(centres, self.diameter_px, self.graph.last)]
        self._selected = centres, batch.distance
        return Selection(
            centres=centres,
            first=tuple((row, column) for row, column in batch.centres[:n_first]),
            n_closure=n_certain - n_first,
            n_holes=batch.n_holes,
        )

    def _close(self, refused: list[int]) -> None:
        """Never try again what the dose already given forbids, whatever becomes of this batch."""
        centres = self.lattice.centres.reshape(-1, 2)
        for candidate in refused:
            self.is_open.flat[candidate] = self.dose.fits(centres[candidate].tolist())

    def _approach(self, centres: Corners) -> None:
        distance = self.lattice.distance
        selected, self._selected = self._selected, None
        if selected is not None and np.array_equal(centres, selected[0]):
            np.minimum(distance, selected[1], out=distance)  # as advised, which is the rule: done before
            return
        farthest_px = float(distance.max())
        for centre in centres.tolist():
            approach(self.lattice, distance, centre, farthest_px)

    def _mark_refined(self, centre: tuple[int, int]) -> None:
        around = NEIGHBOURHOOD * self.graph.reach_px
        window = self.lattice.window(centre, around)
        self.is_near_refined[window] |= self.lattice.distance_to(centre, window) <= around


def approach(
    lattice: Candidates, distance: NDArray[np.float32], centre: Sequence[int], farthest_px: float
) -> tuple[slice, slice]:
    """Shorten, in place, the distances that a new point at `centre` shortens; return where they are.

    Distances are (row, col) float32, object pixels, as in the lattice; `centre` is absolute. `farthest_px`
    is no less than any of them: beyond it nothing can become shorter.
    """
    window = lattice.window(centre, farthest_px)
    here = distance[window]
    np.minimum(here, lattice.distance_to(centre, window), out=here)
    return window


class _Batch:
    """Points chosen so far, and the distances as if they were measured."""

    def __init__(self, selector: Selector, weights: Weights) -> None:
        self.centres: list[list[int]] = []
        self.priorities: list[float] = []
        self.refused: list[int] = []
        self._selector, self._weights = selector, weights
        self._candidates = selector.lattice.centres.reshape(-1, 2)
        self.distance = selector.lattice.distance.copy()
        self._farthest_px = float(self.distance.max())
        # The fourth root: two square roots are ten times faster than a power.
        self._scale = np.sqrt(np.sqrt(np.where(selector.is_open, weights, np.float32(0))))
        self._priority = self.distance * self._scale

    @property
    def n_holes(self) -> int:
        """How many candidates on refined, important ground would have no frame within the overlap."""
        return int(np.count_nonzero(self._holes()))

    def take_all(self, centres: Sequence[Sequence[int]], n_points: int) -> None:
        for centre in centres:
            if len(self.centres) < n_points and self._selector.dose.fits(centre):
                self._add([int(axis) for axis in centre], np.inf)

    def close_holes(self, n_points: int) -> None:
        """Take candidates in holes, the most important first; a hole that is closed never opens again."""
        distance, priority, reach_px = (
            self.distance.ravel(),
            self._priority.ravel(),
            self._selector.graph.reach_px,
        )
        holes = np.flatnonzero(self._holes())
        while holes.size and len(self.centres) < n_points:
            self._try(int(holes[priority[holes].argmax()]))
            holes = holes[(distance[holes] > reach_px) & (priority[holes] > 0)]

    def take_farthest(self, n_points: int) -> None:
        while len(self.centres) < n_points:
            best = int(self._priority.argmax())
            if self._priority.flat[best] <= 0:
                return
            self._try(best)

    def take_on_the_way(self, n_points: int, travel: Travel) -> None:
        """Take candidates with the most gain per second, from one to the next."""
        here = self.centres[-1] if self.centres else self._selector.graph.last
        while len(self.centres) < n_points:
            best = int(self._priority.argmax())
            if self._priority.flat[best] <= 0:
                return
            self._try(best if here is None else self._most_per_second(best, here, travel))
            here = self.centres[-1] if self.centres else here

    def _most_per_second(self, farthest: int, here: Sequence[int], travel: Travel) -> int:
        """Return the candidate worth most for its time; gain goes with hole area^2 x weight, priority^4."""
        lattice, most = self._selector.lattice, float(self._priority.flat[farthest]) ** 4
        radius_px = NEAR_DIAMETERS * self._selector.diameter_px
        while True:
            window = lattice.window(here, radius_px)
            gain = np.square(np.square(self._priority[window]))
            per_second = gain / travel.time_s(lattice.distance_to(here, window))
            # What lies outside is no better, even if it gained the most of all just behind the edge.
            is_best = per_second.max(initial=0.0) * travel.time_s(radius_px) >= most
            if is_best or per_second.size == self._priority.size:
                row, column = divmod(int(per_second.argmax()), per_second.shape[1])
                return (window[0].start + row) * self._priority.shape[1] + window[1].start + column
            radius_px *= 3

    def _holes(self) -> NDArray[np.bool_]:
        return self._selector.holes(self._weights, self.distance) & (self._scale > 0)

    def _try(self, candidate: int) -> None:
        """Take a candidate, or refuse it for this batch."""
        centre = self._candidates[candidate].tolist()
        if self._selector.dose.fits(centre):
            self._add(centre, float(self._priority.flat[candidate]))
        else:
            self.refused.append(candidate)
            self._scale.flat[candidate] = self._priority.flat[candidate] = 0

    def _add(self, centre: list[int], priority: float) -> None:
        self.centres.append(centre)
        self.priorities.append(priority)
        self._selector.dose.add(centre)
        window = approach(self._selector.lattice, self.distance, centre, self._farthest_px)
        np.multiply(self.distance[window], self._scale[window], out=self._priority[window])
