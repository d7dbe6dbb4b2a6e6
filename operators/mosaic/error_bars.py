"""How true error bars are, and what makes them true: a fit before the scan, a dial during it.

The mosaic adds up what is known about its error; a sum of variances is a guess until it was held against
errors. `error_model_fit` does that on simulated objects after a training, a `Dial` on refined ground while a
scan runs.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from operators.arrays import Array, Mask

SIGMAS_95 = 1.96  # of a normal distribution, in which 95 % lie
SHARE_68 = 0.6827

# How far the shares may fall below 68 and 95 % before the error bars are no longer to be believed
LEAST_68, LEAST_95 = 0.55, 0.85
LARGEST_FACTOR = 2.0  # correction beyond which the input is not what the network was trained on
SHOWN = 0.75
"""Of an error is left in the difference from refined ground that began as the picture and shares its errors:
0.3 to 0.9 in sixteen simulated scans of known families, 0.75 where error bars were too short."""
TELLING = 0.7  # of a pixel's sigma: a reference less sure than this does not tell whether sigma is true
LEAST_TELLING = 64  # pixels of a tile
LEAST_ALARMING = 4  # tiles: the pixels of one share what is wrong with it


class Coverage(NamedTuple):
    """Shares of errors that lie within sigma and within 1.96 sigma; 0.683 and 0.950 where sigma is true."""

    within68: float
    within95: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorModel:
    """How much each source of error counts in the variance of a mosaic's phase.

    The defaults take every source as it comes. `operators.mosaic.error_model_fit` finds better ones.

    Parameters
    ----------
    photons : float
        Of 1 / 2N, the photon floor; above 1 for what neighbouring pixels share.
    shared : float
        Of the mean variance that the network gave its patches: of errors common to all of them, which no
        overlap averages away.
    own : float
        Of the variance of the weighted mean, were the patches' errors independent.
    overlap : float
        Of the squared disagreement of the patches on top of each other.
    """

    photons: float = 1.35
    shared: float = 0.6
    own: float = 0.4
    overlap: float = 1.0

    def variance(self, terms: Array) -> Array:
        """Return the phase variance, rad^2, of `terms` (4, ...): photons, shared, own, overlap."""
        weights = np.array([self.photons, self.shared, self.own, self.overlap], terms.dtype)
        return np.tensordot(weights, terms, axes=1)


DEFAULT_ERROR_MODEL = ErrorModel()


def coverage(errors: Array, sigma: Array) -> Coverage:
    """Return which share of the `errors`, of any shape and sign, lies within 1 and 1.96 `sigma`.

    Both are real, of one shape and one unit.

    Raises
    ------
    ValueError
        If there are none.
    """
    ratios = np.abs(errors) / sigma
    if not ratios.size:
        raise ValueError("coverage of no errors: expected at least one")
    return Coverage(float((ratios < 1).mean()), float((ratios < SIGMAS_95).mean()))


def factor_asked_for(errors: Array, sigma: Array) -> float:
    """Return the factor by which sigma must grow for its bands to hold as many errors as they should.

    The geometric mean of what 68.3 % within sigma and 95 % within 1.96 sigma ask for: errors have longer
    tails than a normal, so no one factor gives both exactly.

    Parameters
    ----------
    errors, sigma : (n,) float, rad
        Errors of either sign.
    """
    within, far = np.quantile(np.abs(errors) / sigma, (SHARE_68, 0.95))
    return float(np.sqrt(within * far / SIGMAS_95))


def tile_errors(picture: Array, reference: Array, photons: Array, known: Mask) -> Array:
    """Return the phase errors of a tile's `known` pixels, (n,) float32, rad, without the tile's offset.

    The phase of a piece of the picture is known to the rest of it only as well as patches agree, which error
    bars of single pixels do not and cannot tell.

    Parameters
    ----------
    picture, reference : (row, col) complex64
    photons : (row, col) float32
        Weights of the common phase that is removed.
    known : (row, col) bool
    """
    product = (picture * reference.conj())[known]
    offset = np.vdot(photons[known], product)
    return np.angle(product * np.conj(offset)).astype(np.float32)


class Dial:
    """Watches on refined ground whether error bars are true, and what factor would make them so.

    A tile counts once: for the coverage with the factor as it was before, hence as published, and then for
    the factor. Older tiles are forgotten slowly, so that the dial follows a sample that changes. Where the
    reference is hardly surer than the picture nothing is said.

    Error bars only grow: ground that began as the picture shares its errors, how many of them varies, and
    small differences do not show that the bars are too long. Differences count for `SHOWN` of an error.

    Parameters
    ----------
    memory : float
        Tiles after which what a tile said counts 1 / e.
    """

    _EDGES = np.linspace(math.log(0.02), math.log(50), 200)

    def __init__(self, memory: float = 100.0) -> None:
        self.n_tiles = 0
        self._keep = math.exp(-1 / memory)
        self._counts = np.zeros((2, len(self._EDGES) + 1))  # of the factors that pixels ask for, by logarithm
        self._within = np.zeros(3)  # 68, 95, all

    @property
    def coverage(self) -> Coverage | None:
        """How true what was published has turned out, None before the first tile."""
        if not self.n_tiles:
            return None
        return Coverage(*(float(n / self._within[2]) for n in self._within[:2]))

    @property
    def factor(self) -> float:
        """What sigma has to be multiplied by, at least 1."""
        if not self.n_tiles:
            return 1.0
        logarithms = [self._quantile(*which) for which in zip(self._counts, (SHARE_68, 0.95), strict=True)]
        return max(math.exp(sum(logarithms) / 2), 1.0)

    @property
    def alarm(self) -> str:
        """Why error bars are not to be believed, "" if they are."""
        found = self.coverage
        if found is None or self.n_tiles < LEAST_ALARMING:
            return ""
        for name, share, low in (("68", found.within68, LEAST_68), ("95", found.within95, LEAST_95)):
            if share < low:
                return (
                    f"{name} % bands hold {100 * share:.0f} % of the differences from refined ground: "
                    "the sample is not what the network was trained on"
                )
        if self.factor > LARGEST_FACTOR:
            return (
                f"error bars had to be scaled by {self.factor:.2g} to be true: "
                "the sample is not what the network was trained on"
            )
        return ""

    def add(self, errors: Array, sigma: Array, reference_sigma: Array) -> None:
        """Take the pixels of one tile.

        Parameters
        ----------
        errors : (n,) float, rad
            Differences from the reference, common offset removed (`tile_errors`).
        sigma : (n,) float, rad
            Of the picture, before any factor.
        reference_sigma : (n,) float, rad
            The reference's own error, which is taken off before anything is said of the picture.
        """
        tells = reference_sigma < TELLING * sigma
        if np.count_nonzero(tells) < LEAST_TELLING:
            return
        errors, sigma, reference_sigma = errors[tells], sigma[tells], reference_sigma[tells]
        asked = np.stack(
            [
                np.sqrt(np.maximum((errors / n_sigmas) ** 2 - reference_sigma**2, 0)) / (SHOWN * sigma)
                for n_sigmas in (1, SIGMAS_95)
            ]
        )
        within = np.count_nonzero(asked < self.factor, axis=1)
        # Each tile weighs the same, however much of it is known: neighbouring pixels tell the same story.
        self._within = self._keep * self._within + np.array([*within, len(errors)]) / len(errors)
        bins = np.searchsorted(self._EDGES, np.log(np.maximum(asked, 1e-12)))
        for counts, which in zip(self._counts, bins, strict=True):
            counts *= self._keep
            counts += np.bincount(which, minlength=len(counts)) / len(errors)
        self.n_tiles += 1

    def _quantile(self, counts: Array, share: float) -> float:
        cumulated = np.cumsum(counts)
        return float(np.interp(share * cumulated[-1], cumulated[:-1], self._EDGES))
