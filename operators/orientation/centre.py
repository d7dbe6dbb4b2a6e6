"""Where the direct beam meets the detector, from the mean of its frames."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.signal import fftconvolve

from operators.arrays import Mask

_FAINT = 0.01  # of the peak: the edge of the beam
_ROUNDS = 3  # of filling pixels without a value from the other side


def beam_centre(mean_frame: NDArray[np.float64], valid: Mask | None = None) -> tuple[float, float]:
    """Return the pixel (row, column) about which the mean frame is most its own mirror image, with fractions.

    That is the middle of the pupil, whatever is brighter inside it on one side, or cut off outside. Frames
    say no more: to a reconstruction with a free probe any other centre is a tilt of the probe.

    Parameters
    ----------
    mean_frame : (row, col) float64, counts
    valid : (row, col) bool, True where valid, optional

    Raises
    ------
    ValueError
        If there is no light.
    """
    smooth = ndimage.median_filter(mean_frame if valid is None else mean_frame * valid, 3)
    if not smooth.max() > 0:
        raise ValueError("the mean of the frames is dark: there is no beam to find the centre of")
    top, left = _beam(smooth)
    frame = smooth[top, left]
    known = np.ones(frame.shape, bool) if valid is None else valid[top, left]
    centre = _symmetric(frame)
    for _ in range(0 if known.all() else _ROUNDS):
        mirrored = [2 * middle - index for middle, index in zip(centre, np.indices(frame.shape), strict=True)]
        centre = _symmetric(np.where(known, frame, ndimage.map_coordinates(frame, mirrored, order=1)))
    return float(centre[0] + top.start), float(centre[1] + left.start)


def _beam(smooth: NDArray[np.float64]) -> tuple[slice, slice]:
    """Return the box around the light that hangs together with the brightest spot."""
    blurred = ndimage.gaussian_filter(smooth, 2)
    parts, _ = ndimage.label(blurred > _FAINT * blurred.max())
    rows, columns = np.nonzero(parts == parts[np.unravel_index(blurred.argmax(), parts.shape)])
    return slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)


def _symmetric(frame: NDArray[np.float64]) -> tuple[float, float]:
    """Return the centre of symmetry: half of where the frame convolved with itself is largest."""
    amplitude = np.sqrt(np.maximum(frame, 0))
    agreement = fftconvolve(amplitude, amplitude)
    peak = np.unravel_index(agreement.argmax(), agreement.shape)
    first, second = (_vertex(agreement, peak, axis) / 2 for axis in (0, 1))
    return first, second


def _vertex(values: NDArray[np.float64], peak: tuple[np.intp, ...], axis: int) -> float:
    """Return where the parabola through a peak and its neighbours along an axis has its vertex."""
    line = np.moveaxis(values, axis, 0)[:, peak[1 - axis]]
    at = int(peak[axis])
    before, here, after = np.pad(line, 1)[at : at + 3]
    bend = 2 * here - before - after
    return at + (after - before) / (2 * bend) if bend > 0 else float(at)
