"""Blosc, which areaDetector's codec plugin offers: by the C library that comes with hdf5plugin."""

import ctypes
import functools
from pathlib import Path
from typing import Any

import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from stream.detector.compression import CompressionError
from stream.wire.codec import Buffer

_OVERHEAD = 16  # bytes by which data may grow
_LEVEL, _SHUFFLE = 5, 1  # of areaDetector's plugin, unless it is told otherwise


@functools.cache
def _library() -> ctypes.CDLL | None:
    for path in sorted(Path(hdf5plugin.PLUGIN_PATH).glob("libh5blosc.*")):
        try:
            library = ctypes.CDLL(str(path))
            size, pointer = ctypes.c_size_t, ctypes.c_void_p
            library.blosc_cbuffer_validate.argtypes = [pointer, size, pointer]
            library.blosc_decompress_ctx.argtypes = [pointer, pointer, size, ctypes.c_int]
            library.blosc_compress_ctx.argtypes = [
                *(ctypes.c_int, ctypes.c_int, size, size, pointer),
                *(pointer, size, ctypes.c_char_p, size, ctypes.c_int),
            ]
        except (OSError, AttributeError):
            continue
        return library
    return None


def decompress(data: Buffer, n_bytes: int) -> NDArray[np.uint8]:
    """Returns what was compressed to `data`.

    Parameters
    ----------
    data : bytes-like
    n_bytes : int
        That have to come out.

    Raises
    ------
    CompressionError
        If `data` are damaged, hold another number of bytes, or there is no library.
    """
    if (library := _library()) is None:
        raise CompressionError("compressed by blosc, and there is no library for it: hdf5plugin brings one")
    source, held = np.frombuffer(data, np.uint8), ctypes.c_size_t()
    # The library believes the lengths in its header unless they are looked at first.
    if library.blosc_cbuffer_validate(source.ctypes.data, source.size, ctypes.byref(held)):
        raise CompressionError(f"damaged blosc data of {source.size} bytes")
    if held.value != n_bytes:
        raise CompressionError(f"blosc data say they hold {held.value} bytes, the frame has {n_bytes}")
    out = np.empty(n_bytes, np.uint8)
    if library.blosc_decompress_ctx(source.ctypes.data, out.ctypes.data, n_bytes, 1) != n_bytes:
        raise CompressionError(f"damaged blosc data of {source.size} bytes")
    return out


def compress(array: NDArray[Any], compressor: str = "lz4") -> bytes:
    """Returns the compressed bytes of a C-contiguous array.

    Raises
    ------
    CompressionError
        If there is no library, or it does not know the compressor.
    """
    if (library := _library()) is None:
        raise CompressionError("there is no library for blosc: hdf5plugin brings one")
    out = np.empty(array.nbytes + _OVERHEAD, np.uint8)
    n_bytes = library.blosc_compress_ctx(
        *(_LEVEL, _SHUFFLE, array.itemsize, array.nbytes, array.ctypes.data),
        *(out.ctypes.data, out.size, compressor.encode(), 0, 1),
    )
    if n_bytes <= 0:
        raise CompressionError(f"{array.dtype} array {array.shape} cannot be packed by blosc, {compressor}")
    return out[:n_bytes].tobytes()
