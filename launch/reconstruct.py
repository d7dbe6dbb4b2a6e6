"""Offline reconstruction of a recorded scan, with the operators of the live one.

Separate from the refinement stage because here all frames are there: no ledger, no deadline, no snapshots on
the way. Called by the `reconstruct` command and by benchmarks.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from launch.recorded import RecordedScan
from launch.results import Reconstruction
from operators.arrays import Array, Object, Patterns, Positions, Probe, to_numpy
from operators.backends import Backend, Update
from operators.geometry import Bounds, Geometry
from operators.metrics import FRC, fourier_ring_correlation, remove_gauge
from operators.preprocess import Preprocess
from operators.probe import probe_modes, with_power
from operators.probe_search import estimate_probe
from operators.projections import ProjectionConfig, Projections
from operators.refinement import RefinerConfig, closing_fraction
from operators.refiner import Refiner
from stream.backend import open_backend
from stream.scan import Numbers

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
        Backend of the engine: "numpy", "compiled", "cupy", or "auto" for the fastest there is.
    threads : int
        Cores it may use.
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

    def __post_init__(self) -> None:
        if self.probe not in ("file", "data"):
            raise ValueError(f"probe: wanted 'file' or 'data', got {self.probe!r}")
        if not self.epochs > 0 or self.n_modes < 1:
            raise ValueError(f"wanted epochs > 0 and n_modes >= 1, got {self.epochs} and {self.n_modes}")
        if not 0 <= self.offset < self.every:
            raise ValueError(f"wanted 0 <= offset < every, got {self.offset} and {self.every}")


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
    geometry = _geometry(scan)
    preprocess = preprocess or Preprocess(
        frame_shape=tuple(scan.frames.shape[1:]), n_pixels=geometry.n_pixels, valid_pixels=scan.mask
    )
    used = _used_frames(scan, options)
    positions_px = geometry.to_pixels(scan.positions_m)
    backend = open_backend(options.device, options.threads)
    probe = _first_probe(scan, options, preprocess, positions_px, used, backend.update)
    solve = _refined if options.projections is None else _projected
    found = solve(Task(scan, options, preprocess, probe, positions_px, used), backend, progress)
    return Reconstruction(
        object=found.object,
        bounds=found.bounds,
        probe=found.probe,
        photons=found.photons,
        positions_m=geometry.to_metres(found.positions_px),
        frame_numbers=scan.frame_numbers[used],
        geometry=geometry,
        error_history=np.array(found.error_history),
        maps={},
    )


def half_data_correlation(
    scan: RecordedScan, options: ReconstructOptions, *, preprocess: Preprocess | None = None
) -> FRC:
    """Returns the ring correlation of two reconstructions that share no frame, gauge removed.

    Compared where the middle of a probe has been: further out both halves are mostly dark.
    """
    halves = [
        reconstruct(scan, replace(options, every=2, offset=offset), preprocess=preprocess)
        for offset in (0, 1)
    ]
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


def _first_probe(
    scan: RecordedScan,
    options: ReconstructOptions,
    preprocess: Preprocess,
    positions_px: np.ndarray,
    used: Numbers,
    run_update: Update,
) -> Probe:
    if options.probe == "data":
        distance = np.hypot(*(positions_px[used] - np.median(positions_px[used], axis=0)).T)
        middle = np.sort(used[np.argsort(distance, kind="stable")[:FRAMES_FOR_PROBE]])
        patterns = preprocess(scan.frames[middle])
        return estimate_probe(
            patterns,
            positions_px[middle],
            n_modes=options.n_modes,
            mask=preprocess.mask,
            seed=options.refiner.seed,
            run_update=run_update,
        )
    if scan.probe is None:
        raise ValueError(f"scan {scan.name!r} has no probe: choose probe 'data' to find one from its frames")
    is_enough = len(scan.probe) >= options.n_modes
    return scan.probe[: options.n_modes] if is_enough else probe_modes(scan.probe[0], options.n_modes)


@dataclass(frozen=True, slots=True)
class Task:
    """What one reconstruction works on.

    Attributes
    ----------
    scan : RecordedScan
    options : ReconstructOptions
    preprocess : Preprocess
    probe : (mode, y, x) complex64
        Start.
    positions_px : (frame, 2) float64, absolute object pixels
        Of all frames of the scan.
    used : (frame,) int64
        Which of them take part.
    """

    scan: RecordedScan
    options: ReconstructOptions
    preprocess: Preprocess
    probe: Probe
    positions_px: Positions
    used: Numbers

    @property
    def scales_probe(self) -> bool:
        """Whether the probe is still to be scaled to the photons of the frames."""
        return self.options.probe == "file" and self.options.scale_probe

    def blocks(self) -> Iterator[tuple[Numbers, Patterns, Positions]]:
        """Yields indices, patterns and positions of the frames used, a few hundred at a time."""
        for start in range(0, len(self.used), FRAMES_AT_A_TIME):
            block = self.used[start : start + FRAMES_AT_A_TIME]
            yield block, self.preprocess(self.scan.frames[block]), self.positions_px[block]


class Solution(NamedTuple):
    """What was found, on the host; positions of the frames used."""

    object: Object
    bounds: Bounds
    probe: Probe
    photons: Array
    positions_px: Positions
    error_history: Sequence[float]


def _refined(task: Task, backend: Backend, progress: Progress | None) -> Solution:
    options, mask = task.options, task.preprocess.mask
    refiner = Refiner(options.refiner, task.probe, mask=mask, xp=backend.xp, run_update=backend.update)
    for numbers, patterns, positions_px in task.blocks():
        refiner.append(numbers.tolist(), patterns, positions_px)
    if task.scales_probe:
        refiner.set_probe(with_power(task.probe, refiner.mean_photons))
    _refine(refiner, options.epochs, progress)
    end = refiner.snapshot()
    if end.n_divergences:
        log.warning("refinement diverged %d times and went back, with halved steps", end.n_divergences)
    found_px, history = refiner.positions_px(task.used.tolist()), [*end.error_history, end.error]
    return Solution(end.object, end.bounds, end.probe, end.illumination, found_px, history)


def _projected(task: Task, backend: Backend, progress: Progress | None) -> Solution:
    config, mask, probe = task.options.projections, task.preprocess.mask, task.probe
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


def _refine(refiner: Refiner, n_epochs: float, progress: Progress | None) -> None:
    reported = 0
    while refiner.epoch < n_epochs:
        refiner.step(1, fraction=closing_fraction(refiner.epoch, n_epochs))
        if progress is not None and int(refiner.epoch) > reported:
            reported = int(refiner.epoch)
            progress(refiner.epoch, refiner.error)


def _common_ground(result: Reconstruction, other: Reconstruction) -> Object:
    """Return the object where both results reach, half a probe window inside the edge."""
    a, b = result.bounds, other.bounds
    both = Bounds(max(a.top, b.top), max(a.left, b.left), min(a.bottom, b.bottom), min(a.right, b.right))
    inside = both.padded(-(result.geometry.n_pixels // 2))
    return result.object[inside.slices_in(a)]
