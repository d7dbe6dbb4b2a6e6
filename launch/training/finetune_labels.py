"""What there is to learn from in a scan that is being refined: patterns, and the object under them.

Which frames to trust is the whole of it: a network that learns from a bad refinement gets worse.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from operators.arrays import Array, Mask, Patches, Patterns, Probe, abs2
from operators.engine.config import RefinerSnapshot
from operators.geometry import Bounds, Geometry
from operators.network.gaps import fill_patterns
from operators.optics.forward import forward_residual
from operators.optics.preprocess import Preprocess
from operators.optics.probe import probe_fwhm_px
from operators.patches import extract_patches
from stream.record.scan import Numbers, Scan
from stream.stages.inputs import read_corners, read_patterns, read_wide_patches

LARGEST_RESIDUAL = 2.0  # times the median one of the scan
MOST_FRAMES = 1024  # held at a time, drawn evenly over the scan: bounds the memory
HELD_OUT = 0.25  # the newest, which nothing was learned from
MOST_HELD_OUT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Frames to learn from and frames kept aside, in frame order.

    Attributes
    ----------
    patterns : (frame, ky, kx) float32, photons
    objects : (frame, y, x) complex64
        Refined, in the scale that goes with the probe the network is given.
    is_held_out : (frame,) bool
        The newest: what comes next is as new to the network as they are.
    is_learned : (frame,) bool
        Those that share no bright ground with them.
    """

    patterns: Patterns
    objects: Patches
    is_held_out: Array
    is_learned: Array

    def __len__(self) -> int:
        return len(self.patterns)


def refined_labels(
    scan: Scan,
    numbers: Numbers,
    snapshot: RefinerSnapshot,
    probe: Probe,
    *,
    geometry: Geometry,
    preprocess: Preprocess,
    least_visits: int,
) -> Labels:
    """Returns what of the frames `numbers` can be learned from.

    Parameters
    ----------
    scan : Scan
    numbers : (frame,) int64
        That refinement has used.
    snapshot : RefinerSnapshot
    probe : (mode, y, x) complex64
        That the network is given.
    geometry : Geometry
    preprocess : Preprocess
    least_visits : int
        Of refinement, before a frame counts.
    """
    numbers = np.sort(numbers)
    numbers = numbers[scan.column("visits").read(numbers) >= least_visits]
    corners = read_corners(scan, geometry, numbers)
    windows = [Bounds.of_windows(corner[None], geometry.n_pixels) for corner in corners]
    is_inside = np.array([snapshot.bounds.contains(window) for window in windows], bool)
    numbers, corners = numbers[is_inside], corners[is_inside]
    if len(numbers) > MOST_FRAMES:
        spread = np.linspace(0, len(numbers) - 1, MOST_FRAMES).astype(np.int64)
        numbers, corners = numbers[spread], corners[spread]
    patterns = read_patterns(scan, preprocess, numbers)
    objects = extract_patches(snapshot.object, corners - snapshot.bounds.origin, geometry.n_pixels)
    good = _well_explained(scan, numbers, patterns, objects, snapshot.probe, probe, preprocess.mask)
    # Probe times object is what refinement knows; what of it is the object depends on the probe's power.
    scale = np.float32(np.sqrt(abs2(snapshot.probe).sum() / abs2(probe).sum()))
    is_held_out, is_learned = _set_aside(corners[good], probe_fwhm_px(probe))
    return Labels(
        patterns=fill_patterns(patterns[good], preprocess.mask, probe),
        objects=objects[good] * scale,
        is_held_out=is_held_out,
        is_learned=is_learned,
    )


def _well_explained(
    scan: Scan,
    numbers: Numbers,
    patterns: Patterns,
    objects: Patches,
    refined_probe: Probe,
    probe: Probe,
    mask: Mask,
) -> Array:
    """Return which frames refinement explains as well as its others, and better than the network did."""
    if not len(numbers):
        return np.zeros(0, bool)
    residual = forward_residual(patterns, refined_probe, objects, mask)
    patches, _ = read_wide_patches(scan, probe.shape[-1], numbers)
    before = forward_residual(patterns, probe, patches, mask)
    return (residual <= LARGEST_RESIDUAL * np.median(residual)) & (residual < before)


def _set_aside(corners: Array, diameter_px: float) -> tuple[Array, Array]:
    """Return which frames to keep for the trial, and which to learn from: those that do not overlap them."""
    n_held_out = min(int(HELD_OUT * len(corners)), MOST_HELD_OUT)
    is_held_out = np.arange(len(corners)) >= len(corners) - n_held_out
    if not n_held_out:
        return is_held_out, ~is_held_out
    distance = cKDTree(corners[is_held_out]).query(corners)[0]
    return is_held_out, distance > diameter_px
