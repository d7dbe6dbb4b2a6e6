"""Whether frames predict their neighbours under a class of orientation: a short reconstruction of each."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from operators.arrays import Mask, Patterns, Positions, Probe
from operators.engine.backends import Update
from operators.engine.config import RefinerConfig, closing_fraction
from operators.engine.probe_search import CurvatureSearch, Trial
from operators.engine.refiner import Refiner
from operators.optics.probe import curvature_of_disc, defocused, pupil_radius_px, strongest_mode
from operators.orientation.turn import CLASSES, Turn

_FIRST = Trial(56, 8, RefinerConfig(probe_step=0))
_FINAL = Trial(108, 12, RefinerConfig(probe_start=4))
_N_FINALISTS = 2
_COARSE = 2  # of the curvatures every second: they are apart by a third
_EPOCHS = 25  # of the reconstruction whose absorption is looked at
_LIT = 0.1  # of the peak illumination

OnStep = Callable[[int, int], None]  # how many of the trials are done, and of how many


class ClassTrial(NamedTuple):
    """What became of one class on some ground.

    Attributes
    ----------
    curvature : float, rad per squared frequency step, of the probe that predicts best
    unexplained : float
        Amplitude error on frames held out over that of their mean, both less noise: 0 is perfect, 1 and more
        predict nothing.
    """

    curvature: float
    unexplained: float


def try_classes(
    patterns: Patterns,
    positions_px: Positions,
    mask: Mask | None,
    run_update: Update,
    on_step: OnStep = lambda step, n_steps: None,
) -> Mapping[Turn, ClassTrial]:
    """Return how well frames are predicted under each of `CLASSES`, each with the curvature that suits it.

    Parameters
    ----------
    patterns : (frame, ky, kx) float32, photons, corner-origin
    positions_px : (frame, 2) float64, object pixels, (y, x) as recorded
    mask : (ky, kx) bool, True where valid
    run_update : callable, see `Refiner`
    on_step : callable

    Raises
    ------
    ValueError
        If the frames differ by photon noise alone.
    """
    return {
        turn: _tried(CurvatureSearch(patterns, turn(positions_px), mask, run_update), index, on_step)
        for index, turn in enumerate(CLASSES)
    }


def _tried(search: CurvatureSearch, index: int, on_step: OnStep) -> ClassTrial:
    curvatures = search.curvatures()[::_COARSE]
    n_steps = len(curvatures) + _N_FINALISTS
    errors = []
    for step, curvature in enumerate(curvatures):
        on_step(index * n_steps + step, len(CLASSES) * n_steps)
        errors.append(search.error(curvature, _FIRST))
    finalists = [float(curvatures[best]) for best in np.argsort(errors)[:_N_FINALISTS]]
    found = [ClassTrial(curvature, search.error(curvature, _FINAL)) for curvature in finalists]
    return min(found, key=lambda trial: trial.unexplained)


def reconstructed(
    patterns: Patterns,
    positions_px: Positions,
    probe: Probe,
    mask: Mask | None,
    run_update: Update,
) -> tuple[Probe, float]:
    """Return the probe after a longer reconstruction, and how phase and absorption of the object agree.

    That is the correlation of phase and log amplitude where it is lit, -1 to 1. A sample delays the phase
    where it absorbs, which makes both smaller: the sign tells an object from its conjugate. About 0 where it
    does not absorb, or independently.

    Parameters
    ----------
    patterns, positions_px, mask, run_update
        As for `try_classes`; the positions are those of the probe.
    probe : (mode, y, x) complex64
        Start.
    """
    refiner = Refiner(RefinerConfig(), probe, mask=mask, run_update=run_update)
    refiner.append(range(len(patterns)), patterns, positions_px)
    while refiner.epoch < _EPOCHS:
        refiner.step(fraction=closing_fraction(refiner.epoch, _EPOCHS))
    found = refiner.snapshot()
    lit = found.object[found.illumination > _LIT * found.illumination.max()]
    phase, depth = np.angle(lit * lit.mean().conj()), np.log(np.maximum(np.abs(lit), 1e-6))
    is_told = phase.std() > 0 and depth.std() > 0
    return found.probe, float(np.corrcoef(phase, depth)[0, 1]) if is_told else 0.0


def probe_curvature(probe: Probe, mean_pattern: NDArray[np.float64]) -> float:
    """Return the curvature of a known probe's far field, 0 where it is in focus or none is found.

    That which, taken away, makes the sharpest focus.

    Parameters
    ----------
    probe : (mode, y, x) complex64
    mean_pattern : (ky, kx) float, photons, corner-origin, of any size
    """
    mode = strongest_mode(probe)[None]
    n_pixels = mode.shape[-1]
    largest = curvature_of_disc(n_pixels / 2, pupil_radius_px(mean_pattern), n_pixels)
    curvatures = np.linspace(-largest, largest, 201)
    sharpness = [float((np.abs(defocused(mode, -curvature)) ** 4).sum()) for curvature in curvatures]
    return float(curvatures[int(np.argmax(sharpness))])
