"""Random phases in the way of a beam: aberrations of an optic, or a diffuser."""

import numpy as np
from scipy import ndimage


def phase_screen(
    shape: tuple[int, int], rms_rad: float, grain_px: float, rng: np.random.Generator
) -> np.ndarray:
    """Return exp(i phase) of a random phase, (y, x) complex64: aberrations of an optic, or a diffuser.

    Multiplied with a probe it is a diffuser in front of the sample, multiplied with a pupil an imperfect
    optic.

    Parameters
    ----------
    shape : (int, int)
    rms_rad : float
        Root-mean-square of the phase.
    grain_px : float
        Standard deviation of the Gaussian that white noise is smoothed with.
    rng : numpy.random.Generator
    """
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape), grain_px, mode="wrap")
    return np.exp(1j * rms_rad * smooth / smooth.std()).astype(np.complex64)
