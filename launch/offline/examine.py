"""Whether anything can come of a recorded scan, before the work begins: optics, positions and frames."""

import logging
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from launch.memory import memory_bytes
from launch.offline.task import GEOMETRY_OPTIONS, Task, ranges
from operators.arrays import Probe
from operators.geometry import Geometry
from operators.optics.probe import probe_diameter_px
from operators.optics.sampling import Judgement, judge_geometry, judge_positions, judge_probe
from operators.reconstruct import FRAMES_AT_A_TIME

log = logging.getLogger(__name__)

MEMORY_SHARE = 0.5  # of the computer's, that the object may take: frames and copies need the rest
USUAL_MODES = 10
NEGATIVE_SHARE = 0.1  # of the photons, above which negative values are no noise about a background


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameFacts:
    """What is in the frames used, on valid pixels.

    Attributes
    ----------
    not_finite, dark : (frame,) bool
        Frames with a value that is no number, and without a photon.
    photons, negative : float
        Sums of the values above and below zero.
    n_negative : int
        Values below zero.
    """

    not_finite: NDArray[np.bool_]
    dark: NDArray[np.bool_]
    photons: float
    negative: float
    n_negative: int


def examined(task: Task, *, tells: bool = True) -> Task:
    """Returns the task without frames that cannot be used; what is doubtful is said in the log if it `tells`.

    Raises
    ------
    ValueError
        If nothing can come of it: the reason, and what to do.
    """
    try:
        doubts = _doubts_of_optics(task)
        task, more = _judged_frames(task, frame_facts(task))
    except ValueError as error:
        raise ValueError(f"{task.scan.called}: {error}") from None
    for doubt in [*doubts, *more] if tells else []:
        log.warning(doubt)
    return task


def _doubts_of_optics(task: Task) -> list[str]:
    """Return what is doubtful of geometry, probe and positions; ValueError if something is impossible."""
    geometry, scan = task.geometry, task.scan
    probe = scan.probe if task.options.probe == "file" else None
    judged = judge_geometry(geometry, {name: f"{option} " for name, (option, _) in GEOMETRY_OPTIONS.items()})
    diameter_m = None
    if probe is not None:
        _check_size(probe, geometry)
        of_probe = judge_probe(probe, geometry)
        judged += [one for one in of_probe if one.verdict == "impossible" or not _is_scaled_away(task, one)]
        if all(one.verdict != "impossible" for one in of_probe):
            diameter_m = probe_diameter_px(probe) * geometry.object_pixel_m
    judged += judge_positions(
        scan.positions_m[task.used],
        geometry,
        diameter_m=diameter_m,
        memory_bytes=MEMORY_SHARE * memory_bytes(),
    )
    impossible = [one.doubt for one in judged if one.verdict == "impossible"]
    if impossible:
        raise ValueError("; ".join(impossible))
    doubts = [one.doubt for one in judged if one.verdict == "doubtful"]
    if task.options.n_modes > USUAL_MODES:
        doubts.append(
            f"{task.options.n_modes} modes of the probe: few scans tell more than {USUAL_MODES} apart"
        )
    return doubts


def _check_size(probe: Probe, geometry: Geometry) -> None:
    rows, columns = probe.shape[-2:]
    if (rows, columns) != (geometry.n_pixels, geometry.n_pixels):
        raise ValueError(
            f"the probe has {rows} x {columns} pixels, patterns have {geometry.n_pixels}: it has to be made "
            "for them, or found from them, --probe data"
        )


def _is_scaled_away(task: Task, judgement: Judgement) -> bool:
    return task.scales_probe and judgement.quantity == "photons per frame"


def frame_facts(task: Task) -> FrameFacts:
    """Returns what is in the frames used; reads all of them, a few hundred at a time."""
    valid = task.preprocess.valid_in_frame()
    not_finite, dark = np.zeros(len(task.used), bool), np.zeros(len(task.used), bool)
    photons = negative = 0.0
    n_negative = 0
    for start in range(0, len(task.used), FRAMES_AT_A_TIME):
        frames = np.asarray(task.scan.frames[task.used[start : start + FRAMES_AT_A_TIME]])
        part = slice(start, start + len(frames))
        values = frames[:, valid]
        if values.dtype.kind == "f":
            not_finite[part] = ~np.isfinite(values).all(axis=1)
            values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
        if values.dtype.kind != "u":
            below = values < 0
            n_negative += int(below.sum())
            negative -= float(values[below].sum(dtype=np.float64))
        photons += float(values.sum(dtype=np.float64))
        dark[part] = ~(values > 0).any(axis=1)
    return FrameFacts(
        not_finite=not_finite, dark=dark, photons=photons + negative, negative=negative, n_negative=n_negative
    )


def _judged_frames(task: Task, facts: FrameFacts) -> tuple[Task, list[str]]:
    """Return the task without frames that are no numbers, and what is doubtful of the others."""
    n_frames, doubts = len(task.used), list[str]()
    numbers = task.scan.frame_numbers[task.used]
    if facts.not_finite.all():
        raise ValueError(
            f"all {n_frames} frames hold values that are no numbers (NaN) on valid pixels: say which pixels "
            "are valid, --mask FILE"
        )
    if facts.negative > NEGATIVE_SHARE * facts.photons:
        raise ValueError(
            f"{facts.n_negative} values of the frames are below 0, {facts.negative:.3g} in sum, and "
            f"{facts.photons:.3g} above: counts cannot be; where they mark pixels without a value, say which "
            "are valid, --mask FILE"
        )
    if facts.dark.all():
        raise ValueError(
            f"there is no photon on the valid pixels of {n_frames} frames: is it the right array, was the "
            "shutter open?"
        )
    if facts.n_negative:
        doubts.append(f"{facts.n_negative} values of the frames are below 0 and count as 0")
    if facts.dark.any():
        doubts.append(
            f"{facts.dark.sum()} of {n_frames} frames hold no photon: {ranges(numbers[facts.dark])}"
        )
    if facts.not_finite.any():
        which = ranges(numbers[facts.not_finite])
        doubts.append(
            f"{facts.not_finite.sum()} of {n_frames} frames hold values that are no numbers (NaN) and are "
            f"left out: {which}"
        )
        task = replace(task, used=task.used[~facts.not_finite])
    return task, doubts
