"""What a refinement is told and what it tells: configuration, snapshot and the closing of a run."""

import math
from dataclasses import dataclass, field, fields
from typing import Annotated, Literal, NamedTuple, TypeAlias

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from operators.geometry import Bounds
from operators.section import Fraction, Section

BackendName: TypeAlias = Literal["auto", "numpy", "compiled", "cupy", "cupy-fused"]
CLOSING = 0.3  # of a run's epochs
_FEW_FRAMES, _VISITS_OF_FEW = 60, 8
_LAST_FRACTION = 0.02
_VISITS_TO_DOUBLE = 15.0  # the step of an object that began near to the truth
_EPOCHS_TO_HALVE = 4.0  # that step, once all frames are there


class RefinerConfig(Section):
    """What refinement does with its frames.

    A value out of its range raises `pydantic.ValidationError`, a `ValueError` that names the setting.
    """

    # Maiden & Rodenburg, Ultramicroscopy 109, 1256 (2009); Maiden, Johnson & Li, Optica 4, 736 (2017).
    algorithm: Literal["epie", "rpie"] = "rpie"
    """extended ptychographic iterative engine, or its regularised successor"""
    object_step: Fraction = 1.0
    """step of the object, 0 to 1"""
    probe_step: Annotated[float, Field(ge=0, le=1)] = 1.0
    """step of the probe, 0 to 1; 0 holds it"""
    # Low `alpha` converges fast and then follows the noise of every frame; a growing one keeps the first and
    # avoids the second.
    alpha: Fraction = 0.05
    """regularisation of rpie at the first visit, 0 to 1; epie does not read it"""
    # A frame first has to be explained by the object.
    probe_start: NonNegativeInt = 1
    """visits of a frame before it takes part in refining the probe"""
    anneal_visits: PositiveFloat = 20.0
    """visits of the frames after which rpie has gone half the way to epie"""
    batch_size: PositiveInt = 16
    """frames per update"""
    # Poisson is better at about one photon a pixel and fewer, gaussian converges faster at ten and more.
    noise: Literal["gaussian", "poisson"] = "gaussian"
    """how far a pixel is trusted; poisson is better for patterns of few photons"""
    subpixel: bool = False
    """whether the probe is shifted by fractions of a pixel; costs about twice the time"""
    # Errors of 3 pixels rms come down to less than one; a scan with good positions is better off without.
    refines_positions: bool = False
    """whether positions are refined as well; implies subpixel"""
    positions_start: NonNegativeInt = 3
    """visits of a frame before its position moves"""
    fits_flux: bool = False
    """whether each frame has a flux of its own, found from its counts; for a beam that varies"""
    # Iterations hardly see slow variations (operators.engine.levelling).
    levels: bool = True
    """whether slow variations of phase are taken from how far patterns have moved as a scan closes; not where
    positions are refined"""
    seed: NonNegativeInt = 0
    """of the order in which frames are visited"""

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


class ComputeConfig(Section):
    """How long a reconstruction refines, and on what."""

    # The last third of them takes smaller and smaller steps.
    epochs: PositiveFloat = 40.0
    """visits per frame after which the object is done; the last frames get a quarter of them in any case, and
    at least one"""
    device: BackendName = "auto"
    """what runs an update; auto is CuPy where it sees a device, or compiled loops, or NumPy"""
    threads: PositiveInt = 1
    """cores the refinement may use"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefinerState:
    """What refinement knows at one moment beside the object itself, on the host.

    Parameters
    ----------
    bounds : Bounds
        Absolute pixels of the object: the windows of all frames held.
    probe : (mode, y, x) complex64, orthogonal modes, strongest first
    n_frames, n_updates : int
        Frames held; frame updates run.
    error : float
        Amplitude error sum (|F| - sqrt(I))**2 / sum I over the frames visited, each as of its last visit;
        NaN before the first.
    error_history : tuple of float
        The same at the end of every epoch.
    n_divergences : int
        Times the engine went back to its last good state and halved its steps.
    withheld : (tile, 2) int64
        Tiles that something else is shown on, see `operators.engine.gate`; none unless somebody decides.
    """

    bounds: Bounds
    probe: np.ndarray
    n_frames: int
    n_updates: int
    error: float
    error_history: tuple[float, ...]
    n_divergences: int
    withheld: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))

    @property
    def epoch(self) -> float:
        """Updates per frame held."""
        return self.n_updates / self.n_frames

    def with_object(self, object_: np.ndarray, illumination: np.ndarray) -> "RefinerSnapshot":
        """Return the snapshot of this state and its object, both arrays on `bounds`."""
        values = {field.name: getattr(self, field.name) for field in fields(RefinerState)}
        return RefinerSnapshot(object=object_, illumination=illumination, **values)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefinerSnapshot(RefinerState):
    """What refinement knows at one moment, on the host: a state and the object.

    Parameters
    ----------
    object : (row, col) complex64
        On `bounds`.
    illumination : (row, col) float32, photons per object pixel from all frames visited
    """

    object: np.ndarray
    illumination: np.ndarray

    @property
    def is_finite(self) -> bool:
        """Whether object and probe hold only finite values."""
        return bool(np.isfinite(self.object).all() and np.isfinite(self.probe).all())


class Changes(NamedTuple):
    """What an engine has done to its object for a while.

    Attributes
    ----------
    numbers, n_visits : (frame,) int64
        Frames that were appended or took part in an update, and in how many updates each has taken part.
    is_all : bool
        Whether the object has changed beyond the windows of these frames.
    """

    numbers: np.ndarray
    n_visits: np.ndarray
    is_all: bool


def closing_fraction(epoch: float, n_epochs: float, start: float = math.inf) -> float:
    """Return the fraction of a full step at `epoch` of `n_epochs`: 1, then falling over the last third.

    They fall from epoch `start` on where that is earlier.

    With full steps to the end, the object keeps following the batch it saw last. Falling steps average that
    away, and two runs that saw the same frames in another order end at the same object.
    """
    start = min(start, (1 - CLOSING) * n_epochs)
    return min(1.0, max(_LAST_FRACTION, (n_epochs - epoch) / (n_epochs - start)))


def near_fraction(first: float, n_visits: float) -> float:
    """Return the fraction of a full step after so many visits, of an object that began near to the truth.

    It grows from `first`: early on full steps lead away, towards the noise of the frames seen last; after
    many visits what is still wrong is slow, and takes them. Visits are counted, not time: on a slow machine
    steps stay small for as long as there have been few.
    """
    return min(1.0, first * (1 + n_visits / _VISITS_TO_DOUBLE))


def near_closing_fraction(first: float, epoch: float, n_epochs: float, start: float) -> float:
    """Return the fraction of a full step of such an object that has been closing since epoch `start`.

    It falls from what it was there with the number of epochs since, which makes an average of them: the
    object is good at any moment. At `n_epochs` next to nothing is left.
    """
    since = (epoch - start) / _EPOCHS_TO_HALVE
    return near_fraction(first, start) * closing_fraction(epoch, n_epochs, start) / (1 + since)
