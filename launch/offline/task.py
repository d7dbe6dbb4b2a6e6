"""What one reconstruction of a recorded scan works on, and how it is told to."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from launch.offline.recorded import RecordedScan
from operators.arrays import Patterns, Positions, Probe
from operators.engine.backends import Backend
from operators.engine.config import ComputeConfig, RefinerConfig
from operators.engine.projections import ProjectionConfig
from operators.engine.refiner import Refiner
from operators.geometry import Geometry
from operators.optics.preprocess import Preprocess, at_one_flux
from operators.optics.probe import check_modes
from operators.reconstruct import FRAMES_AT_A_TIME, Progress, Solution
from stream.record.scan import Numbers
from stream.stages.config import ProbeConfig

log = logging.getLogger(__name__)

_DEFAULTS = ComputeConfig()
GEOMETRY_OPTIONS = {  # and the units of their values
    "energy_ev": ("--energy", "eV"),
    "detector_distance_m": ("--distance", "m"),
    "detector_pixel_m": ("--pixel", "m"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconstructOptions:
    """How a recorded scan is reconstructed.

    Attributes
    ----------
    refiner : RefinerConfig
        Algorithm, steps and seed.
    projections : ProjectionConfig or None
        If given, difference map or RAAR run instead of the engine.
    epochs : float
        Visits per frame.
    n_modes : int
        Modes of the probe.
    probe : "file" or "data"
        Whether the scan's own probe is the start, or one found from its frames.
    scale_probe : bool
        Whether the scan's probe is scaled to the mean photons of the frames; otherwise its power is trusted.
    every, offset : int
        Frames used: each `every`-th from `offset`. 2 and 0, 2 and 1 are the halves for ring correlation.
    device : str
        Backend of the engine: "numpy", "compiled", "cupy", "cupy-fused", or "auto" for the fastest measured.
    threads : int
        Cores it may use.
    tiles : int
        Parts of the scan that processes of their own refine; 1 for none. They read the scan themselves, and
        share `threads` and the refiner's `batch_size`.
    """

    refiner: RefinerConfig = field(default_factory=RefinerConfig)
    projections: ProjectionConfig | None = None
    epochs: float = _DEFAULTS.epochs
    n_modes: int = ProbeConfig().n_modes
    probe: Literal["file", "data"] = "file"
    scale_probe: bool = ProbeConfig().scale
    every: int = 1
    offset: int = 0
    device: str = _DEFAULTS.device
    threads: int = _DEFAULTS.threads
    tiles: int = 1

    def __post_init__(self) -> None:
        if self.probe not in ("file", "data"):
            raise ValueError(f"probe: wanted 'file' or 'data', got {self.probe!r}")
        check_modes(self.n_modes)
        if not self.epochs > 0 or self.n_modes < 1:
            raise ValueError(f"wanted epochs > 0 and n_modes >= 1, got {self.epochs} and {self.n_modes}")
        if self.tiles < 1 or (self.tiles > 1 and self.projections is not None):
            raise ValueError(f"wanted tiles >= 1, and 1 for dm and raar, got tiles {self.tiles}")
        if self.tiles > 1 and self.refiner.fits_flux:
            raise ValueError(f"flux is fitted to all frames together: wanted 1 tile, got {self.tiles}")
        if not 0 <= self.offset < self.every:
            raise ValueError(f"wanted 0 <= offset < every, got {self.offset} and {self.every}")


@dataclass(frozen=True, slots=True)
class Task:
    """What one reconstruction works on.

    Attributes
    ----------
    scan : RecordedScan
    options : ReconstructOptions
    preprocess : Preprocess
    geometry : Geometry
    positions_px : (frame, 2) float64, absolute object pixels
        Of all frames of the scan.
    used : (frame,) int64
        Indices of the frames that take part.
    """

    scan: RecordedScan
    options: ReconstructOptions
    preprocess: Preprocess
    geometry: Geometry
    positions_px: Positions
    used: Numbers

    @property
    def scales_probe(self) -> bool:
        """Whether the first probe is to be scaled to the photons of the frames."""
        return self.options.probe == "file" and self.options.scale_probe

    def patterns(self, indices: Numbers) -> Patterns:
        """Returns the prepared patterns of these frames, (frame, ky, kx) float32, photons, at one flux."""
        flux = None if self.scan.flux is None else self.scan.flux[indices]
        return at_one_flux(self.preprocess(self.scan.frames[indices]), flux)

    def blocks(self) -> Iterator[tuple[Numbers, Patterns, Positions]]:
        """Yields indices, patterns and positions of the frames used, a few hundred at a time."""
        for start in range(0, len(self.used), FRAMES_AT_A_TIME):
            block = self.used[start : start + FRAMES_AT_A_TIME]
            yield block, self.patterns(block), self.positions_px[block]

    def refiner(self, probe: Probe, backend: Backend) -> Refiner:
        """Returns an engine that starts from `probe` and holds the frames used, by their indices."""
        mask, config = self.preprocess.mask, self.options.refiner
        refiner = Refiner(config, probe, mask=mask, xp=backend.xp, run_update=backend.update)
        for indices, patterns, positions_px in self.blocks():
            refiner.append(indices.tolist(), patterns, positions_px)
        return refiner


def task_of(
    scan: RecordedScan,
    options: ReconstructOptions,
    preprocess: Preprocess | None = None,
    used: Numbers | None = None,
) -> Task:
    """Returns what a reconstruction of `scan`, or of `used` frames alone, works on; raises as that does."""
    geometry = _geometry(scan)
    if preprocess is None:
        frame_shape = tuple(scan.frames.shape[1:])
        preprocess = Preprocess(frame_shape=frame_shape, n_pixels=geometry.n_pixels, valid_pixels=scan.mask)
    positions_px = geometry.to_pixels(scan.positions_m)
    used = _used_frames(scan, options) if used is None else used
    return Task(scan, options, preprocess, geometry, positions_px, used)


def _geometry(scan: RecordedScan) -> Geometry:
    if scan.geometry is None:
        missing = [
            f"{option} ({unit})" for name, (option, unit) in GEOMETRY_OPTIONS.items() if name not in scan.told
        ]
        raise ValueError(
            f"{scan.called} does not say all of energy, distance and detector pixel: "
            f"give {', '.join(missing)}"
        )
    return scan.geometry


def _used_frames(scan: RecordedScan, options: ReconstructOptions) -> Numbers:
    if not len(scan.positions_m):
        raise ValueError(f"{scan.called} has no frames")
    chosen = np.arange(options.offset, len(scan.positions_m), options.every)
    is_placed = np.isfinite(scan.positions_m[chosen]).all(axis=1)
    if not is_placed.any():
        raise ValueError(f"{scan.called}: none of {len(chosen)} frames has a position")
    if not is_placed.all():
        log.warning("%d of %d frames have no position and are left out", (~is_placed).sum(), len(chosen))
    return chosen[is_placed]


class Solver(Protocol):
    """What finds object and probe."""

    def __call__(self, task: Task, probe: Probe, backend: Backend, progress: Progress | None) -> Solution:
        """Returns what it found from `probe`; tells its progress once an epoch."""


def options_for(scan: RecordedScan, refiner: Mapping[str, Any], **others: Any) -> ReconstructOptions:
    """Returns what was chosen, and for what is None the settings of the run that recorded the scan.

    Parameters
    ----------
    scan : RecordedScan
    refiner : mapping
        Choices of `RefinerConfig` by name.
    **others
        Choices of `ReconstructOptions` by name.
    """
    config = scan.config
    own: dict[str, Any] = {"scale_probe": not scan.trusts_probe, "refiner": RefinerConfig()}
    if config is not None:
        engine = config.refinement.model_dump(include=set(RefinerConfig.model_fields))
        own["refiner"], own["epochs"] = RefinerConfig(**engine), config.refinement.epochs
        own["n_modes"] = config.probe.n_modes
        own["probe"] = "data" if scan.probe is None else "file"
    own["refiner"] = own["refiner"].changed(**_given(refiner))
    return ReconstructOptions(**{**own, **_given(others)})


def _given(choices: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in choices.items() if value is not None}


def ranges(numbers: Numbers) -> str:
    """Returns ascending frame numbers in words, such as 0-4, 7, 10-12."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
