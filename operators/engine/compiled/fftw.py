"""FFTW's plans by its C interface, so that compiled loops transform without going back to Python."""

import ctypes
import functools
import importlib
import importlib.util
import sys
import weakref
from types import ModuleType
from typing import NamedTuple

import numpy as np

from operators.arrays import Array, Waves

_FORWARD, _BACKWARD = -1, 1
# A measured plan is no faster, and may round differently on another day.
_ESTIMATE = 1 << 6
_PIXELS_PER_LINE = 8  # of complex64, in a line of the cache


class _Axis(ctypes.Structure):
    _fields_ = (("n", ctypes.c_ssize_t), ("step_in", ctypes.c_ssize_t), ("step_out", ctypes.c_ssize_t))


class Plan(NamedTuple):
    """What a compiled loop calls, and with what: addresses."""

    execute: int
    plan: int


class Transforms:
    """Fourier transforms of one frame's waves in place, neither way normalised.

    Parameters
    ----------
    waves : (mode, y, x) complex64
        Planned for these and all that lie in memory like them, as in `empty_waves`.
    """

    def __init__(self, waves: Waves) -> None:
        library = _library()
        modes, rows, columns = (
            _Axis(n, stride // waves.itemsize, stride // waves.itemsize)
            for n, stride in zip(waves.shape, waves.strides, strict=True)
        )
        # An estimated plan takes the first axis last, and up to twice as long where those are the rows.
        axes, at = (_Axis * 2)(columns, rows), waves.ctypes.data
        plans = [
            library.fftwf_plan_guru64_dft(2, axes, 1, (_Axis * 1)(modes), at, at, way, _ESTIMATE)
            for way in (_FORWARD, _BACKWARD)
        ]
        for plan in plans:
            weakref.finalize(self, library.fftwf_destroy_plan, plan)
        execute = ctypes.cast(library.fftwf_execute_dft, ctypes.c_void_p).value or 0
        self.to_detector, self.to_sample = (Plan(execute, plan) for plan in plans)


def has_fftw() -> bool:
    """Return whether FFTW is installed; nothing is imported."""
    return importlib.util.find_spec("pyfftw") is not None


def empty_waves(shape: tuple[int, int, int, int]) -> Array:
    """Return waves (frame, mode, y, x or more) complex64 where FFTW is fast.

    Each row ends in pixels that are not used, so that it takes an odd number of lines of the cache: in rows a
    power of two apart, a column would share a few of them, and 256 pixels take five times as long.
    """
    n_lines = -(-shape[-1] // _PIXELS_PER_LINE) | 1
    return _pyfftw().empty_aligned((*shape[:-1], n_lines * _PIXELS_PER_LINE), np.complex64)


def _library() -> ctypes.CDLL:
    # Found through pyfftw's own, which is linked with it. Planning is not safe among threads: as a PyDLL it
    # is done with the interpreter lock held.
    library = ctypes.PyDLL(_pyfftw().pyfftw.__file__)
    axes = ctypes.POINTER(_Axis)
    library.fftwf_plan_guru64_dft.restype = ctypes.c_void_p
    library.fftwf_plan_guru64_dft.argtypes = (
        ctypes.c_int, axes, ctypes.c_int, axes, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint,
    )  # fmt: skip
    library.fftwf_destroy_plan.argtypes = (ctypes.c_void_p,)
    return library


@functools.cache
def _pyfftw() -> ModuleType:
    # Where it finds dask it loads that, and pandas with it, for arrays that nobody has here: 0.7 s.
    hides_dask = "dask" not in sys.modules
    if hides_dask:
        sys.modules["dask"] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("pyfftw")
    finally:
        if hides_dask:
            sys.modules.pop("dask", None)
