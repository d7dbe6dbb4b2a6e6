"""Offline reconstruction of a recorded scan, with the operators of the live one."""

import hashlib
import json
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from launch.offline.examine import examined
from launch.offline.recorded import RecordedScan
from launch.offline.task import ReconstructOptions, Solver, Task, task_of
from launch.offline.tile_places import HERE, TilePlaces
from launch.offline.tiles import refined_in_tiles
from launch.results.reconstruction import Reconstruction
from operators.arrays import Mask, Object, Probe, to_numpy
from operators.engine.backends import Backend, get_backend, on_host
from operators.engine.probe_search import estimate_probe
from operators.engine.projections import Projections
from operators.metrics.errors import FRC, fourier_ring_correlation
from operators.metrics.gauge import remove_gauge
from operators.optics.coherence import line_of_travel, starting_modes
from operators.optics.moments import moments
from operators.optics.preprocess import Preprocess
from operators.optics.probe import with_power
from operators.reconstruct import Progress, Solution, least_light, solve, transparent_where_unlit

FRAMES_FOR_PROBE = 256
LEAST_COMPARED_PX = 16  # fewer make too few rings


def reconstruct(
    scan: RecordedScan,
    options: ReconstructOptions,
    *,
    preprocess: Preprocess | None = None,
    progress: Progress | None = None,
    places: TilePlaces = HERE,
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
        Called with epoch and amplitude error after every epoch; the last is that where it returns True.
    places : TilePlaces
        Where tiles are refined.

    Raises
    ------
    ValueError
        If geometry, positions or the probe asked for are missing, frames and geometry do not fit, or nothing
        can come of them; see `launch.offline.examine`.
    """
    return _reconstructed(examined(task_of(scan, options, preprocess)), progress, places)


def _reconstructed(task: Task, progress: Progress | None, places: TilePlaces) -> Reconstruction:
    scan, options = task.scan, task.options
    backend = get_backend(options.device, options.threads)
    found = _solver(options, places)(task, _first_probe(task, backend), backend, progress)
    geometry = task.geometry
    return Reconstruction(
        object=transparent_where_unlit(found.object, found.photons, found.probe),
        bounds=found.bounds,
        probe=found.probe,
        photons=found.photons,
        positions_m=geometry.to_metres(found.positions_px),
        frame_numbers=scan.frame_numbers[task.used],
        geometry=geometry,
        error_history=np.array(found.error_history),
        maps={},
        moments=np.concatenate([moments(patterns, task.preprocess.mask) for _, patterns, _ in task.blocks()]),
        travel_m=None if scan.travel_m is None else scan.travel_m[task.used],
        spread_m=None if scan.spread_m is None else scan.spread_m[task.used],
    )


def half_data_correlation(
    scan: RecordedScan,
    options: ReconstructOptions,
    *,
    preprocess: Preprocess | None = None,
    progress: Progress | None = None,
    places: TilePlaces = HERE,
) -> FRC:
    """Returns the ring correlation of two reconstructions that share no frame, gauge removed.

    The epochs that `progress` is called with go on counting in the second half.

    Raises
    ------
    ValueError
        As for `reconstruct`, and for `correlation_of`.
    """
    halves = []
    for offset in (0, 1):

        def shown(epoch: float, error: float, before: float = offset * options.epochs) -> None:
            if progress is not None:
                progress(before + epoch, error)

        half = task_of(scan, replace(options, every=2, offset=offset), preprocess)
        halves.append(_reconstructed(examined(half, tells=False), shown, places))
    return correlation_of(*halves)


def correlation_of(first: Reconstruction, second: Reconstruction) -> FRC:
    """Returns the ring correlation of two results, gauge removed.

    Compared where the middle of a probe has been: further out both are mostly dark. Ground inside that one of
    them did not light fades into the mean: 1 in both would pass for agreement.

    Raises
    ------
    ValueError
        If the middles of probes cover no ground that both share.
    """
    windows = _common_windows(first, second)
    is_lit = _lit(first)[windows[0]] & _lit(second)[windows[1]]
    if not is_lit.any():
        raise ValueError("halves cannot be compared: no ground is lit by both")
    share = _tapered(is_lit, first.geometry.n_pixels / 4)
    reference = second.object[windows[1]]
    aligned = remove_gauge(first.object[windows[0]], reference, weights=share)
    return fourier_ring_correlation(*(_faded(each, share, is_lit) for each in (aligned, reference)))


def provenance_of(scan: RecordedScan, options: ReconstructOptions, result: Reconstruction) -> dict[str, Any]:
    """Returns what a result file should say about how it was made."""
    values = asdict(options)
    values |= values.pop("refiner").model_dump()
    values |= values.pop("projections") or {}
    text = json.dumps(values, sort_keys=True)
    told = {"told": "; ".join(scan.notes)} if scan.notes else {}
    return (
        values
        | told
        | {
            "scan": scan.name,
            "config_hash": hashlib.sha256(text.encode()).hexdigest()[:12],
            "frames": len(result.frame_numbers),
            "error": float(result.error_history[-1]),
        }
    )


def _first_probe(task: Task, backend: Backend) -> Probe:
    scan, options, preprocess, used = task.scan, task.options, task.preprocess, task.used
    if options.probe == "data":
        placed_px = task.positions_px[used]
        distance = np.hypot(*(placed_px - np.median(placed_px, axis=0)).T)
        middle = np.sort(used[np.argsort(distance, kind="stable")[:FRAMES_FOR_PROBE]])
        return estimate_probe(
            task.patterns(middle),
            task.positions_px[middle],
            n_modes=options.n_modes,
            mask=preprocess.mask,
            seed=options.refiner.seed,
            run_update=on_host(backend, options.threads).update,
        )
    if scan.probe is None:
        raise ValueError(f"{scan.called} has no probe: give one, --probe FILE, or find it, --probe data")
    if len(scan.probe) >= options.n_modes:
        return scan.probe[: options.n_modes]
    travel_m = np.zeros((0, 2)) if scan.travel_m is None else scan.travel_m[used]
    y, x = np.array(line_of_travel(travel_m)) / task.geometry.object_pixel_m
    return starting_modes(scan.probe, options.n_modes, (float(y), float(x)))


def _solver(options: ReconstructOptions, places: TilePlaces) -> Solver:
    if options.projections is not None:
        return _projected
    if options.tiles > 1 or places is not HERE:
        return partial(refined_in_tiles, places=places)
    return _refined


def _refined(task: Task, probe: Probe, backend: Backend, progress: Progress | None) -> Solution:
    refiner, options = task.refiner(probe, backend), task.options
    used = task.used.tolist()
    return solve(refiner, used, options.epochs, scale_probe=task.scales_probe, progress=progress)


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
        if progress is not None and progress(epoch + 1, error):
            break
    projections.finish()
    arrays = projections.object, projections.probe, projections.illumination
    object_, probe, photons = (to_numpy(array) for array in arrays)
    return Solution(object_, projections.bounds, probe, photons, positions_px, projections.history)


def _common_windows(*halves: Reconstruction) -> tuple[Any, ...]:
    """Return where in each object both results reach, half a probe window inside the edge."""
    first, second = (half.bounds for half in halves)
    both, margin = first.intersection(second), halves[0].geometry.n_pixels // 2
    if both is None or min(both.shape) < 2 * margin + LEAST_COMPARED_PX:
        raise ValueError(
            f"halves cannot be compared: half a window inside the edge, {first} and {second} have less than "
            f"{LEAST_COMPARED_PX} pixels in common"
        )
    inside = both.padded(-margin)
    return tuple(inside.slices_in(half.bounds) for half in halves)


def _lit(result: Reconstruction) -> Mask:
    return result.photons > least_light(result.probe)


def _tapered(is_lit: Mask, width_px: float) -> NDArray[np.float32]:
    """Return 0 where it is dark, rising to 1 at `width_px` inside what is lit."""
    if is_lit.all():
        return np.ones(is_lit.shape, np.float32)
    depth = np.minimum(distance_transform_edt(is_lit) / width_px, 1)
    return np.sin(np.pi / 2 * depth).astype(np.float32) ** 2


def _faded(object_: Object, share: NDArray[np.float32], is_lit: Mask) -> Object:
    return object_ * share + np.complex64(object_[is_lit].mean()) * (1 - share)
