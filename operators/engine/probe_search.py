"""A probe from diffraction patterns alone, when the beamline has none to offer.

The mean pattern gives the modulus of the probe's far field, its curvature is found by trying.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from operators.arrays import Mask, Patterns, Positions, Probe
from operators.engine.backends import Update
from operators.engine.config import RefinerConfig, closing_fraction
from operators.engine.epie import update
from operators.engine.refiner import Refiner
from operators.geometry import window_corners
from operators.metrics.errors import amplitude_error
from operators.optics.forward import noise_residual
from operators.optics.probe import (
    curvature_of_disc,
    defocused,
    probe_from_mean,
    probe_modes,
    pupil_radius_px,
    strongest_mode,
    with_power,
)

logger = logging.getLogger(__name__)

# radius of the defocused disc over the window; a larger one would wrap around
_DISC_FRACTIONS = np.geomspace(0.04, 0.4, 15)
_DISC_CHANGES = np.geomspace(0.01, 0.25, 8)  # the same for what a guess may be wrong by
_MIN_FRAMES = 24
BURST_EPOCHS = 40.0

OnStep = Callable[[int, int], None]  # how many steps of a search are done, and of how many
_HELD_OUT = slice(0, 16, 2)  # of the frames nearest to the middle: others surround each of them
_LEAST_OVER_NOISE = 1.1  # 1.0 to 1.05 without a sample
_N_FINALISTS = 4
_REFINING = np.array([0.86, 0.93, 1.07, 1.16])  # steps finer than between the first candidates


@dataclass(frozen=True, slots=True)
class Trial:
    """How much refinement a candidate gets: frames nearest to the middle of the scan, epochs, and how."""

    n_frames: int
    n_epochs: int
    config: RefinerConfig


def estimate_probe(
    patterns: Patterns,
    positions_px: Positions,
    *,
    n_modes: int = 1,
    mask: Mask | None = None,
    max_relative_error: float = 0.8,
    seed: int = 0,
    guess: Probe | None = None,
    run_update: Update = update,
    on_step: OnStep = lambda step, n_steps: None,
) -> np.ndarray:
    """Return a starting probe: the modulus of the mean pattern, and the curvature that predicts frames best.

    Parameters
    ----------
    patterns : (frame, ky, kx) float32, photons, corner-origin
        Their mean is used, and the hundred in the middle of the scan.
    positions_px : (frame, 2) float, object pixels, (y, x)
    n_modes : int, of the result; the search itself uses one
    mask : (ky, kx) bool, True where valid, optional
    max_relative_error : float
        Amplitude error that the best may leave on frames held out over that of their mean, less photon noise.
    seed : int, of the short refinements
    guess : (mode, y, x) complex64, optional
        A probe of which only the defocus is wrong: its strongest mode is tried further along the beam.
    run_update : callable, see `Refiner`; works on NumPy arrays
    on_step : callable, told how many curvatures have been tried, and the most that will be

    Returns
    -------
    (mode, y, x) complex64, of as many photons as a frame has on average

    Raises
    ------
    ValueError
        If frames are too few, differ by photon noise alone, or no curvature predicts them well enough.

    Notes
    -----
    Curvatures of both signs are tried, from an almost focused probe to one whose defocused disc fills the
    window. Each is refined for a few epochs and judged by frames it has not seen, which a wrong curvature
    predicts worse than their mean does. So do wrong positions, save those negated on both axes: they predict
    as well, with the conjugate, turned object and probe. Only knowing probe or object tells the two apart.
    """
    if len(patterns) < _MIN_FRAMES:
        raise ValueError(
            f"a probe from data needs at least {_MIN_FRAMES} overlapping frames, got {len(patterns)}; "
            "give a probe, or wait for more frames"
        )
    search = CurvatureSearch(patterns, np.asarray(positions_px, np.float64), mask, run_update, guess, on_step)
    curvature, error = search.best(seed)
    logger.info("probe from data: curvature %.4g, error %.2f of the mean pattern's", curvature, error)
    if not error <= max_relative_error:
        raise ValueError(
            "no curvature of the probe explains the data: the best predicts frames with "
            f"{error:.2f} times the error of their mean, accepted are {max_relative_error:g}; "
            "check unit, signs and axes of the positions and their overlap, or give a probe"
        )
    return probe_modes(search.probe(curvature), n_modes)


def probe_from_burst(
    patterns: Patterns,
    positions_px: Positions,
    *,
    photons: float | None = None,
    transmission: float = 1.0,
    guess: Probe | None = None,
    n_modes: int = 1,
    mask: Mask | None = None,
    n_epochs: float = BURST_EPOCHS,
    run_update: Update = update,
    on_step: OnStep = lambda step, n_steps: None,
) -> np.ndarray:
    """Return the probe of a scan from its first frames, good enough for a network that was told a known one.

    `estimate_probe`, then some epochs of refinement on these frames, which sharpen what the sample has
    blurred in the mean pattern.

    Parameters
    ----------
    patterns, positions_px, guess, n_modes, mask, run_update
        As for `estimate_probe`.
    photons : float, optional
        Mean incident photons per frame, where they are known.
    transmission : float
        Otherwise the share of the light that the sample lets through. Frames alone cannot tell an absorbing
        sample from a weaker beam, and a network that was trained on incident photons needs to know.
    n_epochs : float
    on_step : callable
        Told how many curvatures and epochs are done, and the most that will be.

    Returns
    -------
    (mode, y, x) complex64
        Sum of |P|^2 is `photons`, or the mean photons per frame over `transmission`.
    """
    n_trials = 0

    def on_trial(step: int, n_steps: int) -> None:
        nonlocal n_trials
        n_trials = n_steps
        on_step(step, n_steps + int(n_epochs))

    start = estimate_probe(
        patterns,
        positions_px,
        n_modes=n_modes,
        mask=mask,
        guess=guess,
        run_update=run_update,
        on_step=on_trial,
    )
    refiner = Refiner(RefinerConfig(), start, mask=mask, run_update=run_update)
    refiner.append(range(len(patterns)), patterns, positions_px)
    while refiner.epoch < n_epochs:
        on_step(n_trials + int(refiner.epoch), n_trials + int(n_epochs))
        refiner.step(fraction=closing_fraction(refiner.epoch, n_epochs))
    return with_power(refiner.snapshot().probe, photons or refiner.mean_photons / transmission)


class CurvatureSearch:
    """Frames to try curvatures of a probe on; takes and raises what `estimate_probe` does."""

    def __init__(
        self,
        patterns: Patterns,
        positions_px: np.ndarray,
        mask: Mask | None,
        run_update: Update = update,
        guess: Probe | None = None,
        on_step: OnStep = lambda step, n_steps: None,
    ) -> None:
        self._on_step, self._n_tried = on_step, 0
        self._patterns = patterns
        self._positions_px = positions_px
        self._mask = mask
        self._run_update = run_update
        self.mean: np.ndarray = patterns.mean(axis=0, dtype=np.float64)
        self._guess = None if guess is None else _strongest(guess, float(self.mean.sum()))
        distance = ((positions_px - np.median(positions_px, axis=0)) ** 2).sum(axis=1)
        self._nearest = np.argsort(distance, kind="stable")
        self._held_out = self._nearest[_HELD_OUT]
        self._error_of_mean, self._noise = self._misfit_of_mean()
        if not self._error_of_mean > _LEAST_OVER_NOISE * self._noise:
            raise ValueError(
                "a probe from data needs frames that differ by more than photon noise: these differ from "
                f"their mean by {self._error_of_mean:.3g} of their photons, of which noise is "
                f"{self._noise:.3g}; scan where the sample is, expose longer, or give a probe"
            )

    def best(self, seed: int) -> tuple[float, float]:
        """Return the curvature that predicts best and its error."""
        first = Trial(56, 8, RefinerConfig(probe_step=0, seed=seed))
        final = Trial(108, 12, RefinerConfig(probe_start=4, seed=seed))
        curvatures = self.curvatures()
        finalists = _lowest_minima(curvatures, [self.error(c, first) for c in curvatures])
        errors = {float(c): self.error(c, final) for c in finalists}
        nearly = min(errors, key=errors.__getitem__)
        errors |= {float(c): self.error(float(c), final) for c in nearly * _REFINING}
        best = min(errors, key=errors.__getitem__)
        return best, errors[best]

    def curvatures(self) -> np.ndarray:
        """Return the curvatures to try, ascending, both signs."""
        n_pixels = self.mean.shape[-1]
        one_pixel = curvature_of_disc(1.0, pupil_radius_px(self.mean), n_pixels)
        positive = one_pixel * n_pixels * (_DISC_FRACTIONS if self._guess is None else _DISC_CHANGES)
        unchanged = [] if self._guess is None else [0.0]
        return np.concatenate([-positive[::-1], unchanged, positive])

    def probe(self, curvature: float) -> np.ndarray:
        """Return the candidate (y, x) of this curvature, of the mean pattern's photons."""
        if self._guess is None:
            return probe_from_mean(self.mean, curvature)
        return defocused(self._guess, curvature)

    def error(self, curvature: float, trial: Trial) -> float:
        """Return the amplitude error on held-out frames over that of the mean pattern, both less noise.

        Noise is most of what frames of a faint sample differ by, and no probe predicts it.
        """
        self._on_step(self._n_tried, len(self.curvatures()) + _N_FINALISTS + len(_REFINING))
        self._n_tried += 1
        seen = np.setdiff1d(self._nearest[: trial.n_frames], self._held_out)
        probe = self.probe(curvature)[None]
        refiner = Refiner(trial.config, probe, mask=self._mask, run_update=self._run_update)
        refiner.append(seen.tolist(), self._patterns[seen], self._positions_px[seen])
        while refiner.epoch < trial.n_epochs:
            refiner.step()
        snapshot = refiner.snapshot()
        n_pixels = self.mean.shape[-1]
        # transparent margin: a held-out window may reach a little beyond those refined
        object_ = np.pad(snapshot.object, n_pixels, constant_values=1)
        corners = window_corners(self._positions_px[self._held_out]) - snapshot.bounds.origin + n_pixels
        held_out = self._patterns[self._held_out]
        error = amplitude_error(held_out, object_, snapshot.probe, corners, self._mask)
        return (error - self._noise) / (self._error_of_mean - self._noise)

    def _misfit_of_mean(self) -> tuple[float, float]:
        """Return the amplitude error of the mean on held-out frames, and what of it is photon noise."""
        valid = np.ones(self.mean.shape, bool) if self._mask is None else self._mask
        held_out = np.maximum(self._patterns[self._held_out][:, valid], 0)
        missing = np.sqrt(held_out) - np.sqrt(np.maximum(self.mean[valid], 0))
        noise, photons = noise_residual(self._patterns[self._held_out], self._mask).sum(), held_out.sum()
        return float((missing**2).sum() / photons), float(noise / photons)


def _strongest(probe: Probe, photons: float) -> np.ndarray:
    return with_power(strongest_mode(probe), photons)


def _lowest_minima(curvatures: np.ndarray, errors: Sequence[float]) -> np.ndarray:
    """Return the curvatures of the lowest local minima: neighbours of a minimum would tell nothing new."""
    padded = np.concatenate([[np.inf], errors, [np.inf]])
    minima = np.flatnonzero((padded[1:-1] <= padded[:-2]) & (padded[1:-1] <= padded[2:]))
    return curvatures[minima[np.argsort(np.asarray(errors)[minima])][:_N_FINALISTS]]
