"""Numbers in the user data of a detector's messages, for positions that come with the frames."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stream.record.columns import Column

TOLD = 3  # values per frame, and a flag that they are there


def numbers_in(user_data: Any, keys: Sequence[str]) -> list[float] | None:
    """Returns what user data has under `keys`, None unless all are numbers.

    Parameters
    ----------
    user_data : Any
        A mapping, or JSON text that is one.
    keys : sequence of str
        A key may lead into mappings: `stage.y`.
    """
    values = [_at(_mapping(user_data), key) for key in keys]
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        return None
    try:
        numbers = [float(value) for value in values]
    except OverflowError:
        return None
    return numbers if np.isfinite(numbers).all() else None


def series_in(user_data: Any, keys: Sequence[str]) -> list[list[float]]:
    """Returns a row of numbers per frame, where user data has lists of one length under all `keys`."""
    lists = [_at(_mapping(user_data), key) for key in keys]
    if not lists or not all(
        isinstance(values, list | tuple) and len(values) == len(lists[0]) for values in lists
    ):
        return []
    rows = (numbers_in(dict(zip(keys, row, strict=True)), keys) for row in zip(*lists, strict=True))
    numbers = [row for row in rows if row is not None]
    return numbers if len(numbers) == len(lists[0]) else []


def write_told(column: Column, numbers: Sequence[int], told: Sequence[list[float] | None]) -> None:
    """Stores what was told of frames, where something was."""
    which = [k for k, values in enumerate(told) if values is not None]
    if which:
        rows = np.zeros((len(which), TOLD + 1))
        for row, k in zip(rows, which, strict=True):
            values = told[k] or []
            row[: len(values)], row[-1] = values, 1.0
        column.write(np.array([numbers[k] for k in which]), rows)


def _mapping(user_data: Any) -> Any:
    if isinstance(user_data, str | bytes) and user_data[:1] in ("{", b"{"):
        try:
            return json.loads(user_data)
        except (ValueError, RecursionError):
            return None
    return user_data


def _at(values: Any, key: Any) -> Any:
    if not isinstance(values, Mapping):
        return None
    if key in values or not isinstance(key, str) or "." not in key:
        return values.get(key)
    head, _, rest = key.partition(".")
    return _at(values.get(head), rest)
