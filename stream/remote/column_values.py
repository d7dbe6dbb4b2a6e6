"""Values of a column on their way to another machine: which may be had, how many at a time, and packed."""

import math
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from stream.detector.compression import CompressionError, compress, decompress_into
from stream.record.scan import Numbers, Scan
from stream.remote.asking import Arrays
from stream.remote.messages import MOST_ANSWER_BYTES, Fetch, Question, Values
from stream.wire.foreign import in_short

PACKED_KINDS = "iu"  # counts of few photons have many bits that are zero, fractions have not


def answer_to_fetch(
    fetch: Fetch, arrays: Arrays, scan: Scan, columns: Collection[str]
) -> tuple[Values, Arrays]:
    """Returns what a worker gets of one of `columns`.

    Raises
    ------
    ValueError
        If it may not be had, or not as much at a time.
    """
    if len(arrays) != 1 or arrays[0].dtype != np.int64 or arrays[0].ndim != 1:
        raise ValueError("wanted the numbers of frames, (frame,) int64")
    if fetch.column not in columns:
        raise ValueError(f"wanted one of the columns {', '.join(columns)}, got {in_short(fetch.column)}")
    (numbers,) = arrays
    if numbers.size and not 0 <= numbers.min() <= numbers.max() < scan.n_frames:
        raise ValueError(f"{scan.name} has {scan.n_frames} frames by now, numbered from 0")
    held = scan.column(fetch.column)
    n_bytes = len(numbers) * math.prod(held.item_shape) * held.dtype.itemsize
    if n_bytes > MOST_ANSWER_BYTES:
        raise ValueError(f"{len(numbers)} frames are {n_bytes} bytes: ask for {MOST_ANSWER_BYTES} at most")
    values = held.read(numbers)
    if fetch.packs and values.size and values.dtype.kind in PACKED_KINDS:
        packed = np.frombuffer(compress(values, "bslz4"), np.uint8)
        if packed.nbytes < values.nbytes:
            return Values(is_packed=True), [packed]
    return Values(), [values]


def fetched(
    answer: Question, arrays: Arrays, numbers: Numbers, dtype: str, shape: Sequence[int]
) -> NDArray[np.generic]:
    """Returns (frame, ...) of `dtype` and `shape` for each of `numbers`: what was fetched.

    Raises
    ------
    ValueError
        If the answer is something else.
    """
    wanted = (len(numbers), *shape)
    if not isinstance(answer, Values) or len(arrays) != 1:
        raise ValueError(f"values do not come: {getattr(answer, 'reason', type(answer).__name__)}")
    (values,) = arrays
    if answer.is_packed and values.dtype == np.uint8 and values.ndim == 1:
        unpacked = np.empty(wanted, dtype)
        try:
            decompress_into(unpacked, values.tobytes(), "bslz4", unpacked.itemsize)
        except CompressionError as error:
            raise ValueError(f"values came packed, and damaged: {error}") from error
        return unpacked
    if (values.dtype.str, values.shape) != (np.dtype(dtype).str, wanted):
        raise ValueError(f"values came as {values.dtype} of shape {values.shape}, wanted {dtype} {wanted}")
    return values
