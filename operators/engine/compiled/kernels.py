"""Compiled loops of an update: what NumPy would do in several passes over memory, done in one.

The loops release the interpreter lock, so that a caller's threads run side by side.
"""

import math

import numpy as np
from numba import njit

from operators.arrays import Array, Object, Probe
from operators.engine.compiled.calls import call
from operators.engine.compiled.fftw import Plan
from operators.engine.epie import OVERLAP_LIMIT, TINY

_TINY = np.float32(TINY)
_ONE, _THREE, _EIGHT, _QUARTER = np.float32(1), np.float32(3), np.float32(8), np.float32(0.25)
_EXPONENTS = np.float32(2.0 ** (127 - 15))  # of single and half precision
_PER_LIMIT = np.float32(1 / OVERLAP_LIMIT)
# everything that may be rounded differently, but NaN and infinity stay: they show divergence
_FAST = {"contract", "reassoc", "nsz", "arcp", "afn"}
_compiled = njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")
_part_of_one = njit(fastmath=_FAST, error_model="numpy")
_inlined = njit(fastmath=_FAST, inline="always")  # a call would cost as much as what it does to one row


@_compiled
def transform(plan: Plan, waves: Array) -> None:
    """Run a plan of `fftw` in place on one frame's `waves`, (mode, y, x or more) complex64."""
    call(plan.execute, plan.plan, waves.ctypes.data)


@_compiled
def correct_waves(
    object_: Object,
    probes: Array,
    corners: Array,
    halves: Array,
    slots: Array,
    valid: Array,
    is_poisson: bool,
    to_detector: Plan,
    to_sample: Plan,
    part: int,
    n_parts: int,
    waves: Array,
    errors: Array,
    gradients: Array,
) -> None:
    """Leave the corrections of the exit waves of one of `n_parts` shares of the frames.

    Parameters
    ----------
    object_ : (row, col) complex64
    probes : (frame or 1, mode, y, x) complex64
    corners : (frame, 2) int64
    halves : (slot, ky, kx) uint16, the bits of float16 amplitudes, sqrt(photons), not negative
    slots : (frame,) int64, where each frame's amplitudes are
    valid : (ky, kx) bool
    is_poisson : bool
        As in `operators.engine.epie.modulus_correction`.
    to_detector, to_sample : Plan
        For the waves of a frame.
    part, n_parts : int
    waves : (frame, mode, y, x or more) complex64
        Gets the corrections.
    errors : (frame,) float32
        Gets sum (|F| - sqrt(I))**2 over valid pixels, photons.
    gradients : (frame or 0, 5) float32
        Unless empty, gets what `operators.engine.position_steps` needs.
    """
    for frame in range(part, len(corners), n_parts):
        row, column = corners[frame]
        probe = probes[frame if len(probes) > 1 else 0]
        _exit_waves(object_, probe, row, column, waves[frame])
        transform(to_detector, waves[frame])
        errors[frame] = _modulus_correction(waves[frame], halves[slots[frame]], valid, is_poisson)
        transform(to_sample, waves[frame])
        if len(gradients):
            _position_gradient(waves[frame], probe, object_, row, column, gradients[frame])


@_part_of_one
def _exit_waves(object_: Object, probe: Probe, row: int, column: int, waves: Array) -> None:
    """Write probe times object under the window at (row, column) into `waves` (mode, y, x)."""
    n_modes, n_rows, n_columns = probe.shape
    for mode in range(n_modes):
        for y in range(n_rows):
            line = object_[row + y, column : column + n_columns]
            for x in range(n_columns):
                waves[mode, y, x] = line[x] * probe[mode, y, x]


@_part_of_one
def _modulus_correction(waves: Array, halves: Array, valid: Array, is_poisson: bool) -> float:
    """Replace unnormalised far-field `waves` by their correction, scaled for an unnormalised inverse."""
    n_rows, n_columns = halves.shape
    to_unitary = np.float32(1 / math.sqrt(n_rows * n_columns))
    for_inverse = np.float32(1 / (n_rows * n_columns))
    modulus, total = np.empty(n_columns, np.float32), 0.0
    for y in range(n_rows):
        modulus[:] = 0
        for mode in range(len(waves)):
            wave = waves[mode, y].view(np.float32)
            for x in range(n_columns):
                modulus[x] += wave[2 * x] * wave[2 * x] + wave[2 * x + 1] * wave[2 * x + 1]
        error = np.float32(0)
        for x in range(n_columns):
            # A half, shifted to where a single has exponent and fraction, is too small by the difference of
            # the exponents' offsets, and else the same number.
            measured = np.uint32(np.uint32(halves[y, x]) << 13).view(np.float32) * _EXPONENTS
            found = np.sqrt(modulus[x]) * to_unitary
            missing = (measured - found) * valid[y, x]
            error += missing * missing
            if is_poisson:
                likelier = np.sqrt(found * found + _EIGHT * measured * measured)
                missing = (likelier - _THREE * found) * _QUARTER * valid[y, x]
            modulus[x] = missing / (found + _TINY) * for_inverse
        total += float(error)
        for mode in range(len(waves)):
            wave = waves[mode, y].view(np.float32)
            for x in range(n_columns):
                wave[2 * x] *= modulus[x]
                wave[2 * x + 1] *= modulus[x]
    return total


@_part_of_one
def _position_gradient(
    corrections: Array, probe: Probe, object_: Object, row: int, column: int, sums: Array
) -> None:
    """Write what `operators.engine.position_steps.gradient_sums` returns for one frame into `sums` (5)."""
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


@_inlined
def _add_products(wave: Array, field: Array, weight: np.float32, sums: Array, powers: Array) -> None:
    """Add weight times conj(field) times wave to the sums, and as much of |field|^2 to the powers."""
    for x in range(len(powers)):
        a, b, c, d = wave[2 * x], wave[2 * x + 1], field[2 * x], field[2 * x + 1]
        powers[x] += weight * (c * c + d * d)
        sums[2 * x] += weight * (a * c + b * d)
        sums[2 * x + 1] += weight * (b * c - a * d)


@_inlined
def _multiply(wave: Array, field: Array, weight: np.float32, powers: Array) -> None:
    """Multiply the wave by weight times conj(field), and add as much of |field|^2 to the powers."""
    for x in range(len(powers)):
        a, b, c, d = wave[2 * x], wave[2 * x + 1], field[2 * x], field[2 * x + 1]
        powers[x] += weight * (c * c + d * d)
        wave[2 * x] = weight * (a * c + b * d)
        wave[2 * x + 1] = weight * (b * c - a * d)


@_inlined
def _move(moved: Array, sums: Array, lights: Array, peak: float, alpha: float, step: float) -> None:
    """Move pixels along their sums, and leave zeros behind."""
    # in double precision, as Python's floats come, it would take twice as long
    full_step, from_limit = np.float32(step), np.float32(alpha) * _PER_LIMIT
    from_light, least = np.float32(1 - alpha), np.float32(alpha * peak)
    for x in range(len(lights)):
        limited = lights[x] * from_limit
        factor = full_step / ((limited if limited > least else least) + from_light * lights[x])
        moved[2 * x] += sums[2 * x] * factor
        moved[2 * x + 1] += sums[2 * x + 1] * factor
        sums[2 * x] = sums[2 * x + 1] = lights[x] = 0


@_inlined
def _sum_row(
    row: Array,
    probes: Array,
    waves: Array,
    rows: Array,
    columns: Array,
    order: Array,
    weights: Array,
    leaves_products: bool,
    sums: Array,
    lights: Array,
    unread: Array,
    probe_sums: Array,
    transmission: Array,
) -> None:
    """Sum what the windows over one row of the object say about it and about the probe.

    `rows` and `columns` as `_move_row` takes them; `unread` (x,) is written over.
    """
    n_modes, n_pixels = waves.shape[1:3]
    for frame in order:
        y, column, weight = rows[frame], columns[frame], weights[frame]
        if y < 0 or y >= n_pixels:
            continue
        own, pairs = frame if len(probes) > 1 else 0, slice(2 * column, 2 * (column + n_pixels))
        patch, to_object, light = row[pairs], sums[pairs], lights[column : column + n_pixels]
        for mode in range(n_modes):
            _add_products(waves[frame, mode, y], probes[own, mode, y], _ONE, to_object, light)
        for mode in range(n_modes if weight else 0):
            power = unread if mode else transmission[y]
            if leaves_products:
                _multiply(waves[frame, mode, y], patch, weight, power)
            else:
                _add_products(waves[frame, mode, y], patch, weight, probe_sums[mode, y], power)


@_part_of_one
def _move_row(
    moved: Array,
    sums: Array,
    lights: Array,
    rows: Array,
    columns: Array,
    order: Array,
    n_pixels: int,
    peak: float,
    alpha: float,
    step: float,
) -> None:
    """Move one row of the object under the windows that reach it, each pixel once.

    `rows` (frame,) says which of its rows each window has there, `columns` (frame,) where it begins.
    """
    done = 0  # columns
    for frame in order:
        if 0 <= rows[frame] < n_pixels:
            column, done = max(columns[frame], done), columns[frame] + n_pixels
            pairs = slice(2 * column, 2 * done)
            _move(moved[pairs], sums[pairs], lights[column:done], peak, alpha, step)


@_compiled
def move_rows(
    object_: Array,
    probes: Array,
    waves: Array,
    corners: Array,
    order: Array,
    weights: Array,
    leaves_products: bool,
    part: int,
    n_parts: int,
    peak: float,
    alpha: float,
    step: float,
    probe_sums: Array,
    transmission: Array,
) -> None:
    """Move one of `n_parts` shares of the rows under the windows, and sum what they say about the probe.

    Parameters
    ----------
    object_ : (row, 2 col) float32
        Complex values are pairs of float32 along the last axis: as such the loops need half the shuffling.
    probes : (frame or 1, mode, y, 2 x) float32
    waves : (frame, mode, y, 2 x) float32, corrections of the exit waves
    corners : (frame, 2) int64
    order : (frame,) int64, frames from the leftmost window to the rightmost
    weights : (frame,) float32, of the frames for the probe
    leaves_products : bool, whether a wave becomes its share of the probe's correction, which is not summed
    peak, alpha, step : float
        As in `operators.engine.epie.update`.
    probe_sums : (mode, y, 2 x) float32
        Gets the sum of weight times conj(object) times the corrections.
    transmission : (y, x) float32
        Gets the sum of weight times the object's squared modulus.
    """
    n_pixels = waves.shape[2]
    top = corners[:, 0].min()
    n_rows = corners[:, 0].max() + n_pixels - top
    start, stop = top + n_rows * part // n_parts, top + n_rows * (part + 1) // n_parts
    probe_sums[:] = 0
    transmission[:] = 0
    sums, unread = np.zeros(object_.shape[1], np.float32), np.zeros(n_pixels, np.float32)
    lights = np.zeros(object_.shape[1] // 2, np.float32)
    for row in range(start, stop):
        rows = row - corners[:, 0]
        _sum_row(
            object_[row], probes, waves, rows, corners[:, 1], order, weights, leaves_products,
            sums, lights, unread, probe_sums, transmission,
        )  # fmt: skip
        _move_row(object_[row], sums, lights, rows, corners[:, 1], order, n_pixels, peak, alpha, step)


@_compiled
def move_probe(
    probe: Probe, sums: Array, transmissions: Array, alpha: float, step: float, photons: float
) -> None:
    """Move the probe (mode, y, x) by the sums of all workers, (worker, mode, y, x) and (worker, y, x).

    Unless `photons` is 0, the probe is scaled to that power, as `operators.optics.probe.with_power` does.
    """
    n_modes, n_rows, n_columns = probe.shape
    transmission = transmissions[0]
    for worker in range(1, len(transmissions)):
        transmission += transmissions[worker]
    full_step, share = np.float32(step), np.float32(1 - alpha)
    least = np.float32(alpha) * transmission.max() + _TINY
    factors, power = np.empty(n_columns, np.float32), 0.0
    for y in range(n_rows):
        for x in range(n_columns):
            factors[x] = full_step / (share * transmission[y, x] + least)
        for mode in range(n_modes):
            for worker in range(len(sums)):
                for x in range(n_columns):
                    probe[mode, y, x] += sums[worker, mode, y, x] * factors[x]
            row_power = np.float32(0)
            for x in range(n_columns):
                value = probe[mode, y, x]
                row_power += value.real * value.real + value.imag * value.imag
            power += float(row_power)
    if photons:
        probe *= np.float32(math.sqrt(photons / power))


@_compiled
def peak_intensity(probe: Probe) -> np.float32:
    """Return the largest summed intensity of the modes, (mode, y, x) complex64."""
    n_modes, n_rows, n_columns = probe.shape
    intensity, peak = np.empty(n_columns, np.float32), np.float32(0)
    for y in range(n_rows):
        intensity[:] = 0
        for mode in range(n_modes):
            for x in range(n_columns):
                value = probe[mode, y, x]
                intensity[x] += value.real * value.real + value.imag * value.imag
        peak = max(peak, intensity.max())
    return peak


@_compiled
def shift_probes(
    spectrum: Probe, ramps: Array, to_sample: Plan, part: int, n_parts: int, waves: Array, probes: Array
) -> None:
    """Write the probe at the fractions of a pixel of a share of the frames into `probes`; `waves` is lost.

    Parameters
    ----------
    spectrum : (mode, ky, kx) complex64, of the probe, normalised for an unnormalised inverse
    ramps : (frame, 2, k) complex64, phase ramps along y and x
    to_sample, part, n_parts, waves
        As in `correct_waves`.
    probes : (frame, mode, y, x) complex64
    """
    n_modes, n_rows, n_columns = spectrum.shape
    for frame in range(part, len(probes), n_parts):
        for mode in range(n_modes):
            for y in range(n_rows):
                for x in range(n_columns):
                    waves[frame, mode, y, x] = spectrum[mode, y, x] * (
                        ramps[frame, 0, y] * ramps[frame, 1, x]
                    )
        transform(to_sample, waves[frame])
        probes[frame] = waves[frame, :, :, :n_columns]


@_compiled
def shift_back(
    weights: Array, ramps: Array, to_detector: Plan, part: int, n_parts: int, waves: Array, sums: Array
) -> None:
    """Add spectra of a share of the waves, moved back, to `sums` (mode, ky, kx); see `shift_probes`."""
    n_modes, n_rows, n_columns = sums.shape
    for frame in range(part, len(weights), n_parts):
        if not weights[frame]:
            continue
        transform(to_detector, waves[frame])
        for mode in range(n_modes):
            for y in range(n_rows):
                for x in range(n_columns):
                    ramp = ramps[frame, 0, y] * ramps[frame, 1, x]
                    sums[mode, y, x] += waves[frame, mode, y, x] * np.conj(ramp)
