"""Read and add the object under each probe, an exactly adjoint pair; the middle of a window and all of it."""

import math

import numpy as np

from operators.arrays import Array, ArrayModule, Corners, Object, Patches, array_module, to_numpy

UNIFORM_PHASE_SIGMA = math.pi / math.sqrt(3)  # rad, of a phase about which nothing is known

_WINDOWS_AT_A_TIME = 512  # bounds the memory of the indices that a device makes of each pixel


def extract_patches(object_: Object, corners: Corners, n_pixels: int) -> Patches:
    """Return a copy of the object under each window, (frame, n_pixels, n_pixels), of its dtype.

    Parameters
    ----------
    object_ : (row, col), any dtype
        The object, or any map on its pixels.
    corners : (frame, 2) int64, pixels of this array
        Top-left pixel (row, col) of each window. Best kept on the host: the check needs them there.
    n_pixels : int
        Side of a window.

    Raises
    ------
    ValueError
        If a window reaches outside the object, or corners are not whole pixels.
    """
    corners = checked_corners(object_.shape, corners, n_pixels)
    xp = array_module(object_)
    if xp is not np:  # one gather on a GPU; on a CPU, slices copy whole rows
        return object_[_window_indices(xp, corners, n_pixels)]
    patches = np.empty((len(corners), n_pixels, n_pixels), object_.dtype)
    for patch, (row, column) in zip(patches, corners.tolist(), strict=True):
        patch[...] = object_[row : row + n_pixels, column : column + n_pixels]
    return patches


def add_patches(object_: Object, patches: Array, corners: Corners) -> None:
    """Add each patch to the object under its window, in place; where windows overlap, patches add up.

    The adjoint of `extract_patches`: <extract(a), p> = <a, add(p)>.

    Parameters
    ----------
    object_ : (row, col), real or complex
        Changed in place.
    patches : (frame, y, x) or (y, x), of a dtype that `object_` can hold
        One patch for each window, or one for all of them.
    corners : (frame, 2) int64, pixels of this array
        Top-left pixel (row, col) of each window; the same window may occur more than once.

    Raises
    ------
    ValueError
        If shapes disagree, a window reaches outside the object, or corners are not whole pixels.
    """
    n_pixels = patches.shape[-1]
    corners = checked_corners(object_.shape, corners, n_pixels)
    expected = (len(corners), n_pixels, n_pixels)
    if patches.shape not in (expected, expected[1:]):
        raise ValueError(f"expected patches of shape {expected} or {expected[1:]}, got {patches.shape}")
    xp = array_module(object_)
    patches = xp.broadcast_to(patches, expected)
    if xp is not np:
        for start in range(0, len(corners), _WINDOWS_AT_A_TIME):
            part = slice(start, start + _WINDOWS_AT_A_TIME)
            _scatter_add(xp, object_, _window_indices(xp, corners[part], n_pixels), patches[part])
        return
    for patch, (row, column) in zip(patches, corners.tolist(), strict=True):
        object_[row : row + n_pixels, column : column + n_pixels] += patch


def middle(windows: Array, n_pixels: int) -> Array:
    """Return a view of the middle (..., n_pixels, n_pixels) of windows (..., y, x), of any dtype."""
    margin = (windows.shape[-1] - n_pixels) // 2
    return windows[..., margin : margin + n_pixels, margin : margin + n_pixels]


def widened(patches: Patches, sigma: Array, n_pixels: int) -> tuple[Patches, Array]:
    """Return patches and sigma of the middle of windows as those of the whole windows.

    Parameters
    ----------
    patches : (frame, y, x) complex64
    sigma : (frame, y, x) real, rad
    n_pixels : int
        Side of a window.

    Returns
    -------
    patches : (frame, n_pixels, n_pixels) complex64
        1 around the middle.
    sigma : (frame, n_pixels, n_pixels), of its dtype, rad
        That of a uniform phase around the middle.
    """
    margin = (n_pixels - patches.shape[-1]) // 2
    around = ((0, 0), (margin, margin), (margin, margin))
    unknown = np.pad(sigma, around, constant_values=UNIFORM_PHASE_SIGMA)
    return np.pad(patches, around, constant_values=1), unknown


def checked_corners(shape: tuple[int, ...], corners: Corners, n_pixels: int) -> np.ndarray:
    """Return the corners, (frame, 2) of integers, on the host; raises ValueError as `extract_patches` does.

    `shape` is that of the object, (row, col).
    """
    corners = to_numpy(corners)
    if corners.ndim != 2 or corners.shape[1] != 2 or corners.dtype.kind not in "iu":
        raise ValueError(
            f"expected corners (frame, 2) of integers, got {corners.shape} {corners.dtype}; "
            "round positions with window_corners"
        )
    is_outside = ((corners < 0) | (corners + n_pixels > shape)).any(axis=1)
    if is_outside.any():
        low, high = corners.min(axis=0), corners.max(axis=0) + n_pixels
        raise ValueError(
            f"{is_outside.sum()} of {len(corners)} windows of {n_pixels} x {n_pixels} pixels reach outside "
            f"the object of shape {tuple(shape)}: they span rows {low[0]}..{high[0] - 1} and columns "
            f"{low[1]}..{high[1] - 1}; enlarge the object"
        )
    return corners


def _scatter_add(xp: ArrayModule, target: Array, indices: tuple[Array, Array], values: Array) -> None:
    if target.dtype.kind == "c":  # CuPy has no atomic addition of complex numbers
        xp.add.at(target.real, indices, values.real)
        xp.add.at(target.imag, indices, values.imag)
    else:
        xp.add.at(target, indices, values)


def _window_indices(xp: ArrayModule, corners: np.ndarray, n_pixels: int) -> tuple[Array, Array]:
    """Return row (frame, y, 1) and column (frame, 1, x) indices that broadcast to every window's pixels."""
    corners, steps = xp.asarray(corners), xp.arange(n_pixels)
    return corners[:, 0, None, None] + steps[:, None], corners[:, 1, None, None] + steps
