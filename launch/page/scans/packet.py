"""Arrays for the browser, exact: what it draws it can also read out.

One packet is: uint32 length of the header, little endian; the header, JSON padded to a multiple of 4 bytes,
whose "arrays" gives name and shape of each; then every array in order, C order, little endian float32.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.plain_json import plain_json


def encode_arrays(facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Returns the packet of `arrays`, with `facts` in its header."""
    shapes = [{"name": name, "shape": list(values.shape)} for name, values in arrays.items()]
    header = plain_json({**facts, "arrays": shapes})
    header += b" " * (-len(header) % 4)
    parts = [np.ascontiguousarray(values, "<f4").tobytes() for values in arrays.values()]
    return b"".join([len(header).to_bytes(4, "little"), header, *parts])


def summed(values: NDArray[Any], side: int) -> tuple[NDArray[Any], int]:
    """Returns (..., y, x) summed over squares until no side is longer than `side`, and the square's side.

    What does not fill a square at the end of an axis is left out.
    """
    factor = -(-max(values.shape[-2:]) // side)
    if factor == 1:
        return values, 1
    n_rows, n_columns = (length // factor for length in values.shape[-2:])
    inside = values[..., : n_rows * factor, : n_columns * factor]
    squares = inside.reshape(*values.shape[:-2], n_rows, factor, n_columns, factor)
    return squares.sum(axis=(-3, -1)), factor
