"""Values that no field of a message should have, and every place in a message to put them."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

Path = tuple[Any, ...]


def nested(depth: int, value: Any = 1) -> Any:
    """`value` inside so many lists."""
    for _ in range(depth):
        value = [value]
    return value


# Of every type, sign, size and depth; what a decoder cannot carry its test leaves out.
WRONG: dict[str, Any] = {
    "nothing": None,
    "true": True,
    "zero": 0,
    "negative": -1,
    "whole": 2**62,
    "huge": 10**5000,
    "hugely negative": -(10**5000),
    "beyond a float": 10**400,
    "float": 0.5,
    "nan": math.nan,
    "infinite": -math.inf,
    "large float": 1e300,
    "empty text": "",
    "text": "banana",
    "long text": "x" * 100_000,
    "half a character": "\ud800",
    "zero byte": "a\0b/../c\n",
    "bytes": b"\x00\xff" * 20,
    "empty list": [],
    "list": [1, "a", None],
    "huge in a list": [10**5000, 10**5000],
    "list of lists": [[1, 2], [3]],
    "deep": nested(200),
    "too deep": nested(600),
    "empty map": {},
    "map": {"a": {"b": [1]}},
    "map of numbers": {"1": 10**5000},
}
ARRAYS: dict[str, Any] = {
    "array": np.arange(6.0).reshape(2, 3),
    "array of whole numbers": np.array([1, 2, 3]),
    "array of texts": np.array(["a", "b"]),
    "empty array": np.zeros((0, 2)),
    "array scalar": np.float64(3.0),
}


def places(message: Any) -> Iterator[Path]:
    """Where the values of a message of maps and lists lie, inner ones too."""
    inside: list[tuple[Path, Any]] = [((), message)]
    while inside:
        path, held = inside.pop()
        for key in held.keys() if isinstance(held, dict) else range(len(held)):
            yield (*path, key)
            if isinstance(held[key], dict | list):
                inside.append(((*path, key), held[key]))


def changed(message: Any, path: Path, value: Any) -> Any:
    """A copy of the message with another value in one place."""
    copy = inner = _copied(message)
    for key in path[:-1]:  # a message may be deeper than Python calls itself
        inner[key] = _copied(inner[key])
        inner = inner[key]
    inner[path[-1]] = value
    return copy


def _copied(held: Any) -> Any:
    return dict(held) if isinstance(held, dict) else list(held)


def without(message: Any, path: Path) -> Any:
    """A copy of the message that lacks one place."""
    copy = _copied(message)
    if len(path) > 1:
        copy[path[0]] = without(copy[path[0]], path[1:])
    else:
        del copy[path[0]]
    return copy


def wrong_messages(message: Any, values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every message that has one wrong value in one place or lacks the place, and what is wrong with it."""
    for path in places(message):
        where = ".".join(map(str, path))
        yield f"without {where}", without(message, path)
        for name, value in values.items():
            yield f"{where} {name}", changed(message, path, value)
