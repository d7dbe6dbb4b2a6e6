"""The array backends and the array types, in one place.

Everything in `operators`, `stream` and `launch` that handles arrays takes its type names from here.
"""

import importlib
import sys
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

# NumPy and CuPy share no base class, so the aliases tell the reader, not the type checker, what is inside.
Array: TypeAlias = Any  # any array of either backend
ArrayModule: TypeAlias = Any  # the module numpy or the module cupy
Frames: TypeAlias = (
    Any  # (frame, row, col) unsigned integer counts as sent, zero frequency at the array centre
)
Patterns: TypeAlias = Any  # (frame, ky, kx) float32 photons, zero frequency in the corner
Probe: TypeAlias = Any  # (mode, y, x) complex64, sum |P|^2 = mean photons per frame
Object: TypeAlias = Any  # (row, col) complex64 transmission
Patches: TypeAlias = Any  # (frame, y, x) complex64, the object under each probe
Waves: TypeAlias = Any  # (frame, mode, y, x) complex64, at the sample or at the detector
Positions: TypeAlias = Any  # (frame, 2) float64, (y, x)
Corners: TypeAlias = Any  # (frame, 2) int64, (row, col) of each window's top-left pixel
Mask: TypeAlias = Any  # bool, True = valid


def array_module(a: Array) -> ArrayModule:
    """Return the module, numpy or cupy, that `a` belongs to."""
    # An array can only be CuPy's if somebody has imported CuPy already.
    cupy = sys.modules.get("cupy")
    return cupy if cupy is not None and isinstance(a, cupy.ndarray) else np


def get_array_module(name: str) -> ArrayModule:
    """Return the backend called `name`.

    Parameters
    ----------
    name : {"numpy", "cupy", "auto"}
        "auto" is CuPy where it is installed and sees a device, NumPy elsewhere.

    Raises
    ------
    ValueError
        If the name is another one, or CuPy is asked for by name and cannot be used.
    """
    if name == "numpy":
        return np
    if name not in ("cupy", "auto"):
        raise ValueError(f"expected the array backend 'numpy', 'cupy' or 'auto', got {name!r}")
    cupy = usable_cupy()
    if cupy is None and name == "cupy":
        raise ValueError(
            "the array backend 'cupy' needs CuPy and a CUDA device; install the extra gpu-cuda12 or "
            "gpu-cuda13, or choose 'numpy' or 'auto'"
        )
    return np if cupy is None else cupy


def use_gpu(number: int) -> None:
    """Make the GPU `number`, counted around as many as there are, this thread's own; without one, nothing."""
    cupy = usable_cupy()
    if cupy is not None:
        cupy.cuda.Device(number % cupy.cuda.runtime.getDeviceCount()).use()


def usable_cupy() -> ModuleType | None:
    """Return CuPy if it is installed and there is a device, else None."""
    try:
        cupy = importlib.import_module("cupy")
    except ImportError:
        return None
    try:
        return cupy if cupy.cuda.runtime.getDeviceCount() else None
    except cupy.cuda.runtime.CUDARuntimeError:
        return None


def release_memory() -> None:
    """Give memory of the device that no array of this process uses any more back to other processes."""
    if (cupy := sys.modules.get("cupy")) is not None:
        cupy.get_default_memory_pool().free_all_blocks()


def to_numpy(a: Array) -> np.ndarray:
    """Return `a` on the host; a NumPy array is returned as it is."""
    return np.asarray(a) if array_module(a) is np else a.get()


def fft2(x: Array) -> Array:
    """Return the unitary Fourier transform over the last two axes, in the precision of `x`."""
    return _fft_module(x).fft2(x, norm="ortho")


def ifft2(x: Array) -> Array:
    """Return the unitary inverse Fourier transform over the last two axes, in the precision of `x`."""
    return _fft_module(x).ifft2(x, norm="ortho")


def _fft_module(x: Array) -> ModuleType:
    # scipy.fft, unlike older numpy.fft, stays in single precision. Clients use the types above without SciPy.
    return importlib.import_module("scipy.fft" if array_module(x) is np else "cupyx.scipy.fft")


def abs2(x: Array) -> Array:
    """Return |x|^2 as a real array, without the square root of `abs`."""
    return x.real**2 + x.imag**2


def phase_factor(x: Array) -> Array:
    """Return x / |x|, complex64: how far one thing is turned against another; 1 where x is 0."""
    size = np.abs(x)
    return np.where(size == 0, 1, x / np.maximum(size, 1e-30)).astype(np.complex64)[()]


def corner_origin(frames: Array) -> Array:
    """Return `frames` with the zero frequency moved from the array centre to the corner (last two axes)."""
    return array_module(frames).fft.ifftshift(frames, axes=(-2, -1))


def centre_origin(patterns: Array) -> Array:
    """Return `patterns` with the zero frequency moved from the corner to the array centre (last two axes)."""
    return array_module(patterns).fft.fftshift(patterns, axes=(-2, -1))
