"""Offline reconstruction of a recorded scan, with the operators of the live one."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from launch.offline.recorded import RecordedScan
from launch.results.cxi import Reconstruction
from operators.arrays import Array, Object, Patterns, Positions, Probe, to_numpy
from operators.engine.backends import Backend
from operators.engine.config import RefinerConfig, closing_fraction
from operators.engine.probe_search import estimate_probe
from operators.engine.projections import ProjectionConfig, Projections
from operators.engine.refiner import Refiner
from operators.geometry import Bounds, Geometry
from operators.metrics.errors import FRC, fourier_ring_correlation, remove_gauge
from operators.optics.preprocess import Preprocess
from operators.optics.probe import probe_modes, with_power
from stream.record.scan import Numbers
from stream.stages.backend import on_host, open_backend

log = logging.getLogger(__name__)

FRAMES_AT_A_TIME = 256  # bounds the memory of raw frames; the engine holds the amplitudes of all
FRAMES_FOR_PROBE = 256

Progress = Callable[[float, float], None]


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
    epochs: float = 40.0
    n_modes: int = 1
    probe: Literal["file", "data"] = "file"
    scale_probe: bool = True
    every: int = 1
    offset: int = 0
    device: str = "auto"
    threads: int = 1
    tiles: int = 1

    def __post_init__(self) -> None:
        if self.probe not in ("file", "data"):
            raise ValueError(f"probe: wanted 'file' or 'data', got {self.probe!r}")
        if not self.epochs > 0 or self.n_modes < 1:
            raise ValueError(f"wanted epochs > 0 and n_modes >= 1, got {self.epochs} and {self.n_modes}")
        if self.tiles < 1 or (self.tiles > 1 and self.projections is not None):
            raise ValueError(f"wanted tiles >= 1, and 1 for dm and raar, got tiles {self.tiles}")
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

    def blocks(self) -> Iterator[tuple[Numbers, Patterns, Positions]]:
        """Yields indices, patterns and positions of the frames used, a few hundred at a time."""
        for start in range(0, len(self.used), FRAMES_AT_A_TIME):
            block = self.used[start : start + FRAMES_AT_A_TIME]
            yield block, self.preprocess(self.scan.frames[block]), self.positions_px[block]

    def refiner(self, probe: Probe, backend: Backend) -> Refiner:
        """Returns an engine that starts from `probe` and holds the frames used, by their indices."""
        mask, config = self.preprocess.mask, self.options.refiner
        refiner = Refiner(config, probe, mask=mask, xp=backend.xp, run_update=backend.update)
        for indices, patterns, positions_px in self.blocks():
            refiner.append(indices.tolist(), patterns, positions_px)
        return refiner


def reconstruct(
    scan: RecordedScan,
    options: ReconstructOptions,
    *,
    preprocess: Preprocess | None = None,
    progress: Progress | None = None,
) -> Reconstruction:
    """Returns object and probe of a recorded scan.

    Parameters
    ----------
    scan : RecordedScan
        Frames without a known position are left out, and counted in the log.
    options : ReconstructOptions
    preprocess : Preprocess, optional
        How frames become patterns; by default whole frames with the scan's mask.
    progress : callable, optional
        Called with epoch and amplitude error after every epoch.

    Raises
    ------
    ValueError
        If geometry, positions or the probe asked for are missing, or frames and geometry do not fit.
    """
    task = task_of(scan, options, preprocess)
    backend = open_backend(options.device, options.threads)
    found = _solver(options)(task, _first_probe(task, backend), backend, progress)
    geometry = task.geometry
    return Reconstruction(
        object=found.object,
        bounds=found.bounds,
        probe=found.probe,
        photons=found.photons,
        positions_m=geometry.to_metres(found.positions_px),
        frame_numbers=scan.frame_numbers[task.used],
        geometry=geometry,
        error_history=np.array(found.error_history),
        maps={},
    )


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


def half_data_correlation(
    scan: RecordedScan,
    options: ReconstructOptions,
    *,
    preprocess: Preprocess | None = None,
    progress: Progress | None = None,
) -> FRC:
    """Returns the ring correlation of two reconstructions that share no frame, gauge removed.

    Compared where the middle of a probe has been: further out both halves are mostly dark. The epochs that
    `progress` is called with go on counting in the second half.
    """
    halves = []
    for offset in (0, 1):

        def shown(epoch: float, error: float, before: float = offset * options.epochs) -> None:
            if progress is not None:
                progress(before + epoch, error)

        half = replace(options, every=2, offset=offset)
        halves.append(reconstruct(scan, half, preprocess=preprocess, progress=shown))
    first, second = (_common_ground(half, other) for half, other in (halves, halves[::-1]))
    return fourier_ring_correlation(remove_gauge(first, second), second)


def provenance_of(scan: RecordedScan, options: ReconstructOptions, result: Reconstruction) -> dict[str, Any]:
    """Returns what a result file should say about how it was made."""
    values = asdict(options)
    values |= values.pop("refiner")
    values |= values.pop("projections") or {}
    text = json.dumps(values, sort_keys=True)
    return values | {
        "scan": scan.name,
        "config_hash": hashlib.sha256(text.encode()).hexdigest()[:12],
        "frames": len(result.frame_numbers),
        "error": float(result.error_history[-1]),
    }


def _geometry(scan: RecordedScan) -> Geometry:
    if scan.geometry is None:
        raise ValueError(
            f"scan {scan.name!r} does not say its energy, distance and detector pixel: give them"
        )
    return scan.geometry


def _used_frames(scan: RecordedScan, options: ReconstructOptions) -> Numbers:
    chosen = np.arange(options.offset, len(scan.positions_m), options.every)
    is_placed = np.isfinite(scan.positions_m[chosen]).all(axis=1)
    if not is_placed.any():
        raise ValueError(f"scan {scan.name!r}: none of {len(chosen)} frames has a position")
    if not is_placed.all():
        log.warning("%d of %d frames have no position and are left out", (~is_placed).sum(), len(chosen))
    return chosen[is_placed]


def _first_probe(task: Task, backend: Backend) -> Probe:
    scan, options, preprocess, used = task.scan, task.options, task.preprocess, task.used
    if options.probe == "data":
        placed_px = task.positions_px[used]
        distance = np.hypot(*(placed_px - np.median(placed_px, axis=0)).T)
        middle = np.sort(used[np.argsort(distance, kind="stable")[:FRAMES_FOR_PROBE]])
        return estimate_probe(
            preprocess(scan.frames[middle]),
            task.positions_px[middle],
            n_modes=options.n_modes,
            mask=preprocess.mask,
            seed=options.refiner.seed,
            run_update=on_host(backend, options.threads).update,
        )
    if scan.probe is None:
        raise ValueError(f"scan {scan.name!r} has no probe: choose probe 'data' to find one from its frames")
    is_enough = len(scan.probe) >= options.n_modes
    return scan.probe[: options.n_modes] if is_enough else probe_modes(scan.probe[0], options.n_modes)


class Solution(NamedTuple):
    """What was found, on the host; positions of the frames used."""

    object: Object
    bounds: Bounds
    probe: Probe
    photons: Array
    positions_px: Positions
    error_history: Sequence[float]


class Solver(Protocol):
    """What finds object and probe."""

    def __call__(self, task: Task, probe: Probe, backend: Backend, progress: Progress | None) -> "Solution":
        """Returns what it found from `probe`; tells its progress once an epoch."""


def _solver(options: ReconstructOptions) -> Solver:
    if options.projections is not None:
        return _projected
    if options.tiles > 1:
        from launch.offline.tiles import refined_in_tiles  # imports this module: a tile is a task of its own

        return refined_in_tiles
    return _refined


def _refined(task: Task, probe: Probe, backend: Backend, progress: Progress | None) -> Solution:
    refiner, n_epochs = task.refiner(probe, backend), task.options.epochs
    if task.scales_probe:
        refiner.set_probe(with_power(probe, refiner.mean_photons))
    refine(refiner, n_epochs, n_epochs, progress)
    end = refiner.snapshot()
    if end.n_divergences:
        log.warning("refinement diverged %d times and went back, with halved steps", end.n_divergences)
    found_px, history = refiner.positions_px(task.used.tolist()), [*end.error_history, end.error]
    return Solution(end.object, end.bounds, end.probe, end.illumination, found_px, history)


def _projected(task: Task, probe: Probe, backend: Backend, progress: Progress | None) -> Solution:
    config, mask = task.options.projections, task.preprocess.mask
    assert config is not None  # noqa: S101 -- the caller chose by it
    patterns = np.concatenate([patterns for _, patterns, _ in task.blocks()])
    if task.scales_probe:
        probe = with_power(probe, (patterns * mask).sum(dtype=np.float64) / len(patterns))
    positions_px = task.positions_px[task.used]
    projections = Projections(config, probe, patterns, positions_px, mask=mask, xp=backend.xp)
    for epoch in range(round(task.options.epochs)):
        error = projections.step()
        if progress is not None:
            progress(epoch + 1, error)
    projections.finish()
    arrays = projections.object, projections.probe, projections.illumination
    object_, probe, photons = (to_numpy(array) for array in arrays)
    return Solution(object_, projections.bounds, probe, photons, positions_px, projections.history)


def refine(refiner: Refiner, stop: float, n_epochs: float, progress: Progress | None = None) -> None:
    """Refines until epoch `stop` of `n_epochs`, whose last ones take smaller steps."""
    reported = 0
    while refiner.epoch < stop:
        refiner.step(1, fraction=closing_fraction(refiner.epoch, n_epochs))
        if progress is not None and int(refiner.epoch) > reported:
            reported = int(refiner.epoch)
            progress(refiner.epoch, refiner.error)


def _common_ground(result: Reconstruction, other: Reconstruction) -> Object:
    """Return the object where both results reach, half a probe window inside the edge."""
    both = result.bounds.intersection(other.bounds)
    if both is None:
        raise ValueError(f"the halves share no ground: they cover {result.bounds} and {other.bounds}")
    inside = both.padded(-(result.geometry.n_pixels // 2))
    return result.object[inside.slices_in(result.bounds)]
