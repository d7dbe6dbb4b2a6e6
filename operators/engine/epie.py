"""One batched ePIE or rPIE update of an object and a probe.

Pure array code, numpy or cupy: no frame store, no visiting order, no guard. Those live in
`operators.engine.refiner`.
"""

import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from operators.arrays import (
    Array,
    Corners,
    Mask,
    Object,
    Patches,
    Probe,
    abs2,
    array_module,
    fft2,
    ifft2,
)
from operators.engine.position_steps import gradient_sums
from operators.optics.probe import with_power
from operators.patches import add_patches, extract_patches

_VALUES_IN_CACHE = 1 << 18  # of waves; 2 MiB
TINY = 1e-9  # photons**0.5; keeps 0/0 of an empty pixel at zero
OVERLAP_LIMIT = 2.0  # summed corrections of overlapping probes stay stable up to twice one full step


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """How far one update moves object and probe along their corrections.

    Parameters
    ----------
    object_step, probe_step : float
        Step lengths; 1 is a full ePIE step, 0 holds the array.
    alpha : float
        Regularisation between weighting by the local illumination (0) and by its maximum (1). 1 is ePIE.
    is_poisson : bool
        Whether waves go towards the measured modulus only as far as the noise of counted photons bears out.
    probe_photons : float
        Power that a probe which has moved is scaled to, sum |P|^2; 0 leaves it as it comes.

    Notes
    -----
    alpha, beta and the weighting of Maiden & Rodenburg, Ultramicroscopy 109, 1256 (2009) and, for alpha < 1,
    Maiden, Johnson & Li, Optica 4, 736 (2017).
    """

    object_step: float
    probe_step: float
    alpha: float
    is_poisson: bool = False
    probe_photons: float = 0.0


@dataclass(frozen=True, slots=True)
class Batch:
    """The frames one update looks at.

    Corners, weights and shifts are best kept on the host, which decides them: a device gets them in one copy.

    Parameters
    ----------
    amplitudes : (frame, ky, kx) float16 or float32, sqrt(photons), corner-origin
        Or what gives such an array for a slice, and (ky, kx) for an index, as `FrameStore.select` does.
    corners : (frame, 2) int64, top-left pixels (row, col) of the probe windows in the object array
    probe_weights : (frame,) float32
        0 keeps a frame that the object does not explain yet away from the probe.
    shifts : (frame, 2) float32, pixels, or None
        Fractional positions beyond `corners`; None means whole pixels.
    gradients : (frame, 5) float32 or None
        If given, an update writes the sums for `operators.engine.position_steps` into it.
    """

    amplitudes: Array
    corners: Corners
    probe_weights: Array
    shifts: Array | None = None
    gradients: Array | None = None


class Accumulators:
    """Canvas-sized sums of one update, zero between updates, made when they are first asked for.

    Overlapping windows must meet in a sum before the object moves, whatever size the canvas has; the
    buffers are kept so that an update touches only the pixels its windows cover. Compiled loops do without.
    """

    def __init__(self, shape: tuple[int, int], xp: Any) -> None:
        self._shape, self._xp = shape, xp

    @cached_property
    def correction(self) -> Array:
        """(row, col) complex64."""
        return self._xp.zeros(self._shape, self._xp.complex64)

    @cached_property
    def illumination(self) -> Array:
        """(row, col) float32."""
        return self._xp.zeros(self._shape, self._xp.float32)


def modulus_correction(
    waves: Array, amplitudes: Array, mask: Mask | None, *, is_poisson: bool = False
) -> tuple[Array, Array]:
    """Return the change that gives `waves` the measured modulus, and how far each frame was from it.

    Parameters
    ----------
    waves : (frame, mode, ky, kx) complex64, far field; overwritten with the result
    amplitudes : (frame, ky, kx) float, sqrt(photons), corner-origin
    mask : (ky, kx) bool, True where valid, or None
        Pixels that are not valid keep the modelled value.
    is_poisson : bool
        Whether to go to the likelier modulus instead: r, at which (r - |F|)**2 plus the negative logarithm
        of the Poisson likelihood, r**2 - I log r**2, is least. No photon then does not mean no wave.

    Returns
    -------
    corrections : (frame, mode, ky, kx) complex64
    errors : (frame,) float32
        sum (|F| - sqrt(I))**2 over valid pixels, photons.
    """
    xp = array_module(waves)
    modulus = _root_of_summed_intensity(waves)
    missing = amplitudes - modulus
    if mask is not None:
        missing *= mask
    errors = xp.einsum("fyx,fyx->f", missing, missing)
    if is_poisson:
        measured = modulus + missing
        missing = (xp.sqrt(modulus**2 + 8 * measured**2) - 3 * modulus) / 4
        if mask is not None:
            missing *= mask
    modulus += xp.float32(TINY)
    missing /= modulus
    waves *= missing[:, None]
    return waves, errors


def update(
    object_: Object,
    probe: Probe,
    batch: Batch,
    steps: Steps,
    sums: Accumulators,
    *,
    mask: Mask | None = None,
    chunk: int | None = None,
) -> Array:
    """Move `object_` and `probe`, in place, by the corrections of one batch and return its errors.

    All frames of the batch see the same object and probe. Where probe windows overlap, object corrections
    are summed while their joint illumination stays below twice the probe's peak, and averaged above, so
    that a batch of any density takes the longest step that is still stable.

    Parameters
    ----------
    object_ : (row, col) complex64
    probe : (mode, y, x) complex64
    batch : Batch
    steps : Steps
    sums : Accumulators of the object's shape
    mask : (ky, kx) bool, True where valid, corner-origin, or None
    chunk : int, optional
        Frames worked on at a time, which does not change the result; by default as many as keep the waves in
        a CPU's cache, or all on a device.

    Returns
    -------
    errors : (frame,) float32
        sum (|F| - sqrt(I))**2 over valid pixels before the update, photons.
    """
    xp = array_module(object_)
    probe_sums = _ProbeSums(probe) if steps.probe_step else None
    chunk = chunk or _chunk_of(probe)
    errors = []
    for start in range(0, len(batch.corners), chunk):
        part = _part(batch, start, start + chunk)
        errors.append(_accumulate(object_, probe, part, sums, probe_sums, mask, steps.is_poisson))
    _move_object(object_, batch.corners, probe, steps, sums)
    if probe_sums is not None:
        probe_sums.move(probe, steps)
    return xp.concatenate(errors)


class _ProbeSums:
    """Sums over a batch that the probe is corrected with."""

    def __init__(self, probe: Probe) -> None:
        xp = array_module(probe)
        self.correction = xp.zeros_like(probe)
        self.transmission = xp.zeros(probe.shape[-2:], xp.float32)

    def add(self, corrections: Array, patches: Array, weights: Array, shifts: Array | None) -> None:
        """Add a chunk; `corrections` (frame, mode, y, x) is overwritten."""
        corrections *= (patches.conj() * weights[:, None, None])[:, None]
        if shifts is not None:
            corrections = shifted(corrections, -shifts)
        self.correction += corrections.sum(axis=0)
        self.transmission += (abs2(patches) * weights[:, None, None]).sum(axis=0)

    def move(self, probe: Probe, steps: Steps) -> None:
        alpha = steps.alpha
        weight = (1 - alpha) * self.transmission + alpha * self.transmission.max()
        weight += array_module(probe).float32(TINY)
        # a reciprocal: NumPy divides complex by real numbers as if both were complex
        probe += self.correction * (steps.probe_step / weight)
        if steps.probe_photons:
            probe[...] = with_power(probe, steps.probe_photons)


def _accumulate(
    object_: Object,
    probe: Probe,
    batch: Batch,
    sums: Accumulators,
    probe_sums: _ProbeSums | None,
    mask: Mask | None,
    is_poisson: bool,
) -> Array:
    xp = array_module(object_)
    patches = extract_patches(object_, batch.corners, probe.shape[-1])
    shifts = None if batch.shifts is None else xp.asarray(batch.shifts)
    probes = probe[None] if shifts is None else shifted(probe[None], shifts)
    waves = fft2(patches[:, None] * probes)
    corrections, errors = modulus_correction(waves, batch.amplitudes, mask, is_poisson=is_poisson)
    corrections = ifft2(corrections)
    if batch.gradients is not None:
        batch.gradients[...] = gradient_sums(corrections, patches, probes)
    to_object = corrections[:, 0] * probes[:, 0].conj()
    for mode in range(1, len(probe)):
        to_object += corrections[:, mode] * probes[:, mode].conj()
    add_patches(sums.correction, to_object, batch.corners)
    illumination = abs2(probes).sum(axis=1)
    add_patches(sums.illumination, illumination if len(illumination) > 1 else illumination[0], batch.corners)
    if probe_sums is not None:
        probe_sums.add(corrections, patches, xp.asarray(batch.probe_weights), shifts)
    return errors


def _chunk_of(probe: Probe) -> int:
    return max(1, _VALUES_IN_CACHE // probe.size) if array_module(probe) is np else sys.maxsize


def _move_object(object_: Object, corners: Corners, probe: Probe, steps: Steps, sums: Accumulators) -> None:
    xp = array_module(object_)
    n = probe.shape[-1]
    peak = abs2(probe).sum(axis=0).max()
    illumination = extract_patches(sums.illumination, corners, n)
    weight = xp.maximum(illumination / OVERLAP_LIMIT, peak)
    weight *= steps.alpha
    weight += (1 - steps.alpha) * illumination
    moved = extract_patches(sums.correction, corners, n)
    moved *= steps.object_step / weight
    moved += extract_patches(object_, corners, n)
    # every window that covers a pixel holds the same new value, so assigning counts nothing twice
    _put_patches(object_, moved, corners)
    _put_patches(sums.illumination, xp.zeros_like(illumination), corners)
    _put_patches(sums.correction, xp.zeros_like(moved), corners)


def _put_patches(object_: Object, patches: Patches, corners: Corners) -> None:
    n = patches.shape[-1]
    xp = array_module(object_)
    if xp is np:
        for patch, (row, column) in zip(patches, corners.tolist(), strict=True):
            object_[row : row + n, column : column + n] = patch
        return
    steps = xp.arange(n)
    rows, columns = xp.asarray(corners[:, 0, None, None]), xp.asarray(corners[:, 1, None, None])
    object_[rows + steps[:, None], columns + steps] = patches


def _part(batch: Batch, start: int, stop: int) -> Batch:
    part = slice(start, stop)
    return Batch(
        batch.amplitudes[part],
        batch.corners[part],
        batch.probe_weights[part],
        None if batch.shifts is None else batch.shifts[part],
        None if batch.gradients is None else batch.gradients[part],
    )


def shifted(images: Array, shifts: Array) -> Array:
    """Return `images` moved by fractions of a pixel, by a phase ramp on their periodic Fourier transform.

    Parameters
    ----------
    images : (frame or 1, mode, y, x) complex64
    shifts : (frame, 2) float32, pixels (y, x), positive towards larger indices
    """
    xp = array_module(images)
    frequency = xp.fft.fftfreq(images.shape[-1]).astype(xp.float32)
    ramp = [xp.exp(-2j * xp.pi * shifts[:, axis, None] * frequency).astype(xp.complex64) for axis in (0, 1)]
    return ifft2(fft2(images) * (ramp[0][:, None, :, None] * ramp[1][:, None, None, :]))


def _root_of_summed_intensity(waves: Array) -> Array:
    xp = array_module(waves)
    if waves.shape[1] == 1:
        return xp.abs(waves[:, 0])
    intensity = abs2(waves[:, 0])
    for mode in range(1, waves.shape[1]):
        intensity += abs2(waves[:, mode])
    return xp.sqrt(intensity, out=intensity)
