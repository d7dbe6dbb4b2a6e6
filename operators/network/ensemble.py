"""Several networks for one pattern: where they disagree, none of them knows.

The head of one network knows how wrong it was on patterns like its training's; members that were trained,
or thinned, differently disagree where a pattern is like none of these.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch

from operators.arrays import Patches, Patterns, to_numpy
from operators.metrics.errors import align_phase
from operators.network.interface import NORMS, Network, Predicting, Results
from operators.patches import UNIFORM_PHASE_SIGMA, middle, widened


class Ensemble(Predicting):
    """Every pattern through every member: the most that members can tell, at the cost of all of them.

    Sigma is the members' own, which is calibrated and so holds what members commonly disagree about, or the
    spread of their phases where that is larger: their sum would count the same error twice.

    Parameters
    ----------
    members : sequence of Predicting
        For one probe.
    weights : (y, x) float32
        Illumination; patches are aligned in phase where it is bright.
    n_estimates : int, optional
        The first so many members give the estimate, as their mean; the rest only tell the spread, by how far
        they are from it. That is an error of theirs as well as one of the estimate, so half of it counts. All
        of them unless given.

    Raises
    ------
    ValueError
        If there are fewer than two members.
    """

    def __init__(
        self, members: Sequence[Predicting], weights: np.ndarray, n_estimates: int | None = None
    ) -> None:
        if len(members) < 2:
            raise ValueError(f"disagreement needs at least 2 members, got {len(members)}")
        self.crop = max(member.crop for member in members)
        self._members, self._weights = members, middle(weights, self.crop)
        self._n_estimates = n_estimates or len(members)

    def submit(self, patterns: Patterns) -> Results:
        """Return what gives the members' mean patches, and sigma: see `Predicting.submit`."""
        members = [member.submit(patterns) for member in self._members]
        return lambda: self._combined([widened(*results(), self.crop) for results in members])

    def _combined(self, results: list[tuple[Patches, np.ndarray]]) -> tuple[Patches, np.ndarray]:
        guesses, sigmas = zip(*results, strict=True)
        aligned = np.stack([self._aligned(guess, guesses[0]) for guess in guesses])
        patches = aligned[: self._n_estimates].mean(axis=0)
        share = 1.0 if self._n_estimates == len(self._members) else 0.5
        spread = share * np.square(np.angle(aligned * patches.conj())).mean(axis=0)
        own = np.square(sigmas[: self._n_estimates]).mean(axis=0)
        return patches, np.minimum(np.sqrt(np.maximum(own, spread)), UNIFORM_PHASE_SIGMA)

    def warm_up(self) -> None:
        """Warm up every member."""
        for member in self._members:
            member.warm_up()

    def _aligned(self, patches: Patches, reference: Patches) -> Patches:
        pairs = zip(patches, reference, strict=True)
        return np.stack([align_phase(a, b, self._weights) for a, b in pairs]) if len(patches) else patches


class RoundRobin(Predicting):
    """Every pattern through one member: the cost of one, and neighbours that overlap show the disagreement.

    Parameters
    ----------
    members : sequence of Predicting
    """

    def __init__(self, members: Sequence[Predicting]) -> None:
        self._members, self.crop = members, max(member.crop for member in members)

    def submit(self, patterns: Patterns) -> Results:
        """Return what gives patches and sigma, as `Predicting.submit`; `turns` tells whose they are."""
        turn = turns(patterns, len(self._members))
        frames = [np.flatnonzero(turn == index) for index in range(len(self._members))]
        members = [m.submit(patterns[which]) for m, which in zip(self._members, frames, strict=True)]

        def results() -> tuple[Patches, np.ndarray]:
            shape = (len(patterns), self.crop, self.crop)
            patches, sigma = np.empty(shape, np.complex64), np.empty(shape, np.float32)
            for which, member in zip(frames, members, strict=True):
                patches[which], sigma[which] = widened(*member(), self.crop)
            return patches, sigma

        return results

    def warm_up(self) -> None:
        """Warm up every member."""
        for member in self._members:
            member.warm_up()


def turns(patterns: Patterns, n_members: int) -> np.ndarray:
    """Return the member of a `RoundRobin` that makes the patch of each pattern, (frame,) int64 from 0 on.

    It follows from a pattern's counts, (frame, ky, kx) float32, photons, alone, so that live and offline
    results agree.
    """
    if n_members == 1:  # nothing to ask a GPU for
        return np.zeros(len(patterns), np.int64)
    return to_numpy(patterns.sum(axis=(1, 2), dtype=np.float64)).astype(np.int64) % n_members


def thinned(network: Network, dropout: float, seed: int) -> Network:
    """Return a copy that has lost a random share of the channels on the way to its estimate.

    A sample of MC dropout (Gal & Ghahramani, ICML 2016) whose masks stay: a pattern gives the same patch in
    every batch.

    Parameters
    ----------
    network : Network
    dropout : float
        Share of the channels that are lost; the others grow so that their sum is kept on average.
    seed : int
        Of the choice.

    Raises
    ------
    ValueError
        If `dropout` is below 0, or 1 or more.
    """
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
    network, generator = copy.deepcopy(network), torch.Generator().manual_seed(seed)
    for block in network.decoder():
        for norm in block.modules():
            if isinstance(norm, NORMS):
                kept = torch.rand(norm.num_features, generator=generator) >= dropout
                factor = kept.to(norm.weight) / (1 - dropout)
                norm.weight.data.mul_(factor)
                norm.bias.data.mul_(factor)
    return network
