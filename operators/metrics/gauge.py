"""What ptychography cannot know about an object: its global phase, a linear phase ramp and a shift.

Removing a gauge is a decision of the caller, never of a score.
"""

from dataclasses import dataclass

from operators.arrays import Array, ArrayModule, Object, abs2, array_module, fft2, ifft2
from operators.optics.probe import phase_ramp, probe_tilt

ZOOM_LEVELS = 4  # each narrows the search for a peak eightfold, in the end to 1/8000 of a Fourier pixel
ROUNDS = 3  # of ramp and shift in turns; the second already agrees with the first to 0.01 pixel


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """What an object differs by from a reference without being a different object.

    Parameters
    ----------
    shift_px : (float, float), object pixels
        The object is the reference moved by this much, (y, x).
    ramp : (float, float), cycles/pixel
        Its linear phase, (y, x), zero at element [0, 0].
    factor : complex
        Its global phase, and amplitude where a scale was asked for.
    """

    shift_px: tuple[float, float] = (0.0, 0.0)
    ramp: tuple[float, float] = (0.0, 0.0)
    factor: complex = 1.0

    def remove_from(self, a: Object) -> Object:
        """Return `a`, (row, col) complex, without ramp, shift and factor.

        What the shift moves in at the border is mirrored, not measured: crop it before scoring.
        """
        return (_shifted_back(_deramped(a, self.ramp), self.shift_px) / self.factor).astype(a.dtype)


def remove_gauge(
    a: Object,
    reference: Object,
    *,
    ramp: bool = True,
    shift: bool = True,
    scale: bool = False,
    weights: Array | None = None,
) -> Object:
    """Return `a` brought onto `reference`: `find_gauge`, then `Gauge.remove_from`."""
    return find_gauge(a, reference, ramp=ramp, shift=shift, scale=scale, weights=weights).remove_from(a)


def find_gauge(
    a: Object,
    reference: Object,
    *,
    ramp: bool = True,
    shift: bool = True,
    scale: bool = False,
    weights: Array | None = None,
) -> Gauge:
    """Return the gauge of `a` relative to `reference`: remove it, and the two are closest.

    Parameters
    ----------
    a, reference : (row, col) complex
        Of equal shape.
    ramp, shift, scale : bool
        What may differ beside the global phase.
    weights : (row, col) real, optional
        Where to look, for example the scanned region; a Hann window is applied in any case.

    Raises
    ------
    ValueError
        If the shapes differ.

    Notes
    -----
    A ramp multiplies the phase step between neighbours by a constant, so the peak in the correlation of
    these steps gives the whole-pixel shift whatever the ramp. From there, ramp and shift are refined in
    turns at the peaks of zoomed Fourier transforms (Guizar-Sicairos et al., Opt. Lett. 33 (2008) 156).
    """
    if a.shape != reference.shape:
        raise ValueError(f"expected pictures of equal shape, got {a.shape} and {reference.shape}")
    xp = array_module(a)
    a, reference = a.astype(xp.complex128), reference.astype(xp.complex128)
    window = hann_window(xp, a.shape) * (1.0 if weights is None else weights)
    moved = _whole_pixel_shift(a, reference, window) if shift else (0.0, 0.0)
    slope = (0.0, 0.0)
    for _ in range(ROUNDS):
        if ramp:
            aligned = _shifted_back(_deramped(a, slope), moved)
            slope = _sum(slope, _peak_frequency(window * aligned * reference.conj()))
        if shift:
            aligned = _shifted_back(_deramped(a, slope), moved)
            moved = _sum(moved, _fine_shift(aligned, reference, window))
    aligned = _shifted_back(_deramped(a, slope), moved)
    factor = complex((window * aligned * reference.conj()).sum() / (window * abs2(reference)).sum())
    return Gauge(shift_px=moved, ramp=slope, factor=factor if scale else factor / abs(factor))


def flattened(object_: Object, weights: Array) -> tuple[Object, Array]:
    """Return an object without its mean phase ramp, and that ramp.

    A probe times the ramp (`operators.optics.probe.phase_ramp`) makes the same patterns of the flat object.

    Parameters
    ----------
    object_ : (row, col) complex64
    weights : (row, col) real or bool
        How well each pixel is known, for example its photons; 0 or False where it is not.

    Returns
    -------
    object : (row, col) complex64
    slope : (2,) float32, rad/pixel
        Mean phase step between neighbours, along y and along x; 0 where none are known.

    Notes
    -----
    Steps between neighbours need no unwrapping, and those at the edges of a structure, which a plane fitted
    to the phase would follow, cancel or count little: flat parts of the object become level.
    """
    xp = array_module(object_)
    amplitudes = xp.sqrt(xp.asarray(weights, xp.float32))
    slope = probe_tilt(xp.where(amplitudes > 0, object_ * amplitudes, 0)[None])
    return object_ * phase_ramp(object_.shape, -slope), slope


def hann_window(xp: ArrayModule, shape: tuple[int, int]) -> Array:
    """Return a Hann window over rows and columns, zero outside and positive on every pixel, float64."""
    rows, columns = (xp.hanning(n + 2)[1:-1] for n in shape)
    return rows[:, None] * columns


def _sum(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    return a[0] + b[0], a[1] + b[1]


def _deramped(a: Object, ramp: tuple[float, float]) -> Object:
    xp = array_module(a)
    rows, columns = (xp.exp(-2j * xp.pi * k * xp.arange(n)) for k, n in zip(ramp, a.shape, strict=True))
    return a * rows[:, None] * columns


def _shifted_back(a: Object, shift_px: tuple[float, float]) -> Object:
    """Return a(r + shift), interpolated in Fourier space over a mirrored, hence continuous, extension."""
    if shift_px == (0.0, 0.0):
        return a
    xp = array_module(a)
    mirrored = xp.pad(a, [(0, n) for n in a.shape], mode="symmetric")
    rows, columns = (
        xp.exp(2j * xp.pi * xp.fft.fftfreq(n) * s) for n, s in zip(mirrored.shape, shift_px, strict=True)
    )
    return ifft2(fft2(mirrored) * rows[:, None] * columns)[: a.shape[0], : a.shape[1]]


def _whole_pixel_shift(a: Object, reference: Object, window: Array) -> tuple[float, float]:
    xp = array_module(a)
    window = window[:-1, :-1]
    correlation = xp.zeros(window.shape)
    for steps_a, steps_reference in zip(_phase_steps(a), _phase_steps(reference), strict=True):
        spectra = [fft2(_without_mean(steps, window)) for steps in (steps_a, steps_reference)]
        correlation += abs(ifft2(spectra[0] * spectra[1].conj()))
    peak = xp.unravel_index(correlation.argmax(), correlation.shape)
    row, column = (_signed(int(i), n) for i, n in zip(peak, correlation.shape, strict=True))
    return float(row), float(column)


def _phase_steps(a: Object) -> tuple[Object, Object]:
    here = a[:-1, :-1].conj()
    return a[1:, :-1] * here, a[:-1, 1:] * here


def _fine_shift(a: Object, reference: Object, window: Array) -> tuple[float, float]:
    xp = array_module(a)
    cross = fft2(_without_mean(a, window)) * fft2(_without_mean(reference, window)).conj()
    # The spectrum of a picture moved by s turns by -s/n per Fourier pixel.
    row, column = _peak_frequency(xp.fft.fftshift(cross))
    return -row * a.shape[0], -column * a.shape[1]


def _without_mean(a: Array, window: Array) -> Array:
    # A mean left in would correlate the windows instead of the pictures, and pull every shift to zero.
    return window * (a - (window * a).sum() / window.sum())


def _peak_frequency(values: Array) -> tuple[float, float]:
    """Return the frequency (row, col), cycles per element, where the Fourier transform is strongest."""
    xp = array_module(values)
    padded = [2 * n for n in values.shape]
    spectrum = abs(xp.fft.fft2(values, s=padded))
    peak = xp.unravel_index(spectrum.argmax(), spectrum.shape)
    frequency = [_signed(int(i), n) / n for i, n in zip(peak, padded, strict=True)]
    half_width = [1 / n for n in padded]
    for _ in range(ZOOM_LEVELS):
        grids = [f + w * xp.linspace(-1, 1, 17) for f, w in zip(frequency, half_width, strict=True)]
        rows, columns = (
            xp.exp(-2j * xp.pi * grid[:, None] * xp.arange(n))
            for grid, n in zip(grids, values.shape, strict=True)
        )
        zoomed = abs(rows @ values @ columns.T)
        peak = xp.unravel_index(zoomed.argmax(), zoomed.shape)
        frequency = [float(grid[int(i)]) for grid, i in zip(grids, peak, strict=True)]
        half_width = [w / 8 for w in half_width]
    return frequency[0], frequency[1]


def _signed(index: int, n: int) -> int:
    return index - n if index >= (n + 1) // 2 else index
