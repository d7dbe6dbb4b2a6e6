"""The flux of each frame, where nothing has measured it: counts over what the model lets through.

The light that reaches the detector is not the flux, as the sample absorbs: what is compared with is the
light behind the object as it is now.
"""

import numpy as np

from operators.arrays import Array, Corners, Mask, Object, Probe, abs2, to_numpy
from operators.optics.forward import intensities
from operators.patches import extract_patches

_SHARE = 0.5  # of what is missing that is taken at once: the object follows in between
_AT_A_TIME = 64  # frames
_LIMITS = (0.05, 20.0)


def modelled_power(object_: Object, probe: Probe, corners: Corners, mask: Mask | None) -> np.ndarray:
    """Return the light on valid pixels of these frames, (frame,) float64, photons, on the host.

    Parameters
    ----------
    object_ : (row, col) complex64
    probe : (mode, y, x) complex64
    corners : (frame, 2) int64, top-left pixels (row, col) of the probe windows in the object array
    mask : (ky, kx) bool, True where valid, corner-origin, or None
        Without one no Fourier transform is needed.
    """
    illumination = abs2(probe).sum(axis=0)
    powers = []
    for start in range(0, len(corners), _AT_A_TIME):
        patches = extract_patches(object_, corners[start : start + _AT_A_TIME], probe.shape[-1])
        light: Array = abs2(patches) * illumination if mask is None else intensities(probe, patches) * mask
        powers.append(to_numpy(light.sum(axis=(1, 2))).astype(np.float64))
    return np.concatenate(powers)


def next_flux(flux: np.ndarray, measured: np.ndarray, modelled: np.ndarray) -> np.ndarray:
    """Return a better estimate of the flux of frames, relative to their mean, (frame,) float64.

    Counts over modelled light is the likeliest flux of a frame under Poisson noise. All frames brighter and
    the object darker would be the same data: the mean stays 1.

    Parameters
    ----------
    flux : (frame,) float64
        The estimate so far, 1 at first.
    measured, modelled : (frame,) float64, photons on valid pixels
        Modelled at a flux of 1.
    """
    is_told = np.isfinite(modelled) & (modelled > 0) & (measured > 0)
    if not is_told.any():  # diverged: the end of the epoch deals with it
        return flux
    seen = np.where(is_told, measured / np.where(is_told, modelled, 1), np.nan)
    seen = np.clip(seen / np.nanmean(seen), *_LIMITS)
    better = np.where(is_told, flux + _SHARE * (np.nan_to_num(seen) - flux), flux)
    return np.asarray(better / better.mean())
