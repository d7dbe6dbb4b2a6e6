"""The public door for arrays: frames, positions and a guess of the probe in, object and probe out.

>>> import numpy as np
>>> from operators.optics.forward import intensities
>>> from operators.optics.probe import zone_plate_probe
>>> from operators.optics.trajectories import raster
>>> from operators.patches import extract_patches
>>> y, x = np.indices((30, 30)) / 30
>>> sample = np.exp(1j * np.sin(9 * x + 5 * y**2)).astype(np.complex64)
>>> probe = 300 * zone_plate_probe(16, pupil_radius_px=4, disc_radius_px=5)[None]
>>> positions_px = raster(8, 8, step=2)
>>> patches = extract_patches(sample, positions_px.astype(int), 16)
>>> frames = np.fft.fftshift(intensities(probe, patches), axes=(1, 2))

>>> from operators.reconstruct import reconstruct
>>> found = reconstruct(frames, positions_px, probe, epochs=20)
>>> found.object.shape, found.bounds.origin, found.probe.shape
((30, 30), (0, 0), (1, 16, 16))
>>> bool(found.error_history[-1] < found.error_history[0] / 20)
True

Positions say where the probe is on the sample, y growing with the rows of the object and x with its
columns: a motor that moves the sample counts with the opposite sign. An object pixel is wavelength x
distance / (n x detector pixel); `operators.geometry.Geometry.to_pixels` makes pixels of metres. What no
pattern tells stays as it comes out: a global phase and, where the probe is refined, a shift and a phase
ramp that object and probe share (`operators.metrics.gauge` removes them).

The offline reconstruction of a recorded scan (`ptychostream reconstruct`) runs the same code.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from operators.arrays import Array, Frames, Mask, Object, Patterns, Positions, Probe, abs2, corner_origin
from operators.engine.backends import get_backend
from operators.engine.config import ComputeConfig, RefinerConfig, closing_fraction
from operators.engine.refiner import Refiner
from operators.geometry import Bounds
from operators.mosaic.mosaic import KNOWN_FRACTION
from operators.optics.probe import check_modes, with_power

log = logging.getLogger(__name__)

FRAMES_AT_A_TIME = 256  # bounds the memory of raw frames; the engine holds the amplitudes of all

Progress = Callable[[float, float], bool | None]  # gets epoch and amplitude error; True ends it there

_DEFAULTS = ComputeConfig()


class Solution(NamedTuple):
    """What was found, on the host.

    Attributes
    ----------
    object : (row, col) complex64
        Transmission of the sample; 1 where no frame lit it, see `transparent_where_unlit`.
    bounds : Bounds
        Absolute object pixels that `object` covers: `object[0, 0]` is pixel `bounds.origin`, (row, col), the
        window of a frame at position (y, x) begins at `object[y - bounds.top, x - bounds.left]`.
    probe : (mode, y, x) complex64
        Orthogonal modes, strongest first; the sum of `abs(probe)**2` is in photons per frame.
    photons : (row, col) float32, photons per object pixel
        What fell on each pixel in all frames: where it is small, the object is a guess.
    positions_px : (frame, 2) float64, absolute object pixels (y, x)
        As given, or as refined where the configuration says so.
    error_history : sequence of float
        Amplitude error `sum (abs(F) - sqrt(I))**2 / sum I` at the end of each epoch, and of the end last.
    """

    object: Object
    bounds: Bounds
    probe: Probe
    photons: Array
    positions_px: Positions
    error_history: Sequence[float]


def reconstruct(
    frames: Frames,
    positions_px: Positions,
    probe: Probe,
    *,
    mask: Mask | None = None,
    is_centred: bool = True,
    config: RefinerConfig | None = None,
    epochs: float = _DEFAULTS.epochs,
    scale_probe: bool = True,
    device: str = _DEFAULTS.device,
    threads: int = _DEFAULTS.threads,
    progress: Progress | None = None,
) -> Solution:
    """Return object and probe of a far-field scan; conventions are in the module's docstring.

    Parameters
    ----------
    frames : (frame, row, col), any real dtype, photons
        Square patterns, zero frequency at pixel [n // 2, n // 2] (`operators.optics.preprocess` cuts and
        bins). Read 256 at a time: an HDF5 dataset or a memory map will do. Values below 0 count as 0.
    positions_px : (frame, 2), object pixels, (y, x)
        Top-left corner of each frame's probe window, from any origin; rounded unless `config` has `subpixel`.
    probe : (y, x) or (mode, y, x) complex
        Guess of the wave on the n x n pixels of a window on the sample; see `operators.optics.probe`.
    mask : (row, col) bool, True where valid, optional
        In the layout of the frames. Other pixels may hold anything, NaN as well.
    is_centred : bool
        False for frames and mask with the zero frequency in the corner [0, 0], as `numpy.fft.fft2` has it.
    config : RefinerConfig, optional
        Algorithm and its steps; rPIE on whole pixels by default.
    epochs : float
        Visits per frame, of each at least one; the last third of them take smaller and smaller steps.
    scale_probe : bool
        False where the guess has the power of the beam without sample, so that `abs(object)` is the
        transmission; otherwise it gets the mean photons of the frames.
    device, threads
        As of `operators.engine.backends.get_backend`: by default the fastest there is, on one core.
    progress : callable, optional
        Gets epoch and amplitude error after each epoch. If it returns True, that epoch was the last.

    Returns
    -------
    Solution

    Raises
    ------
    ValueError
        If shapes, dtypes, units or numbers are not as described, or a value in use is not finite.
    """
    frames, mask, probe = _checked_arrays(frames, mask, probe)
    positions_px = _checked_positions(positions_px, len(frames), probe.shape[-1])
    if mask is not None and is_centred:
        mask = corner_origin(mask)
    backend = get_backend(device, threads)
    refiner = Refiner(config or RefinerConfig(), probe, mask=mask, xp=backend.xp, run_update=backend.update)
    for part, patterns in _patterns(frames, mask, is_centred=is_centred):
        refiner.append(part, patterns, positions_px[part.start : part.stop])
    found = solve(refiner, range(len(frames)), epochs, scale_probe=scale_probe, progress=progress)
    return found._replace(object=transparent_where_unlit(found.object, found.photons, found.probe))


def transparent_where_unlit(object_: Object, photons: Array, probe: Probe) -> Object:
    """Return an object that is 1 where no frame lit it as the live image counts it, (row, col) complex64.

    Levelling and the tails of the probe leave any phase there, which says nothing about the sample.
    """
    return np.where(photons > least_light(probe), object_, np.complex64(1))


def least_light(probe: Probe) -> float:
    """Return the photons on a pixel from which it counts as lit: a twentieth of the peak of one probe."""
    return KNOWN_FRACTION * float(abs2(probe).sum(axis=0).max())


def solve(
    refiner: Refiner,
    numbers: Sequence[int],
    epochs: float,
    *,
    scale_probe: bool,
    progress: Progress | None = None,
) -> Solution:
    """Return what an engine finds, from its first epoch to its closing ones.

    Parameters
    ----------
    refiner : Refiner
        Holds the frames and has not begun.
    numbers : (frame,) int
        Of its frames, in the order of the positions returned.
    epochs, scale_probe, progress
        As for `reconstruct`.

    Raises
    ------
    ValueError
        If there is nothing to do: no epoch, or no photon in the frames.
    """
    if not 0 < epochs < math.inf:
        raise ValueError(f"expected finite epochs > 0, got {epochs}")
    if scale_probe:
        if not refiner.mean_photons > 0:
            raise ValueError(f"there is no photon on the valid pixels of {refiner.n_frames} frames")
        refiner.set_probe(with_power(refiner.probe, refiner.mean_photons))
    refine(refiner, epochs, epochs, progress)
    end = refiner.snapshot()
    if end.n_divergences:
        log.warning("refinement diverged %d times and went back, with halved steps", end.n_divergences)
    found_px, history = refiner.positions_px(numbers), [*end.error_history, end.error]
    return Solution(end.object, end.bounds, end.probe, end.illumination, found_px, history)


def refine(refiner: Refiner, stop: float, epochs: float, progress: Progress | None = None) -> None:
    """Refine until epoch `stop` of `epochs`, whose last ones take smaller steps, or `progress` ends it.

    The last epoch ends when every frame has been visited.
    """
    reported, end = 0, refiner.last_epoch(epochs)
    while refiner.epoch < (stop if stop < epochs else end):
        refiner.step(1, fraction=closing_fraction(refiner.epoch, end))
        end = refiner.last_epoch(epochs)
        if progress is not None and int(refiner.epoch) > reported:
            reported = int(refiner.epoch)
            if progress(refiner.epoch, refiner.error):
                return


def _patterns(frames: Frames, mask: Mask | None, *, is_centred: bool) -> Iterator[tuple[range, Patterns]]:
    """Yield numbers and patterns, corner-origin and 0 where masked, of some frames at a time."""
    for start in range(0, len(frames), FRAMES_AT_A_TIME):
        photons = np.asarray(frames[start : start + FRAMES_AT_A_TIME], np.float32)
        patterns = corner_origin(photons) if is_centred else photons
        patterns = patterns if mask is None else np.where(mask, patterns, np.float32(0))
        yield range(start, start + len(patterns)), patterns


def _checked_arrays(frames: Any, mask: Any, probe: Any) -> tuple[Frames, Mask | None, Probe]:
    """Return the arrays, the probe with an axis of modes, once they fit together."""
    if not hasattr(frames, "dtype"):
        frames = np.asarray(frames)
    if len(frames.shape) != 3 or not frames.shape[0] or frames.shape[1] != frames.shape[2]:
        raise ValueError(
            f"frames: expected shape (frame, n, n), got {frames.shape}; cut them to a square around the beam"
        )
    if frames.dtype.kind not in "uif":
        raise ValueError(f"frames: expected photons, integer or float, got {frames.dtype}")
    n_pixels = frames.shape[1]
    probe = np.asarray(probe)
    probe = probe[None] if probe.ndim == 2 else probe
    if probe.ndim != 3 or probe.shape[1:] != (n_pixels, n_pixels) or probe.dtype.kind != "c":
        raise ValueError(
            f"probe: expected complex ({n_pixels}, {n_pixels}) or (mode, {n_pixels}, {n_pixels}), "
            f"got {probe.dtype} {probe.shape}"
        )
    check_modes(len(probe))
    if mask is not None:
        mask = np.asarray(mask)
        if mask.dtype != bool or mask.shape != (n_pixels, n_pixels):
            raise ValueError(
                f"mask: expected bool ({n_pixels}, {n_pixels}), "
                f"True where valid, got {mask.dtype} {mask.shape}"
            )
    return frames, mask, probe


def _checked_positions(positions_px: Any, n_frames: int, n_pixels: int) -> Positions:
    """Return positions (frame, 2) float64, once they are finite and can be pixels of an object."""
    positions = np.asarray(positions_px)
    if positions.shape != (n_frames, 2) or positions.dtype.kind not in "uif":
        raise ValueError(
            f"positions_px: expected real ({n_frames}, 2), (y, x) of each frame, "
            f"got {positions.dtype} {positions.shape}"
        )
    is_finite = np.isfinite(positions).all(axis=1)
    if not is_finite.all():
        raise ValueError(
            f"positions_px: {(~is_finite).sum()} of {n_frames} are not finite, the first of frame "
            f"{is_finite.argmin()}; leave these frames out"
        )
    if n_frames == 1:
        raise ValueError("positions_px: of one frame; ptychography needs neighbours that overlap")
    positions = positions.astype(np.float64)
    span = np.ptp(positions, axis=0).max()
    step = np.median(cKDTree(positions).query(positions, k=2)[0][:, 1])
    if span < 1 or step >= n_pixels:
        reason = f"all lie within {span:.3g}" if span < 1 else f"from one to the next it is {step:.3g}"
        raise ValueError(
            f"positions_px: {reason} pixels, and windows are {n_pixels} wide: are they object pixels? "
            "Geometry.to_pixels makes pixels of metres"
        )
    return positions
