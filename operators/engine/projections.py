"""Difference map and RAAR: all frames at once, as references to judge the refinement engine by.

Projections keep the exit wave of every frame (8 bytes a pixel and mode), look at none of them before all
are there, and so are for offline use.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from operators.arrays import (
    Array,
    ArrayModule,
    Corners,
    Mask,
    Object,
    Patterns,
    Positions,
    Probe,
    Waves,
    abs2,
    fft2,
    ifft2,
)
from operators.engine.epie import modulus_correction
from operators.geometry import Bounds, window_corners
from operators.optics.probe import with_power
from operators.patches import add_patches, extract_patches

_CONSISTENT_ROUNDS = 2  # of object and probe in turns; more change little
_UNLIT = 1e-3  # of the peak illumination: keeps pixels that hardly any light has seen near transparent
_VARIANCE = 0.25  # of the square root of Poisson counts, whatever their mean
_TINY = np.float32(1e-12)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionConfig:
    """What projections do.

    Parameters
    ----------
    algorithm : "dm" or "raar"
    beta : float
        Relaxation of RAAR, in (0, 1]; the difference map is taken at 1.
    probe_start : int
        Epochs before the probe is refined as well.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    algorithm: Literal["dm", "raar"] = "dm"
    beta: float = 0.8
    probe_start: int = 2

    def __post_init__(self) -> None:
        if self.algorithm not in ("dm", "raar"):
            raise ValueError(f"projections: expected the algorithm 'dm' or 'raar', got {self.algorithm!r}")
        if not 0 < self.beta <= 1 or self.probe_start < 0:
            raise ValueError(
                f"projections: expected 0 < beta <= 1 and probe_start >= 0, got {self.beta!r} and "
                f"{self.probe_start!r}"
            )


class Projections:
    """Object and probe that agree with all exit waves, which are pulled towards their patterns.

    Parameters
    ----------
    config : ProjectionConfig
    probe : (mode, y, x) complex64
        Start; its power is kept.
    patterns : (frame, ky, kx) float32, photons, corner-origin
    positions_px : (frame, 2) float, absolute object pixels, rounded to whole ones
    mask : (ky, kx) bool, True where valid, corner-origin, optional
    xp : numpy or cupy

    Notes
    -----
    Difference map: Thibault et al., Ultramicroscopy 109, 338 (2009). RAAR: Luke, Inverse Problems 21, 37
    (2005), in the form of Marchesini et al., J. Appl. Cryst. 49, 1245 (2016).
    """

    def __init__(
        self,
        config: ProjectionConfig,
        probe: Probe,
        patterns: Patterns,
        positions_px: Positions,
        *,
        mask: Mask | None = None,
        xp: ArrayModule = np,
    ) -> None:
        self._config, self._xp = config, xp
        corners = window_corners(np.asarray(positions_px))
        self.bounds = Bounds.of_windows(corners, probe.shape[-1])
        self._corners: Corners = corners - self.bounds.origin
        self._amplitudes = xp.asarray(np.sqrt(np.maximum(patterns, 0), dtype=np.float32))
        self._mask = None if mask is None else xp.asarray(mask)
        valid = self._amplitudes if mask is None else self._amplitudes * self._mask
        self._measured = float(abs2(valid).sum(dtype=xp.float64))
        variance = _VARIANCE if config.algorithm == "dm" else 0.0
        self._noise = variance * (valid >= 1).sum(axis=(1, 2)).astype(xp.float32) + _TINY
        self.probe: Probe = xp.array(probe, xp.complex64)
        self._power = float(abs2(self.probe).sum())
        self.object: Object = xp.ones(self.bounds.shape, xp.complex64)
        self._waves = self._model()
        self.history: list[float] = []

    @property
    def illumination(self) -> Array:
        """Photons per object pixel from all frames, (row, col) float32."""
        light = self._xp.zeros(self.bounds.shape, self._xp.float32)
        add_patches(light, abs2(self.probe).sum(axis=0), self._corners)
        return light

    def step(self) -> float:
        """Visit every frame once and return the amplitude error, sum (|F| - sqrt(I))**2 / sum I, before."""
        error, self._waves = self._error(self._model()), self._advanced()
        self.history.append(error)
        return error

    def finish(self) -> None:
        """Leave the object and probe that agree best with waves of the measured modulus."""
        self._make_consistent(self._on_data(self._waves))

    def _advanced(self) -> Waves:
        waves = self._waves
        if self._config.algorithm == "dm":
            self._make_consistent(waves)
            model = self._model()
            return waves + self._on_data(2 * model - waves) - model
        beta, measured = self._config.beta, self._on_data(waves)
        self._make_consistent(waves)
        relaxed = beta * (waves - self._model()) + (1 - 2 * beta) * measured
        self._make_consistent(measured)
        return 2 * beta * self._model() + relaxed

    def _model(self) -> Waves:
        """Return the exit waves of object and probe, (frame, mode, y, x)."""
        patches = extract_patches(self.object, self._corners, self.probe.shape[-1])
        return patches[:, None] * self.probe

    def _on_data(self, waves: Waves) -> Waves:
        """Return the waves with the measured modulus, or only as near to it as its noise lets it be known.

        Noisy data have no common solution. The difference map wanders off where it looks for one; RAAR stays.
        """
        corrections, errors = modulus_correction(fft2(waves), self._amplitudes, self._mask)
        fractions = 1 - self._xp.sqrt(self._noise / self._xp.maximum(errors, self._noise))
        return waves + ifft2(corrections * fractions[:, None, None, None])

    def _error(self, model: Waves) -> float:
        _, errors = modulus_correction(fft2(model), self._amplitudes, self._mask)
        return float(errors.sum(dtype=self._xp.float64)) / self._measured

    def _make_consistent(self, waves: Waves) -> None:
        """Set the object, and the probe once its turn has come, that are closest to all exit waves."""
        refines_probe = len(self.history) >= self._config.probe_start
        for _ in range(_CONSISTENT_ROUNDS if refines_probe else 1):
            self.object = self._closest_object(waves)
            if refines_probe:
                self.probe = with_power(self._closest_probe(waves), self._power)

    def _closest_object(self, waves: Waves) -> Object:
        light = self.illumination
        least = _UNLIT * light.max()
        sums = least * self._xp.ones(self.bounds.shape, self._xp.complex64)
        add_patches(sums, (waves * self.probe.conj()).sum(axis=1), self._corners)
        return sums * (1 / (light + least))

    def _closest_probe(self, waves: Waves) -> Probe:
        patches = extract_patches(self.object, self._corners, self.probe.shape[-1])
        return (waves * patches.conj()[:, None]).sum(axis=0) * (1 / (abs2(patches).sum(axis=0) + _TINY))
