"""Raw frames to prepared patterns: crop, dark and flat, binning, bad pixels, photons, corner origin, turned.

The live subscriber and the offline reader prepare frames by the same few lines.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from operators.arrays import Array, Frames, Mask, Patterns, array_module, centre_origin, corner_origin

_LEAST_FLUX = 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class Preprocess:
    """Turns frames of one detector into patterns: an instance is called with frames.

    Parameters
    ----------
    frame_shape : (int, int)
        Shape (row, col) of the frames as sent.
    n_pixels : int
        Side of a pattern, after binning.
    centre : (int, int), optional
        Pixel (row, col) of zero frequency in a frame; by default the array centre, n // 2.
    binning : int
        Side of the square of detector pixels summed into one pixel of a pattern.
    valid_pixels : bool, optional
        True = valid. Of the frame's shape, or (n_pixels, n_pixels) for the cropped and binned frame; zero
        frequency at the centre. A binned pixel is valid if all its detector pixels are.
    background : float or (row, col) array
        Counts per detector pixel of a frame without beam, or without sample, of the frame's shape.
    flat : (row, col) array, optional
        How much each detector pixel counts of what falls on it, relative to the others; pixels where it is
        not positive are not valid.
    photons_per_count : float
        The detector's gain.
    transpose, flip_rows, flip_columns : bool
        How the detector is mounted: whether, in this order, rows and columns of a pattern are exchanged, and
        each is turned about zero frequency.

    Attributes
    ----------
    mask : (ky, kx) bool
        True = valid, corner-origin like the patterns.

    Raises
    ------
    ValueError
        If the crop reaches outside the frame or a shape is not as described.

    Notes
    -----
    The highest number that the type of a frame's counts has is no count, nor is one below zero: detectors
    mark pixels by them that are dead or overflowed. Such a pixel counts as dark in that frame.

    With even binning, zero frequency lies half a detector pixel beside the middle of its binned pixel: a
    slight, constant phase ramp in the object.
    """

    frame_shape: tuple[int, int]
    n_pixels: int
    centre: tuple[int, int] | None = None
    binning: int = 1
    valid_pixels: Mask | None = None
    background: float | Array = 0.0
    flat: Array | None = None
    photons_per_count: float = 1.0
    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False
    mask: Mask = field(init=False, repr=False)
    _crop: tuple[slice, slice] = field(init=False, repr=False)
    _gains: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("n_pixels", "binning"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"preprocess: {name} must be one positive whole number, got {value!r}")
        if not self.photons_per_count > 0:
            raise ValueError(
                f"preprocess: photons_per_count must be positive, got {self.photons_per_count!r}"
            )
        for name in ("background", "flat"):
            value = getattr(self, name)
            if value is not None and np.shape(value) not in ((), self.frame_shape)[name == "flat" :]:
                raise ValueError(
                    f"preprocess: the {name} has shape {np.shape(value)}, frames have {self.frame_shape}"
                )
        # The derived fields of a frozen instance are set once, here.
        object.__setattr__(self, "_crop", self._crop_slices())
        object.__setattr__(self, "_gains", None if self.flat is None else _gains(self.flat)[self._crop])
        object.__setattr__(self, "mask", self._corner_mask())

    def __call__(self, frames: Frames) -> Patterns:
        """Return the patterns of `frames`, photons; bad pixels are zero.

        Parameters
        ----------
        frames : (frame, row, col) unsigned integers, counts

        Returns
        -------
        (frame, ky, kx) float32, photons, zero frequency in the corner
            Never negative: a background above the counts leaves zero.

        Raises
        ------
        ValueError
            If the frames are not of the announced shape.
        """
        if frames.ndim != 3 or frames.shape[1:] != self.frame_shape:
            raise ValueError(
                f"expected frames of shape {('frame', *self.frame_shape)}, got {frames.shape}; "
                "one frame needs a leading axis of length 1"
            )
        xp = array_module(frames)
        cut = frames[:, *self._crop]
        counts = cut.astype(xp.float32)
        if (marks := marked(cut)) is not None:
            counts[marks] = 0
        if np.ndim(self.background):
            counts -= xp.asarray(self.background, dtype=xp.float32)[self._crop]
        elif self.background:
            counts -= xp.float32(self.background)
        if self.flat is not None:
            counts *= xp.asarray(self._gains)
        # In place: at kHz frame rates, fresh pages for temporaries cost more than the arithmetic.
        photons = _sum_bins(counts, self.binning)
        photons *= xp.float32(self.photons_per_count)
        # What is no number can stand on masked pixels of frames that are no counts.
        (xp.maximum if frames.dtype.kind in "ui" else xp.fmax)(photons, 0, out=photons)
        patterns = self._turned(corner_origin(photons))
        patterns *= xp.asarray(self.mask)
        return patterns

    def valid_in_frame(self) -> Mask:
        """Return which detector pixels are used, (row, col) bool, of the frame's shape."""
        valid = np.zeros(self.frame_shape, bool)
        as_sent = centre_origin(self._turned_back(self.mask))
        valid[self._crop] = as_sent.repeat(self.binning, 0).repeat(self.binning, 1)
        return valid

    def _turned(self, patterns: Array) -> Array:
        """Return patterns, corner-origin, as they would be on a detector that is mounted upright."""
        if self.transpose:
            patterns = patterns.swapaxes(-1, -2)
        return self._flipped(patterns) if self.flip_rows or self.flip_columns or self.transpose else patterns

    def _turned_back(self, patterns: Array) -> Array:
        patterns = self._flipped(patterns)
        return patterns.swapaxes(-1, -2) if self.transpose else patterns

    def _flipped(self, patterns: Array) -> Array:
        for axis, is_flipped in ((-2, self.flip_rows), (-1, self.flip_columns)):
            if is_flipped:  # zero frequency stays where it is
                first, others = _along(axis, slice(0, 1)), _along(axis, slice(1, None))
                flipped = array_module(patterns).empty_like(patterns)
                flipped[first] = patterns[first]
                flipped[others] = patterns[_along(axis, slice(None, 0, -1))]
                patterns = flipped
        return array_module(patterns).ascontiguousarray(patterns)

    def _crop_slices(self) -> tuple[slice, slice]:
        side = self.n_pixels * self.binning
        centre = self.centre or (self.frame_shape[0] // 2, self.frame_shape[1] // 2)
        if not all(isinstance(c, int | np.integer) for c in centre):
            raise ValueError(f"preprocess: centre must be a detector pixel, two whole numbers, got {centre}")
        top, left = (c - side // 2 for c in centre)
        bottom, right = top + side, left + side
        if min(top, left) < 0 or bottom > self.frame_shape[0] or right > self.frame_shape[1]:
            raise ValueError(
                f"preprocess: {self.n_pixels} pixels of {self.binning} x {self.binning} around {centre} need "
                f"rows {top}..{bottom - 1} and columns {left}..{right - 1}, but frames have shape "
                f"{self.frame_shape}; choose fewer pixels or another centre"
            )
        return slice(top, bottom), slice(left, right)

    def _corner_mask(self) -> Mask:
        mask = self._turned(self._mask_as_sent())
        if self.flat is None:
            return mask
        bad = ~(np.asarray(self.flat) > 0)[self._crop]
        n_bad: Mask = self._turned(corner_origin(_sum_bins(bad.astype(np.int64)[None], self.binning)[0]))
        return mask & (n_bad == 0)

    def _mask_as_sent(self) -> Mask:
        pattern_shape = (self.n_pixels, self.n_pixels)
        if self.valid_pixels is None:
            return np.ones(pattern_shape, bool)
        valid = np.asarray(self.valid_pixels)
        if valid.dtype != bool or valid.shape not in (self.frame_shape, pattern_shape):
            raise ValueError(
                f"preprocess: expected valid_pixels of bool, {self.frame_shape} as the frames or "
                f"{pattern_shape} as the patterns, got {valid.dtype} {valid.shape}"
            )
        if valid.shape == self.frame_shape:
            n_bad = _sum_bins((~valid[self._crop]).astype(np.int64)[None], self.binning)[0]
            valid = n_bad == 0
        return corner_origin(valid)


def _sum_bins(frames: Array, binning: int) -> Array:
    if binning == 1:
        return frames
    n_frames, rows, columns = frames.shape
    bins = frames.reshape(n_frames, rows // binning, binning, columns // binning, binning)
    return bins.sum(axis=(2, 4))


def _along(axis: int, cut: slice) -> tuple[Any, ...]:
    return (..., cut, slice(None)) if axis == -2 else (..., cut)


def _gains(flat: Array) -> Array:
    """Return what counts are multiplied by, (row, col) float32: 1 on the mean of the pixels that count."""
    response = np.asarray(flat, np.float32)
    counts = response > 0
    mean = response[counts].mean(dtype=np.float64)
    gains: Array = np.where(counts, np.float32(mean) / np.where(counts, response, 1), 0).astype(np.float32)
    return gains


def at_one_flux(patterns: Patterns, flux: np.ndarray | None) -> Patterns:
    """Divide patterns by the flux of their frames, in place, and return them.

    Parameters
    ----------
    patterns : (frame, ky, kx) float32, photons
    flux : (frame,) float or None
        1 is that of the pattern wanted. Where it is no number, or below 0.05 as with a closed shutter, the
        pattern stays as measured: divided, it would be noise.

    Notes
    -----
    For amplitudes as the engine compares them, this is the same as a probe that is scaled by the root of the
    flux, and no update has to know of it.
    """
    if flux is not None:
        is_told = np.isfinite(flux) & (flux >= _LEAST_FLUX)
        factors = 1 / np.where(is_told, flux, 1)
        patterns *= array_module(patterns).asarray(factors.astype(np.float32))[:, None, None]
    return patterns


def marked(frames: Frames) -> Array | None:
    """Return where frames hold a mark of the detector and no count, bool of their shape; None if nowhere.

    Marks are the highest number of an unsigned type, and what is negative of a signed one.
    """
    if not frames.size:
        return None
    if frames.dtype.kind == "u" and frames.max() == (most := np.iinfo(frames.dtype).max):
        return frames == most
    if frames.dtype.kind == "i" and frames.min() < 0:
        return frames < 0
    return None


def mean_frame(frames: Frames) -> Array:
    """Return the mean of frames that should be the same, (row, col) float32, without what struck single ones.

    Parameters
    ----------
    frames : (frame, row, col), counts
        Such as those of a series without beam. Counts more than six standard deviations of Poisson noise
        above the median of their pixel, cosmic rays, are left out.
    """
    counts = np.asarray(frames, np.float32)
    median = np.median(counts, axis=0)
    is_usual = counts <= median + 6 * np.sqrt(np.maximum(median, 1))
    total: Array = np.where(is_usual, counts, 0).sum(axis=0) / np.maximum(is_usual.sum(axis=0), 1)
    return total.astype(np.float32)
