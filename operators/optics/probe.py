"""Probes: simulated ones, a start from the data, and what keeps a refined probe physical.

Searching the curvature of a start from data needs the engine and lives in `operators.engine.probe_search`.
"""

import itertools

import numpy as np

from operators.arrays import Array, Probe, abs2, array_module, fft2, ifft2, to_numpy

MOST_MODES = 32  # more than any scan has told apart


def check_modes(n_modes: int) -> None:
    """Raise ValueError if a probe has more modes than any beam."""
    if n_modes > MOST_MODES:
        raise ValueError(
            f"wanted at most {MOST_MODES} modes of the probe, got {n_modes}: a partly coherent beam has a "
            "few, rarely more than 10"
        )


_PUPIL_EDGE_PX = 0.6  # softness of a simulated pupil: a sharp edge would ring over the whole window


def zone_plate_probe(
    n_pixels: int, pupil_radius_px: float, disc_radius_px: float, central_stop: float = 0.0
) -> np.ndarray:
    """Return the defocused focus of a zone plate, unit power, centred in its window.

    Parameters
    ----------
    n_pixels : int
        Side of the window.
    pupil_radius_px : float
        Radius of the pupil on the detector, pixels.
    disc_radius_px : float
        Radius of the defocused disc on the sample in geometrical optics, pixels; 0 is in focus.
    central_stop : float
        Radius of the central stop as a fraction of the pupil radius.

    Returns
    -------
    (y, x) complex64
        Sum of |P|^2 is 1.

    Raises
    ------
    ValueError
        If the pupil is not inside the window or the stop not inside the pupil.
    """
    if not 0 < pupil_radius_px <= n_pixels / 2 or not 0 <= central_stop < 1:
        raise ValueError(
            f"zone plate: expected 0 < pupil_radius_px <= {n_pixels / 2:g} and 0 <= central_stop < 1, "
            f"got {pupil_radius_px} and {central_stop}"
        )
    k2 = _squared_frequency(n_pixels)
    k = np.sqrt(k2)
    pupil = 1 / (1 + np.exp((k - pupil_radius_px) / _PUPIL_EDGE_PX))
    if central_stop:
        pupil -= 1 / (1 + np.exp((k - central_stop * pupil_radius_px) / _PUPIL_EDGE_PX))
    curvature = curvature_of_disc(disc_radius_px, pupil_radius_px, n_pixels)
    probe = np.fft.fftshift(ifft2(pupil * np.exp(1j * curvature * k2)))
    return (probe / np.sqrt(abs2(probe).sum())).astype(np.complex64)


def kb_mirror_probe(
    n_pixels: int, pupil_half_widths_px: tuple[float, float], disc_half_widths_px: tuple[float, float]
) -> np.ndarray:
    """Return the focus of a pair of Kirkpatrick-Baez mirrors, unit power, centred in its window.

    The aperture is a rectangle, so the focus is a product of two sinc-like profiles, and each mirror has a
    defocus of its own.

    Parameters
    ----------
    n_pixels : int
        Side of the window.
    pupil_half_widths_px : (float, float)
        Half the sides of the rectangular pupil on the detector, (rows, columns), pixels.
    disc_half_widths_px : (float, float)
        Half the sides of the defocused rectangle on the sample in geometrical optics, pixels; 0 is in focus.

    Returns
    -------
    (y, x) complex64
        Sum of |P|^2 is 1.

    Raises
    ------
    ValueError
        If the pupil is not inside the window.
    """
    if not all(0 < half <= n_pixels / 2 for half in pupil_half_widths_px):
        raise ValueError(
            f"KB mirrors: expected 0 < pupil_half_widths_px <= {n_pixels / 2:g}, got {pupil_half_widths_px}"
        )
    k = np.fft.fftfreq(n_pixels) * n_pixels
    profiles = []
    for pupil, disc in zip(pupil_half_widths_px, disc_half_widths_px, strict=True):
        aperture = 1 / (1 + np.exp((np.abs(k) - pupil) / _PUPIL_EDGE_PX))
        profiles.append(aperture * np.exp(1j * curvature_of_disc(disc, pupil, n_pixels) * k**2))
    probe = np.fft.fftshift(ifft2(np.outer(*profiles)))
    return (probe / np.sqrt(abs2(probe).sum())).astype(np.complex64)


def probe_from_mean(mean_pattern: Array, curvature: float) -> np.ndarray:
    """Return the probe whose far field has the modulus of the mean pattern and a quadratic phase.

    Parameters
    ----------
    mean_pattern : (ky, kx) float, photons, corner-origin
    curvature : float, rad
        Phase per squared frequency step; 0 is a focus, either sign a defocus.

    Returns
    -------
    (y, x) complex64
        Sum of |P|^2 is the power of the mean pattern; centred in its window.
    """
    modulus = np.sqrt(np.maximum(mean_pattern, 0))
    waves = modulus * np.exp(1j * curvature * _squared_frequency(modulus.shape[-1]))
    return np.fft.fftshift(ifft2(waves)).astype(np.complex64)


def defocused(probe: Probe, curvature: float) -> np.ndarray:
    """Return the probe, of any number of modes, further along the beam.

    Parameters
    ----------
    probe : (mode, y, x) complex64
    curvature : float, rad
        Phase per squared frequency step that its far field gains; see `curvature_of_disc`.
    """
    phase = np.exp(1j * curvature * _squared_frequency(probe.shape[-1]))
    return ifft2(fft2(probe) * phase).astype(np.complex64)


def curvature_of_disc(disc_radius_px: float, pupil_radius_px: float, n_pixels: int) -> float:
    """Return the curvature, rad per squared frequency step, that spreads a pupil over a disc on the sample.

    The radii are in object pixels (disc) and detector pixels (pupil); `n_pixels` is the side of the window.
    """
    return np.pi * disc_radius_px / (n_pixels * pupil_radius_px)


def probe_modes(probe: Array, n_modes: int, power: float = 0.02) -> np.ndarray:
    """Return `n_modes` starting modes: the probe, and the probe times low polynomials of the coordinates.

    Parameters
    ----------
    probe : (y, x) complex64
    n_modes : int
    power : float
        Fraction of the power that each mode beyond the first gets.

    Returns
    -------
    (mode, y, x) complex64
        Of the same total power.

    Raises
    ------
    ValueError
        If there would be no mode, or one without power.
    """
    if n_modes < 1 or not 0 < power * n_modes < 1:
        raise ValueError(f"expected n_modes >= 1 of power > 0, in all below 1; got {n_modes} of {power}")
    weights = abs2(probe)
    total = weights.sum()
    grid = np.indices(probe.shape)
    # about the centroid, so that the first-order modes start orthogonal to the probe
    y, x = (axis - (axis * weights).sum() / total for axis in grid)
    orders = ((degree - k, k) for degree in itertools.count() for k in range(degree + 1))
    modes = np.stack([probe * y**j * x**k for j, k in itertools.islice(orders, n_modes)])
    shares = np.array([1 - power * (n_modes - 1)] + [power] * (n_modes - 1))
    modes *= np.sqrt(shares * total / abs2(modes).sum(axis=(1, 2)))[:, None, None]
    return modes.astype(np.complex64)


def power_scale(probe: Probe, photons: float) -> float:
    """Return the factor that gives a probe the power `photons`; probe times object stays the same.

    Early frames fix a provisional scale; once more are known the mean over all of them is the convention,
    which is also what offline reconstruction uses.
    """
    return float(np.sqrt(photons / float((np.abs(probe) ** 2).sum())))


def with_power(probe: Probe, photons: float) -> Probe:
    """Return the probe, (mode, y, x) complex64, scaled so that its |P|^2 sum up to `photons`."""
    xp = array_module(probe)
    return probe * xp.sqrt(photons / xp.vdot(probe, probe).real)


def strongest_mode(probe: Probe) -> np.ndarray:
    """Return the mode with the most photons, (y, x) complex64."""
    return np.ascontiguousarray(probe[abs2(probe).sum(axis=(1, 2)).argmax()], np.complex64)


def probe_tilt(probe: Probe) -> Array:
    """Return the mean phase step between neighbours, (2,) float32, rad/pixel, whatever the mix of modes.

    Along y and along x, of a probe (mode, y, x) complex64. Weighted with intensity it is the centroid of the
    probe's far field.
    """
    xp = array_module(probe)
    down = (probe[:, 1:] * probe[:, :-1].conj()).sum()
    right = (probe[:, :, 1:] * probe[:, :, :-1].conj()).sum()
    return xp.angle(xp.stack([down, right]))


def phase_ramp(shape: tuple[int, int], slope: Array, first: tuple[float, float] | None = None) -> Array:
    """Return exp(i slope . r), (y, x) complex64, `slope` (2,) real, rad/pixel, as from `probe_tilt`.

    `first` is r at element [0, 0], pixels; without it r counts from the centre.
    """
    xp = array_module(slope)
    first = first or (-shape[0] / 2, -shape[1] / 2)
    down, right = (
        xp.exp(1j * step * (xp.arange(n) + start)) for n, step, start in zip(shape, slope, first, strict=True)
    )
    return (down[:, None] * right).astype(xp.complex64)


def orthogonalise_modes(probe: Probe) -> Probe:
    """Return orthogonal modes of the same intensities, (mode, y, x) complex64, the strongest first.

    Notes
    -----
    The eigenvectors of the modes' mutual overlaps mix them unitarily, which leaves every summed intensity
    as it is (Thibault & Menzel, Nature 494, 68 (2013)).
    """
    if len(probe) == 1:
        return probe
    flat = probe.reshape(len(probe), -1)
    # a few numbers: the host is as fast, and a device's solver would have to be waited for as well
    _, vectors = np.linalg.eigh(to_numpy(flat.conj() @ flat.T))
    mixing = array_module(probe).asarray(vectors[:, ::-1].T)
    return (mixing @ flat).reshape(probe.shape).astype(np.complex64)


def probe_fwhm_px(probe: Probe) -> float:
    """Return the diameter of the disc of the same area as the pixels of at least half the peak intensity.

    In object pixels; of modes (mode, y, x) or of one (y, x), whose modulus is enough.
    """
    intensity = abs2(probe).sum(axis=0) if probe.ndim == 3 else abs2(probe)
    return float(2 * np.sqrt((intensity >= intensity.max() / 2).sum() / np.pi))


def probe_diameter_px(probe: Probe, share: float = 0.9) -> float:
    """Return the diameter of the disc of the area of the brightest pixels, which hold `share` of the power.

    In object pixels, of modes (mode, y, x). Wider than `probe_fwhm_px` where light lies around the focus.
    """
    brightest = np.sort(to_numpy(abs2(probe).sum(axis=0)).astype(np.float64), axis=None)[::-1]
    n_pixels = 1 + int(np.searchsorted(brightest.cumsum(), share * brightest.sum()))
    return float(2 * np.sqrt(n_pixels / np.pi))


def pupil_radius_px(mean_pattern: Array) -> float:
    """Return the radius of the uniform disc with the mean pattern's root-mean-square frequency, pixels.

    The pattern is (ky, kx) float, photons, corner-origin.
    """
    power = np.maximum(mean_pattern, 0)
    return float(np.sqrt(2 * (power * _squared_frequency(power.shape[-1])).sum() / power.sum()))


def _squared_frequency(n_pixels: int) -> np.ndarray:
    frequency = np.fft.fftfreq(n_pixels) * n_pixels
    return frequency[:, None] ** 2 + frequency**2
