"""Frames through stations in a row, event by event: how long each takes, and what is left behind.

A station has some servers and one line before them, first come, first served. A free server takes a batch as
soon as it is full or its oldest frame has waited for the deadline. Nothing is dropped and no line is bounded:
what does not keep up is seen to grow.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """One stage, by what a frame costs it.

    Attributes
    ----------
    name : str
    servers : int
        Processes, or devices, that share the line.
    service_s : float
        Mean time of one frame in a batch, seconds.
    spread : float
        Standard deviation of the time of a batch over its mean; 0 is a clock, 1 as random as it gets.
    batch : int
        Frames that a server takes together at most.
    deadline_s : float
        How long a batch that is not full waits for more.
    """

    name: str
    servers: int
    service_s: float
    spread: float = 0.0
    batch: int = 1
    deadline_s: float = 0.0

    def load(self, rate_hz: float) -> float:
        """Returns the share of its time that each server is at work; from 1 on the line grows for ever."""
        return rate_hz * self.service_s / self.servers


def served_s(
    arrivals_s: NDArray[np.float64], station: Station, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return when each frame leaves a station, (frame,) float64, seconds, in the order of `arrivals_s`."""
    order = np.argsort(arrivals_s, kind="stable")
    comes = arrivals_s[order].tolist()
    leaves = np.empty(len(comes))
    free_at = [0.0] * station.servers  # a heap: the server that is free first takes the next batch
    first = 0
    while first < len(comes):
        full = first + station.batch - 1
        ready = comes[first] + station.deadline_s
        if full < len(comes):
            ready = min(ready, comes[full])
        begins = max(heapq.heappop(free_at), ready)
        last = first + 1
        while last < len(comes) and last - first < station.batch and comes[last] <= begins:
            last += 1
        ends = begins + (last - first) * station.service_s * _jitter(station.spread, rng)
        heapq.heappush(free_at, ends)
        leaves[first:last] = ends
        first = last
    out = np.empty_like(leaves)
    out[order] = leaves
    return out


def passed_s(
    arrivals_s: NDArray[np.float64], stations: Sequence[Station], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return when each frame has passed all stations, (frame,) float64, seconds."""
    for station in stations:
        arrivals_s = served_s(arrivals_s, station, rng)
    return arrivals_s


def _jitter(spread: float, rng: np.random.Generator) -> float:
    """Return a positive factor with mean 1 and this standard deviation."""
    return float(rng.gamma(1 / spread**2, spread**2)) if spread else 1.0
