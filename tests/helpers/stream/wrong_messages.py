"""Messages of the detector and of bluesky with wrong values, as strangers may write them."""

import contextlib
import json
import random
import sys
from collections.abc import Callable, Sequence
from typing import Any

import cbor2

from tests.helpers.stream.wrong_values import WRONG, changed, places

TAG = "a tag of CBOR"  # as which maps of these two keys are sent
DOCUMENTS: dict[str, dict[str, Any]] = {
    "start": {"uid": "r1", "time": 1.0, "detector_series_id": "a", "plan_name": "scan"},
    "descriptor": {
        "uid": "r1-d",
        "run_start": "r1",
        "name": "primary",
        "data_keys": {"stage-y": {"units": "um", "shape": []}, "stage-x": {"units": "um"}},
        "hints": {"stage": {"fields": ["stage-y", "stage-x"]}},
    },
    "event": {"descriptor": "r1-d", "seq_num": 1, "data": {"stage-y": 1.0, "stage-x": 2.0}, "filled": {}},
    "event_page": {"descriptor": "r1-d", "seq_num": [2, 3], "data": {"stage-y": [1, 2], "stage-x": [2, 3]}},
    "resource": {"uid": "res", "run_start": "r1", "resource_kwargs": {"a": 1}},
    "datum": {"resource": "res", "datum_id": "x", "datum_kwargs": {}},
    "datum_page": {"resource": "res", "datum_id": ["x"], "datum_kwargs": {}},
    "stream_resource": {"uid": "sr", "run_start": "r1", "parameters": {}},
    "stream_datum": {"descriptor": "r1-d", "stream_resource": "sr", "indices": {"start": 0, "stop": 3}},
    "stop": {"uid": "s", "run_start": "r1", "exit_status": "success", "num_events": {"primary": 3}},
}


def tags_as_maps(value: Any) -> Any:
    """A decoded message with each CBOR tag as a map, so that its number and content are fields too."""
    if isinstance(value, cbor2.CBORTag):
        return {TAG: value.tag, "content": tags_as_maps(value.value)}
    if hasattr(value, "items"):
        return {key: tags_as_maps(content) for key, content in value.items()}
    return [tags_as_maps(item) for item in value] if isinstance(value, list | tuple) else value


def cbor(value: Any) -> bytes | None:
    """The message on the wire, None where CBOR cannot carry it."""
    with contextlib.suppress(ValueError, TypeError, RecursionError, cbor2.CBORError):
        return cbor2.dumps(_maps_as_tags(value))
    return None


def _maps_as_tags(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {TAG, "content"}:
            return cbor2.CBORTag(value[TAG], _maps_as_tags(value["content"]))
        return {key: _maps_as_tags(content) for key, content in value.items()}
    return [_maps_as_tags(item) for item in value] if isinstance(value, list) else value


def as_json(value: Any) -> bytes:
    """JSON as a stranger may write it, of whole numbers of any length too."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        return json.dumps(value).encode()
    finally:
        sys.set_int_max_str_digits(limit)


def on_the_wire(name: str, document: Any, serializer: Any) -> list[list[bytes]]:
    """The message of one document, none where the serializer cannot carry it."""
    with contextlib.suppress(ValueError, TypeError, OverflowError, RecursionError):
        return [[b" ".join([b"", name.encode(), serializer(document)])]]
    return []


def harmed(message: Any, rng: random.Random, values: dict[str, Any]) -> Any:
    """The message after up to three of its places were given another value."""
    for _ in range(rng.randint(1, 3)):
        if found := list(places(message)):
            message = changed(message, rng.choice(found), rng.choice(list(values.values())))
            if not isinstance(message, dict):
                break
    return message


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A message with other bits, without its end, with more behind it, or of nothing but chance."""
    match rng.randrange(5):
        case 0:
            changed = bytearray(content)
            for _ in range(rng.randint(1, 8)):
                changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
            return bytes(changed)
        case 1:
            return content[: rng.randrange(len(content))]
        case 2:
            return content + rng.randbytes(rng.randrange(1, 200))
        case 3:
            return rng.randbytes(rng.randrange(0, 300))
    return rng.choice([b"\x81", b"\x91", b"[", b"\xa1\x60"]) * rng.randrange(1, 4000)


def fields_of(part: bytes) -> tuple[dict[str, Any], Callable[[Any], bytes | None]] | None:
    """The fields of a part and what writes them again; None where it is neither JSON nor CBOR of any."""
    with contextlib.suppress(ValueError):
        if isinstance(fields := json.loads(part), dict):
            return fields, as_json
    with contextlib.suppress(ValueError, cbor2.CBORError):
        if hasattr(fields := cbor2.loads(part), "items"):
            return tags_as_maps(fields), cbor
    return None


class WrongMessages:
    """Makes wrong messages out of good ones: of fields, bytes or parts that are not as they should be."""

    def __init__(self, good: Sequence[Sequence[bytes]], rng: random.Random) -> None:
        self._good = [[(part, fields_of(part)) for part in parts] for parts in good]
        self._rng = rng

    def next(self) -> list[bytes]:
        """The next one, in its parts."""
        rng = self._rng
        message = rng.choice(self._good)
        parts = [part for part, _ in message]
        if (chance := rng.random()) < 0.1:
            return parts * rng.choice([0, 2, 3])
        if chance < 0.2 and len(parts) > 1:
            rng.shuffle(parts)
        index = rng.randrange(len(parts))
        part, written = message[index]
        encoded = None
        if written is not None and rng.random() < 0.5:
            fields, write = written
            with contextlib.suppress(ValueError, TypeError, OverflowError, RecursionError):
                encoded = write(harmed(fields, rng, WRONG))
        parts[index] = damaged(part or b"\0", rng) if encoded is None else encoded
        return parts
