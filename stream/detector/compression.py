"""bslz4, bszstd and lz4 with the framing of the HDF5 filters, and lz4 without: what detectors send.

A block of data is `>Q` decoded bytes, `>I` bytes per block, then per block `>I` compressed bytes and those
bytes. Bitshuffle leaves up to seven elements that fill no group of eight at the end, uncompressed.
"""

import contextlib
import ctypes
import functools
import logging
import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import hdf5plugin
import lz4.block
import numpy as np
from numpy.typing import NDArray

from stream.wire.foreign import in_short

log = logging.getLogger(__name__)

Algorithm = Literal["bslz4", "bszstd", "bslz4-blocks", "lz4", "lz4-block"]
Bytes = NDArray[np.uint8]

BLOCK_BYTES = 8192
ITEM_SIZES = (1, 2, 4, 8)
BITSHUFFLED = ("bslz4", "bszstd")
_HEADER, _LENGTH = struct.Struct(">QI"), struct.Struct(">I")
_GROUP = 8  # elements that bitshuffle transposes together
# 41 elements in blocks of 16, so a full block, a shorter one and an uncompressed rest.
_KNOWN = (np.arange(41) * 1597).astype("<u2")
_KNOWN_BSLZ4 = bytes.fromhex(
    "00000000000000520000002000000022f011aaaacccc5a5ac6393ef8fe0754559899e0e1aa5466ccb49638e7c00700f80000"
    "00000022f011aaaacccc5a5ac639c107c0ff95aa1933e1c3ab569831d25a1c631f7c1f80e0ff00000012f001aacc5ac63e01"
    "aa33c3a9674a8cf0ffff88f9"
)
_KNOWN_BSZSTD = bytes.fromhex(
    "0000000000000052000000200000002928b52ffd2020010100aaaacccc5a5ac6393ef8fe0754559899e0e1aa5466ccb49638"
    "e7c00700f800000000002928b52ffd2020010100aaaacccc5a5ac639c107c0ff95aa1933e1c3ab569831d25a1c631f7c1f80"
    "e0ff0000001928b52ffd2010810000aacc5ac63e01aa33c3a9674a8cf0ffff88f9"
)
_KNOWN_ENCODED = {"bslz4": _KNOWN_BSLZ4, "bszstd": _KNOWN_BSZSTD}
_ZSTD_LEVEL = 1  # the fastest that compresses well


class CompressionError(ValueError):
    """Compressed bytes that are damaged, cut short or of another size than announced."""


def decompress_into(out: NDArray[Any], data: bytes, algorithm: str, item_size: int = 0) -> None:
    """Fills `out` with the array that was compressed to `data`.

    Parameters
    ----------
    out : ndarray
        Writable and C-contiguous; its size in bytes is what `data` must decode to. After an error its
        content is undefined.
    data : bytes
        Compressed data with its framing.
    algorithm : {"bslz4", "bszstd", "bslz4-blocks", "lz4", "lz4-block"}
        "bslz4" is bitshuffle followed by LZ4, "bszstd" by Zstandard. "bslz4-blocks" has no header and blocks
        of `BLOCK_BYTES`, as bitshuffle makes them unless told otherwise, "lz4-block" is one unframed block.
    item_size : int
        Bytes per bitshuffled element; the others have no use for it.

    Raises
    ------
    CompressionError
        If `data` is not such a block or decodes to another size.
    """
    if not out.flags.c_contiguous:
        raise ValueError("decoding needs a C-contiguous array to write into")
    if algorithm in BITSHUFFLED:
        _check_item_size(item_size)
        bitshuffle().decode(out, data, item_size, algorithm)
    elif algorithm == "bslz4-blocks":
        _check_item_size(item_size)
        bitshuffle().decode(out, data, item_size, is_framed=False)
    elif algorithm == "lz4":
        _decode_lz4(_bytes_of(out), data)
    elif algorithm == "lz4-block":
        _bytes_of(out)[:] = _unpack(data, 0, len(data), out.nbytes)
    else:
        raise _unknown(algorithm)


def compress(array: NDArray[Any], algorithm: str, block_bytes: int = BLOCK_BYTES) -> bytes:
    """Returns the compressed bytes of `array`, elements in C order, as `decompress_into` reads them."""
    array = np.ascontiguousarray(array)
    if algorithm in BITSHUFFLED:
        _check_item_size(array.itemsize)
        return bitshuffle().compress(array, block_bytes, algorithm)
    if algorithm == "bslz4-blocks":
        return compress(array, "bslz4")[_HEADER.size :]
    if algorithm == "lz4":
        return _encode_lz4(array)
    if algorithm == "lz4-block":
        return lz4.block.compress(array.tobytes(), store_size=False)
    raise _unknown(algorithm)


def _unknown(algorithm: str) -> CompressionError:
    return CompressionError(f"compression {in_short(algorithm)}: wanted one of {get_args(Algorithm)}")


def _check_item_size(item_size: int) -> None:
    if item_size not in ITEM_SIZES:
        raise CompressionError(
            f"bitshuffled elements of {in_short(item_size)} bytes: wanted one of {ITEM_SIZES}"
        )


def _bytes_of(array: NDArray[Any]) -> Bytes:
    return array.reshape(-1).view(np.uint8)


def _block_bytes(n_wanted: int, data: bytes) -> int:
    """Checks the header of `data` against the space for it; returns decoded bytes per block."""
    if len(data) < _HEADER.size:
        raise CompressionError(f"compressed data of {len(data)} bytes: the header alone has {_HEADER.size}")
    n_bytes, block_bytes = _HEADER.unpack_from(data)
    if n_bytes != n_wanted:
        raise CompressionError(f"compressed data say they hold {n_bytes} bytes, the frame has {n_wanted}")
    if block_bytes == 0:
        raise CompressionError("compressed data say that a block has 0 bytes")
    return int(block_bytes)


def _edges(data: bytes, n_bytes: int, block_bytes: int, rest_bytes: int, start: int) -> list[int]:
    """Returns where each block begins in `data`, its length first, and where the last one ends.

    With the rest they fill `data` exactly.
    """
    edges, length_at = [start], _LENGTH.unpack_from
    try:
        for _ in range(0, n_bytes, block_bytes):
            start += 4 + length_at(data, start)[0]  # of which 4 hold the length
            edges.append(start)
    except struct.error as error:
        raise CompressionError(f"compressed data end after {len(data)} bytes, within their blocks") from error
    if start + rest_bytes != len(data):
        raise CompressionError(f"compressed data have {len(data)} bytes, their blocks {start + rest_bytes}")
    return edges


def _blocks(edges: list[int]) -> Iterator[tuple[int, int]]:
    """Yields start and end of what is compressed in each block."""
    return ((start + _LENGTH.size, end) for start, end in pairwise(edges))


def _unpack(data: bytes, start: int, end: int, n_bytes: int) -> Bytes:
    try:
        raw = lz4.block.decompress(memoryview(data)[start:end], uncompressed_size=n_bytes)
    except lz4.block.LZ4BlockError as error:
        raise CompressionError(f"damaged LZ4 block at byte {start}: {error}") from error
    if len(raw) != n_bytes:
        raise CompressionError(f"damaged LZ4 block at byte {start}: {len(raw)} bytes, wanted {n_bytes}")
    return np.frombuffer(raw, np.uint8)


def _decode_lz4(flat: Bytes, data: bytes) -> None:
    block_bytes, done = _block_bytes(flat.size, data), 0
    for start, end in _blocks(_edges(data, flat.size, block_bytes, 0, _HEADER.size)):
        out = flat[done : done + block_bytes]
        # A block that did not shrink is stored as it is.
        if end - start == out.size:
            out[:] = np.frombuffer(data, np.uint8, out.size, start)
        else:
            out[:] = _unpack(data, start, end, out.size)
        done += block_bytes


def _encode_lz4(array: NDArray[Any]) -> bytes:
    # One block, as detectors send it; the framing allows no block beyond 2 GB.
    raw = array.tobytes()
    if not raw:
        return _HEADER.pack(0, 1)
    packed = lz4.block.compress(raw, store_size=False)
    body = packed if len(packed) < len(raw) else raw
    return _HEADER.pack(len(raw), len(raw)) + _LENGTH.pack(len(body)) + body


def _shuffled_bytes(n_bytes: int, item_size: int) -> int:
    return n_bytes - n_bytes % (item_size * _GROUP)


def _bitshuffled_edges(n_bytes: int, data: bytes, item_size: int, is_framed: bool) -> tuple[int, list[int]]:
    """Returns decoded bytes per block, and the edges of the blocks before the uncompressed rest."""
    block_bytes, start = (_block_bytes(n_bytes, data), _HEADER.size) if is_framed else (BLOCK_BYTES, 0)
    if block_bytes % (item_size * _GROUP) or n_bytes % item_size:
        raise CompressionError(
            f"{n_bytes} bytes in blocks of {block_bytes} are no multiple of elements of {item_size} bytes"
        )
    shuffled = _shuffled_bytes(n_bytes, item_size)
    return block_bytes, _edges(data, shuffled, block_bytes, n_bytes - shuffled, start)


class NumpyBitshuffle:
    """Bitshuffle in numpy: a hundred times slower than the library, and there on every platform."""

    def decode(
        self,
        array: NDArray[Any],
        data: bytes,
        item_size: int,
        algorithm: str = "bslz4",
        *,
        is_framed: bool = True,
    ) -> None:
        """Fills `array`, its bytes elements of `item_size` bytes each; a header frames `data` or not."""
        _check_is_bslz4(algorithm)
        flat = _bytes_of(array)
        block_bytes, edges = _bitshuffled_edges(flat.size, data, item_size, is_framed)
        shuffled = _shuffled_bytes(flat.size, item_size)
        for done, (start, end) in zip(range(0, shuffled, block_bytes), _blocks(edges), strict=True):
            out = flat[done : min(done + block_bytes, shuffled)]
            planes = _unpack(data, start, end, out.size).reshape(item_size * 8, -1)
            bits = np.unpackbits(planes, axis=1, bitorder="little")
            out[:] = np.packbits(bits.T, axis=1, bitorder="little").reshape(-1)
        flat[shuffled:] = np.frombuffer(data, np.uint8)[len(data) - (flat.size - shuffled) :]

    def compress(self, array: NDArray[Any], block_bytes: int, algorithm: str = "bslz4") -> bytes:
        """Returns header and blocks of `block_bytes` each, which `decode` takes."""
        _check_is_bslz4(algorithm)
        flat, item_size = _bytes_of(array), array.itemsize
        shuffled = _shuffled_bytes(flat.size, item_size)
        parts = [_HEADER.pack(flat.size, block_bytes)]
        for start in range(0, shuffled, block_bytes):
            elements = flat[start : min(start + block_bytes, shuffled)].reshape(-1, item_size)
            bits = np.unpackbits(elements, axis=1, bitorder="little")
            planes = np.packbits(bits.T, axis=1, bitorder="little")
            packed = lz4.block.compress(planes.tobytes(), store_size=False)
            parts += [_LENGTH.pack(len(packed)), packed]
        return b"".join([*parts, flat[shuffled:].tobytes()])


def _check_is_bslz4(algorithm: str) -> None:
    if algorithm != "bslz4":
        raise CompressionError(
            f"compression {algorithm} needs the libh5bshuf of hdf5plugin, which cannot be used here"
        )


class LibraryBitshuffle:
    """Bitshuffle by the C library that comes with hdf5plugin.

    The library reads lengths from the data and believes them; `_bitshuffled_edges` has checked them before.
    """

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        sizes = [ctypes.c_size_t] * 3  # elements, bytes per element, elements per block
        self._functions = {}
        for algorithm, level in (("bslz4", ()), ("bszstd", (_ZSTD_LEVEL,))):
            name = algorithm.removeprefix("bs")
            decompress, compress, bound = (
                getattr(library, f"bshuf_{function}")
                for function in (f"decompress_{name}", f"compress_{name}", f"compress_{name}_bound")
            )
            decompress.argtypes = [ctypes.c_char_p, ctypes.c_void_p, *sizes]
            compress.argtypes = [ctypes.c_void_p, ctypes.c_void_p, *sizes, *(ctypes.c_int for _ in level)]
            bound.argtypes = sizes
            decompress.restype = compress.restype = ctypes.c_int64
            bound.restype = ctypes.c_size_t
            self._functions[algorithm] = decompress, compress, bound, level
        self._zstd: _Zstd | None = None
        with contextlib.suppress(AttributeError):
            self._zstd = _Zstd(library)

    def decode(
        self,
        array: NDArray[Any],
        data: bytes,
        item_size: int,
        algorithm: str = "bslz4",
        *,
        is_framed: bool = True,
    ) -> None:
        """Fills `array`, its bytes elements of `item_size` bytes each; a header frames `data` or not."""
        n_bytes = array.nbytes
        block_bytes, edges = _bitshuffled_edges(n_bytes, data, item_size, is_framed)
        if algorithm == "bszstd" and self._zstd is not None:
            self._zstd.decode(array, data, item_size, block_bytes, edges)
            return
        n_items, per_block = n_bytes // item_size, block_bytes // item_size
        decompress = self._functions[algorithm][0]
        body = bytes(memoryview(data)[edges[0] :])  # of which C takes the address in no time
        status = decompress(body, _address(array), n_items, item_size, per_block)
        if status != len(body):
            raise CompressionError(f"damaged {algorithm} data (bitshuffle status {status})")

    def compress(self, array: NDArray[Any], block_bytes: int, algorithm: str = "bslz4") -> bytes:
        """Returns header and blocks of `block_bytes` each, which `decode` takes."""
        sizes = array.size, array.itemsize, block_bytes // array.itemsize
        _, compress, bound, level = self._functions[algorithm]
        out = np.empty(bound(*sizes), np.uint8)
        length = compress(array.ctypes.data, out.ctypes.data, *sizes, *level)
        if length < 0:
            raise CompressionError(f"{array.dtype} array {array.shape} cannot be packed (status {length})")
        return _HEADER.pack(array.nbytes, block_bytes) + out[:length].tobytes()


class _Zstd:
    """Zstandard and bitshuffle one after the other: bitshuffle alone prepares Zstandard for each block anew.

    That takes three times as long.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        self._create, self._free = library.ZSTD_createDCtx, library.ZSTD_freeDCtx
        self._decompress, self._unshuffle = library.ZSTD_decompressDCtx, library.bshuf_bitunshuffle
        self._create.restype, self._free.argtypes = pointer, [pointer]
        self._decompress.argtypes, self._decompress.restype = [pointer, pointer, size, pointer, size], size
        self._unshuffle.argtypes, self._unshuffle.restype = (
            [pointer, pointer, size, size, size],
            ctypes.c_int64,
        )

    def decode(
        self, array: NDArray[Any], data: bytes, item_size: int, block_bytes: int, edges: list[int]
    ) -> None:
        """Fills `array` from the blocks of `data` between `edges`, and the rest behind them."""
        planes = np.empty(array.nbytes, np.uint8)
        shuffled = _shuffled_bytes(planes.size, item_size)
        source, target = np.frombuffer(data, np.uint8).ctypes.data, _address(planes)
        context = self._create()
        try:
            for done, (start, end) in zip(range(0, shuffled, block_bytes), _blocks(edges), strict=True):
                n_bytes = min(block_bytes, shuffled - done)
                n_came = self._decompress(context, target + done, n_bytes, source + start, end - start)
                if n_came != n_bytes:
                    raise CompressionError(f"damaged Zstandard block at byte {start}")
        finally:
            self._free(context)
        planes[shuffled:] = np.frombuffer(data, np.uint8)[len(data) - (planes.size - shuffled) :]
        n_items = planes.size // item_size
        if self._unshuffle(target, _address(array), n_items, item_size, block_bytes // item_size) < 0:
            raise CompressionError("bitshuffle has no room to work in")


def _address(array: NDArray[Any]) -> int:
    # In a third of the time that `array.ctypes` takes.
    return ctypes.addressof(ctypes.c_char.from_buffer(array.data)) if array.size else 0


@functools.cache
def bitshuffle() -> LibraryBitshuffle | NumpyBitshuffle:
    """Returns the fastest implementation that decodes known blocks correctly here."""
    for path in sorted(Path(hdf5plugin.PLUGIN_PATH).glob("libh5bshuf.*")):
        try:
            library = LibraryBitshuffle(path)
        except (OSError, AttributeError) as error:
            log.warning("cannot use %s: %s", path, error)
            continue
        if all(_decodes(library, algorithm, known) for algorithm, known in _KNOWN_ENCODED.items()):
            return library
        log.warning("%s decodes a known block wrongly", path)
    log.warning("bslz4 is decoded by numpy, a hundred times slower than by hdf5plugin's libh5bshuf")
    return NumpyBitshuffle()


def _decodes(library: LibraryBitshuffle, algorithm: str, encoded: bytes) -> bool:
    decoded = np.zeros_like(_KNOWN)
    with contextlib.suppress(CompressionError):
        library.decode(decoded.view(np.uint8), encoded, _KNOWN.itemsize, algorithm)
    return np.array_equal(decoded, _KNOWN)
