"""Compiled loops of one frame's update: what NumPy would do in several passes over memory, done in one.

Separate because this is the only file that imports numba, an optional dependency: importing it costs a
second and the first call of each loop compiles it, once per computer. Called by `operators.epie_compiled`.
The loops release the interpreter lock, so that a caller's threads run side by side.
"""

import math

import numpy as np
from numba import njit

from operators.arrays import Array, Object, Probe
from operators.epie import OVERLAP_LIMIT, TINY

_TINY = np.float32(TINY)
_THREE, _EIGHT, _QUARTER = np.float32(3), np.float32(8), np.float32(0.25)
_EXPONENTS = np.float32(2.0 ** (127 - 15))  # of single and half precision
_PER_LIMIT = np.float32(1 / OVERLAP_LIMIT)
# everything that may be rounded differently, but NaN and infinity stay: they show divergence
_FAST = {"contract", "reassoc", "nsz", "arcp", "afn"}
_compiled = njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")


@_compiled
def exit_waves(object_: Object, probe: Probe, row: int, column: int, waves: Array) -> None:
    """Write probe times object under the window at (row, column) into `waves` (mode, y, x)."""
    n_modes, n_rows, n_columns = probe.shape
    for mode in range(n_modes):
        for y in range(n_rows):
            line = object_[row + y, column : column + n_columns]
            for x in range(n_columns):
                waves[mode, y, x] = line[x] * probe[mode, y, x]


@_compiled
def modulus_correction(
    waves: Array,
    halves: Array,
    valid: Array,
    is_poisson: bool,
    modulus: Array,
    bits: Array,
    amplitudes: Array,
) -> float:
    """Replace unnormalised far-field `waves` by their correction, scaled for an unnormalised inverse.

    Parameters
    ----------
    waves : (mode, ky, kx) complex64
    halves : (ky, kx) uint16, the bits of float16 amplitudes, sqrt(photons), not negative
    valid : (ky, kx) bool
    is_poisson : bool
        As in `operators.epie.modulus_correction`.
    modulus : (kx,) float32, scratch
    bits : (kx,) uint32, scratch
    amplitudes : (kx,) float32
        The same memory as `bits`: a half, shifted to where a single has exponent and fraction, is too small
        by the difference of the exponents' offsets, and else the same number.

    Returns
    -------
    error : float
        sum (|F| - sqrt(I))**2 over valid pixels, photons.
    """
    n_modes, n_rows, n_columns = waves.shape
    to_unitary = np.float32(1 / math.sqrt(n_rows * n_columns))
    for_inverse = np.float32(1 / (n_rows * n_columns))
    total = 0.0
    for y in range(n_rows):
        for x in range(n_columns):
            wave = waves[0, y, x]
            modulus[x] = wave.real * wave.real + wave.imag * wave.imag
        for mode in range(1, n_modes):
            for x in range(n_columns):
                wave = waves[mode, y, x]
                modulus[x] += wave.real * wave.real + wave.imag * wave.imag
        for x in range(n_columns):
            bits[x] = np.uint32(halves[y, x]) << 13
        error = np.float32(0)
        for x in range(n_columns):
            found = np.sqrt(modulus[x]) * to_unitary
            missing = (amplitudes[x] * _EXPONENTS - found) * valid[y, x]
            error += missing * missing
            if is_poisson:
                measured = amplitudes[x] * _EXPONENTS
                likelier = np.sqrt(found * found + _EIGHT * measured * measured)
                missing = (likelier - _THREE * found) * _QUARTER * valid[y, x]
            modulus[x] = missing / (found + _TINY) * for_inverse
        total += float(error)
        for mode in range(n_modes):
            for x in range(n_columns):
                waves[mode, y, x] *= modulus[x]
    return total


@_compiled
def add_corrections(
    corrections: Array,
    probe: Probe,
    intensity: Array,
    object_: Object,
    row: int,
    column: int,
    weight: float,
    object_sums: Array,
    lights: Array,
    probe_sums: Probe,
    transmission: Array,
) -> None:
    """Add what the exit waves' `corrections` (mode, y, x) under one window say about object and probe.

    To the object's sums conj(probe) times them, to its lights the probe's `intensity`; to the probe's sums
    `weight` times conj(object) times them, to `transmission` as much of the object's squared modulus.
    """
    n_modes, n_rows, n_columns = probe.shape
    for y in range(n_rows):
        line = object_sums[row + y, column : column + n_columns]
        light = lights[row + y, column : column + n_columns]
        patch = object_[row + y, column : column + n_columns]
        for x in range(n_columns):
            light[x] += intensity[y, x]
            line[x] += corrections[0, y, x] * np.conj(probe[0, y, x])
        for mode in range(1, n_modes):
            for x in range(n_columns):
                line[x] += corrections[mode, y, x] * np.conj(probe[mode, y, x])
        if weight == 0:
            continue
        for x in range(n_columns):
            transmission[y, x] += weight * (patch[x].real * patch[x].real + patch[x].imag * patch[x].imag)
            probe_sums[0, y, x] += corrections[0, y, x] * (weight * np.conj(patch[x]))
        for mode in range(1, n_modes):
            for x in range(n_columns):
                probe_sums[mode, y, x] += corrections[mode, y, x] * (weight * np.conj(patch[x]))


@_compiled
def position_gradient(
    corrections: Array, probe: Probe, object_: Object, row: int, column: int, sums: Array
) -> None:
    """Write what `operators.position_steps.gradient_sums` returns for one frame into `sums` (5)."""
    n_modes, n_rows, n_columns = probe.shape
    half = np.float32(0.5)
    total_yy, total_yx, total_xx, total_y, total_x = 0.0, 0.0, 0.0, 0.0, 0.0
    for y in range(n_rows):
        yy = yx = xx = to_y = to_x = np.float32(0)
        inner_row = half if 0 < y < n_rows - 1 else np.float32(0)
        above = object_[row + max(y - 1, 0), column : column + n_columns]
        here = object_[row + y, column : column + n_columns]
        below = object_[row + min(y + 1, n_rows - 1), column : column + n_columns]
        for mode in range(n_modes):
            for x in range(n_columns):
                inner_column = half if 0 < x < n_columns - 1 else np.float32(0)
                along_y = (below[x] - above[x]) * inner_row
                along_x = (here[min(x + 1, n_columns - 1)] - here[max(x - 1, 0)]) * inner_column
                light = probe[mode, y, x]
                moved = corrections[mode, y, x] * np.conj(light)
                power = light.real * light.real + light.imag * light.imag
                yy += power * (along_y.real * along_y.real + along_y.imag * along_y.imag)
                yx += power * (along_y.real * along_x.real + along_y.imag * along_x.imag)
                xx += power * (along_x.real * along_x.real + along_x.imag * along_x.imag)
                to_y += moved.real * along_y.real + moved.imag * along_y.imag
                to_x += moved.real * along_x.real + moved.imag * along_x.imag
        total_yy += float(yy)
        total_yx += float(yx)
        total_xx += float(xx)
        total_y += float(to_y)
        total_x += float(to_x)
    sums[0], sums[1], sums[2], sums[3], sums[4] = total_yy, total_yx, total_xx, total_y, total_x


@_compiled
def merge_sums(
    corners: Array,
    n_pixels: int,
    start: int,
    stop: int,
    sums: Array,
    lights: Array,
    more_sums: Array,
    more_lights: Array,
) -> None:
    """Move `more_sums` and `more_lights` under the windows, on rows [start, stop), to the others."""
    for row, column in corners:
        for y in range(max(row, start), min(row + n_pixels, stop)):
            for x in range(column, column + n_pixels):
                sums[y, x] += more_sums[y, x]
                lights[y, x] += more_lights[y, x]
                # Zero is also what the next window that covers this pixel has to add.
                more_sums[y, x] = 0
                more_lights[y, x] = 0


@_compiled
def move_object(
    object_: Object,
    corners: Array,
    n_pixels: int,
    start: int,
    stop: int,
    sums: Array,
    lights: Array,
    peak: float,
    alpha: float,
    step: float,
) -> None:
    """Move the object under the windows, on rows [start, stop), and leave zero sums behind."""
    from_limit, from_light = alpha * _PER_LIMIT, np.float32(1) - alpha
    least = alpha * peak
    factors = np.empty(n_pixels, np.float32)
    for row, column in corners:
        for y in range(max(row, start), min(row + n_pixels, stop)):
            light = lights[y, column : column + n_pixels]
            line = sums[y, column : column + n_pixels]
            moved = object_[y, column : column + n_pixels]
            for x in range(n_pixels):
                limited = light[x] * from_limit
                factors[x] = step / ((limited if limited > least else least) + from_light * light[x])
                light[x] = 0
            for x in range(n_pixels):
                moved[x] += line[x] * factors[x]
                line[x] = 0


@_compiled
def intensity(probe: Probe, out: Array) -> None:
    """Write the summed intensity of the modes into `out` (y, x)."""
    n_modes, n_rows, n_columns = probe.shape
    for y in range(n_rows):
        for x in range(n_columns):
            total = np.float32(0)
            for mode in range(n_modes):
                value = probe[mode, y, x]
                total += value.real * value.real + value.imag * value.imag
            out[y, x] = total


@_compiled
def apply_ramp(waves: Array, rows: Array, columns: Array, out: Array) -> None:
    """Write `waves` (mode, ky, kx) times the outer product of `rows` and `columns` into `out`."""
    n_modes, n_rows, n_columns = waves.shape
    for mode in range(n_modes):
        for y in range(n_rows):
            for x in range(n_columns):
                out[mode, y, x] = waves[mode, y, x] * (rows[y] * columns[x])
