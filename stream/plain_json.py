"""JSON as every reader takes it: what is not a finite number is null, never a bare NaN."""

from typing import Any

import msgspec
import numpy as np


def plain_json(value: Any, *, indent: int = 0) -> bytes:
    """Returns `value` as JSON in UTF-8; arrays and scalars of NumPy become lists and numbers.

    Parameters
    ----------
    value : mappings, sequences, structs, texts, numbers
    indent : int
        For people; 0 puts all on one line.

    Examples
    --------
    >>> plain_json({"error": float("nan"), "box": np.array([1, 2])})
    b'{"error":null,"box":[1,2]}'
    """
    encoded = msgspec.json.encode(value, enc_hook=_plain)
    return msgspec.json.format(encoded, indent=indent) if indent else encoded


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"JSON cannot carry {type(value).__name__}")
