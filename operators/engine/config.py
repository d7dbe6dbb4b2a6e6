"""What a refinement is told and what it tells: configuration, snapshot and the closing of a run."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from operators.geometry import Bounds

CLOSING = 0.3  # of a run's epochs
_FEW_FRAMES, _VISITS_OF_FEW = 60, 8
_LAST_FRACTION = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class RefinerConfig:
    """What refinement does with its frames.

    Parameters
    ----------
    algorithm : "epie" or "rpie"
    object_step, probe_step : float
        Steps, in (0, 1]; `probe_step` 0 holds the probe.
    alpha : float
        Regularisation of rPIE at the first visit, in (0, 1]; ePIE does not read it.
    probe_start : int
        Visits of a frame before it takes part in refining the probe: a frame first has to be explained by
        the object.
    anneal_visits : float
        Visits of the frames after which rPIE has gone half the way to ePIE. Low `alpha` converges fast and
        then follows the noise of every frame; a growing one keeps the first and avoids the second.
    batch_size : int
        Frames per update.
    noise : "gaussian" or "poisson"
        Of the amplitudes. Poisson is better at about one photon a pixel and fewer, gaussian converges faster
        at ten and more.
    subpixel : bool
        Whether probes are shifted to the fraction of a pixel; costs about twice the time.
    refines_positions : bool
        Whether positions are refined as well, which needs `subpixel` and implies it. Errors of 3 pixels rms
        come down to less than one; a scan with good positions is better off without.
    positions_start : int
        Visits of a frame before its position moves.
    levels : bool
        Whether slow variations of phase, which iterations hardly see, are taken from the centroids of the
        patterns as a scan closes (operators.engine.levelling).
    seed : int
        Of the visiting order.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    algorithm: Literal["epie", "rpie"] = "rpie"
    object_step: float = 1.0
    probe_step: float = 1.0
    alpha: float = 0.05
    probe_start: int = 1
    anneal_visits: float = 20.0
    batch_size: int = 16
    noise: Literal["gaussian", "poisson"] = "gaussian"
    subpixel: bool = False
    refines_positions: bool = False
    positions_start: int = 3
    levels: bool = True
    seed: int = 0

    def alpha_after(self, n_visits: float) -> float:
        """Return the regularisation of frames visited so often: from `alpha` towards 1, which is ePIE."""
        start = self.alpha if self.algorithm == "rpie" else 1.0
        return 1 - (1 - start) / (1 + n_visits / self.anneal_visits)

    def probe_start_of(self, n_frames: int) -> int:
        """Return the visits before a frame takes part in refining the probe, while so many are held.

        A few frames do not tell probe from object: fitted to them, a wrong probe becomes another wrong one
        that all later frames have to undo.
        """
        return self.probe_start if n_frames >= _FEW_FRAMES else max(self.probe_start, _VISITS_OF_FEW)

    @property
    def shifts_probe(self) -> bool:
        """Whether probes are shifted to fractions of a pixel."""
        return self.subpixel or self.refines_positions

    def __post_init__(self) -> None:
        if self.algorithm not in ("epie", "rpie"):
            raise ValueError(f"refinement: expected the algorithm 'epie' or 'rpie', got {self.algorithm!r}")
        if self.noise not in ("gaussian", "poisson"):
            raise ValueError(f"refinement: expected the noise 'gaussian' or 'poisson', got {self.noise!r}")
        for name, low, high in (
            ("object_step", 0, 1),
            ("alpha", 0, 1),
            ("anneal_visits", 0, math.inf),
        ):
            if not low < getattr(self, name) <= high:
                raise ValueError(
                    f"refinement: expected {low} < {name} <= {high}, got {getattr(self, name)!r}"
                )
        if not 0 <= self.probe_step <= 1 or self.batch_size < 1:
            raise ValueError(
                "refinement: expected 0 <= probe_step <= 1 and batch_size >= 1, got "
                f"{self.probe_step!r} and {self.batch_size!r}"
            )
        if self.probe_start < 0 or self.positions_start < 0:
            raise ValueError(
                "refinement: expected probe_start >= 0 and positions_start >= 0, got "
                f"{self.probe_start!r} and {self.positions_start!r}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RefinerSnapshot:
    """What refinement knows at one moment, on the host.

    Parameters
    ----------
    object : (row, col) complex64
    bounds : Bounds
        Absolute pixels that `object` covers: the windows of all frames held.
    probe : (mode, y, x) complex64, orthogonal modes, strongest first
    illumination : (row, col) float32, photons per object pixel from all frames visited
    n_frames, n_updates : int
        Frames held; frame updates run.
    error : float
        Amplitude error sum (|F| - sqrt(I))**2 / sum I over the frames visited, each as of its last visit;
        NaN before the first.
    error_history : tuple of float
        The same at the end of every epoch.
    n_divergences : int
        Times the engine went back to its last good state and halved its steps.
    """

    object: np.ndarray
    bounds: Bounds
    probe: np.ndarray
    illumination: np.ndarray
    n_frames: int
    n_updates: int
    error: float
    error_history: tuple[float, ...]
    n_divergences: int

    @property
    def epoch(self) -> float:
        """Updates per frame held."""
        return self.n_updates / self.n_frames

    @property
    def is_finite(self) -> bool:
        """Whether object and probe hold only finite values."""
        return bool(np.isfinite(self.object).all() and np.isfinite(self.probe).all())


def closing_fraction(epoch: float, n_epochs: float) -> float:
    """Return the fraction of a full step at `epoch` of `n_epochs`: 1, then falling over the last third.

    With full steps to the end, the object keeps following the batch it saw last. Falling steps average that
    away, and two runs that saw the same frames in another order end at the same object.
    """
    return min(1.0, max(_LAST_FRACTION, (n_epochs - epoch) / (CLOSING * n_epochs)))
