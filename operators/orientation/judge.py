"""How positions lie on the frames of a scan, with what confidence, and what the frames leave open."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from operators.arrays import Mask, Patterns, Positions, Probe
from operators.engine.backends import Update
from operators.engine.epie import update
from operators.engine.tiling import partition
from operators.geometry import Geometry
from operators.optics.probe import curvature_of_disc, probe_from_mean, pupil_radius_px
from operators.orientation.deflection import deflections, log_evidence
from operators.orientation.trials import (
    ClassTrial,
    OnStep,
    probe_curvature,
    reconstructed,
    try_classes,
)
from operators.orientation.turn import CLASSES, Turn

LEAST_FRAMES = 32
CERTAIN = 0.9  # confidence above which what was found can be used
_FRAMES_OF_GROUND, _MOST_GROUNDS = 120, 3
# Chosen on simulated samples and noise, so that what is said with a confidence holds that often.
_TEMPER = 4.0  # of log evidence: neighbouring deflections are not as independent as it has them
_WORTH = 8.0  # of all that a class predicts, in units of log odds
_LEAST_EXPLAINED = 0.9  # still unexplained, above which what was found says nothing of the probe
_LEAST_AGREEMENT = 0.25  # of phase and absorption
_LEAST_DISC_PX = 1.0  # of a known probe, below which it is in focus

SignSource = Literal["probe", "absorption", "recorded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Orientation:
    """How positions lie on the frames.

    Attributes
    ----------
    turn : Turn
        What recorded positions need to become those of the probe along rows and columns of the frames.
    confidence : float
        0 to 1, that its class is right; 0.25 is no idea.
    confidences : mapping
        Of each of `CLASSES`; they sum up to 1.
    unexplained : mapping
        By class, amplitude error on frames held out over that of their mean, averaged over the grounds; 1 and
        more predict nothing. Empty where frames differ by noise alone.
    sign_from : str
        What chose between the turn and its negative: the defocus of the known "probe", the "absorption" of
        the sample, or nothing, and it is as "recorded".
    curvature : float or None
        Of the probe found, rad per squared frequency step; None where none predicts the frames.
    n_frames : int
        Frames looked at.
    """

    turn: Turn
    confidence: float
    confidences: Mapping[Turn, float]
    unexplained: Mapping[Turn, float]
    sign_from: SignSource
    curvature: float | None
    n_frames: int

    @property
    def is_certain(self) -> bool:
        """Whether it can be used."""
        return self.confidence >= CERTAIN

    def defocus_m(self, geometry: Geometry) -> float | None:
        """Return the distance of the sample from the focus, metres, never negative; None if not known."""
        if self.curvature is None:
            return None
        window_m = geometry.n_pixels * geometry.object_pixel_m
        return abs(self.curvature) * window_m**2 / (np.pi * geometry.wavelength_m)


def find_orientation(
    patterns: Patterns,
    positions_px: Positions,
    *,
    mask: Mask | None = None,
    probe: Probe | None = None,
    run_update: Update = update,
    on_step: OnStep = lambda step, n_steps: None,
) -> Orientation:
    """Return how positions lie on frames.

    Parameters
    ----------
    patterns : (frame, ky, kx) float32, photons, corner-origin
        Of overlapping frames, in the order in which they were taken.
    positions_px : (frame, 2) float64, object pixels, (y, x)
        As recorded.
    mask : (ky, kx) bool, True where valid, optional
    probe : (mode, y, x) complex64, optional
        A known one, of any size: the sign of its defocus tells positions from their negatives. Whether it is
        turned or mirrored as the frames are does not matter.
    run_update : callable, see `operators.engine.refiner.Refiner`; works on NumPy arrays
    on_step : callable, told how many short reconstructions are done, and of how many

    Raises
    ------
    ValueError
        If there are fewer frames than `LEAST_FRAMES`.

    Notes
    -----
    Two kinds of evidence, on grounds that share no frame: whether the deflection of the beam is a gradient
    over the sample (`deflection`), and whether short reconstructions predict frames held out (`trials`).
    """
    if len(patterns) < LEAST_FRAMES:
        raise ValueError(f"an orientation needs at least {LEAST_FRAMES} frames, got {len(patterns)}")
    positions_px = np.asarray(positions_px, np.float64)
    grounds = partition(positions_px, min(_MOST_GROUNDS, max(1, len(patterns) // _FRAMES_OF_GROUND)))
    weighed = _deflected(deflections(patterns, mask), positions_px, grounds) / _TEMPER
    trials = _Trials(patterns, positions_px, grounds, mask, run_update, on_step)
    if trials.grounds:
        weighed += _WORTH * (1 - np.clip(trials.unexplained, 0, 1)).sum(axis=0)
    confidences = dict(zip(CLASSES, softmax(weighed).tolist(), strict=True))
    kind = max(confidences, key=confidences.__getitem__)
    turn, source, curvature = trials.signed(kind, probe)
    return Orientation(
        turn=turn,
        confidence=confidences[kind],
        confidences=confidences,
        unexplained=dict(zip(CLASSES, trials.unexplained.mean(axis=0).tolist(), strict=True))
        if trials.grounds
        else {},
        sign_from=source,
        curvature=curvature,
        n_frames=len(patterns),
    )


def _deflected(
    deflected: NDArray[np.float64], positions_px: Positions, grounds: Sequence[NDArray[np.int64]]
) -> NDArray[np.float64]:
    """Return the log evidence of deflections over all grounds, (class,) float64."""
    some = [ground[:_FRAMES_OF_GROUND] for ground in grounds]
    found = [log_evidence(deflected[part], positions_px[part]) for part in some]
    return np.sum([[each[turn] for turn in CLASSES] for each in found], axis=0)


class _Trials:
    """Short reconstructions of all classes on several grounds; without those that differ by noise alone."""

    def __init__(
        self,
        patterns: Patterns,
        positions_px: Positions,
        grounds: Sequence[NDArray[np.int64]],
        mask: Mask | None,
        run_update: Update,
        on_step: OnStep,
    ) -> None:
        self._patterns, self._positions_px = patterns, positions_px
        self._mask, self._run_update = mask, run_update
        self.grounds: list[NDArray[np.int64]] = []
        self._found: list[Mapping[Turn, ClassTrial]] = []
        for index, ground in enumerate(grounds):

            def told(step: int, n_steps: int, before: int = index) -> None:
                on_step(before * n_steps + step, len(grounds) * n_steps)

            with suppress(ValueError):  # they differ by noise alone
                tried = try_classes(patterns[ground], positions_px[ground], mask, run_update, told)
                self._found.append(tried)
                self.grounds.append(ground)

    @property
    def unexplained(self) -> NDArray[np.float64]:
        """(ground, class) float64."""
        return np.array([[tried[turn].unexplained for turn in CLASSES] for tried in self._found])

    def signed(self, kind: Turn, probe: Probe | None) -> tuple[Turn, SignSource, float | None]:
        """Return the turn of a class or its negative, what chose between them, and the probe's curvature."""
        of_kind = self.unexplained[:, CLASSES.index(kind)] if self.grounds else np.ones(1)
        best = int(of_kind.argmin())
        if of_kind[best] > _LEAST_EXPLAINED:
            return kind, "recorded", None
        ground = self.grounds[best]
        patterns, positions_px = self._patterns[ground], kind(self._positions_px[ground])
        mean = patterns.mean(axis=0, dtype=np.float64)
        start = probe_from_mean(mean, self._found[best][kind].curvature)[None]
        found, agreement = reconstructed(patterns, positions_px, start, self._mask, self._run_update)
        curvature = probe_curvature(found, mean)
        known = 0.0 if probe is None else probe_curvature(probe, mean)
        one_pixel = curvature_of_disc(1.0, pupil_radius_px(mean), mean.shape[-1])
        if min(abs(known), abs(curvature)) > _LEAST_DISC_PX * one_pixel:
            source: SignSource = "probe"
            is_kind = known * curvature > 0
        elif abs(agreement) > _LEAST_AGREEMENT:
            source, is_kind = "absorption", agreement > 0
        else:
            return kind, "recorded", curvature
        return (kind, source, curvature) if is_kind else (kind.negated, source, -curvature)
