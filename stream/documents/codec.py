"""Bluesky documents on the wire and on disk, without bluesky and without pickle.

The wire is that of bluesky's ZeroMQ publisher, `prefix + b" " + name + b" " + payload`; the payload is
msgpack (arrays as msgpack-numpy writes them) or JSON, told apart by their first bytes.
"""

import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgpack
import numpy as np

from stream.atomic import full_disk_named, written_atomically
from stream.plain_json import plain_json
from stream.wire.codec import Buffer
from stream.wire.foreign import in_short

Document = dict[str, Any]
Serializer = Literal["msgpack", "json"]

# which field of a document names the one that it belongs to
PARENT_OF = {
    "descriptor": "run_start",
    "event": "descriptor",
    "event_page": "descriptor",
    "resource": "run_start",
    "datum": "resource",
    "datum_page": "resource",
    "stream_resource": "run_start",
    "stream_datum": "descriptor",
    "stop": "run_start",
}
DOCUMENT_NAMES = frozenset({"start", *PARENT_OF})
MAX_PREFIX_BYTES = 256
RECORD_FILE = "documents.msgpack"
_LENGTH_BYTES = 4
_PLAIN_DTYPE = re.compile(r"[<>|=][biufcUS][1-9][0-9]{0,4}")
_PICKLE_ADVICE = (
    "pickle runs code of whoever sends it and is never read here: give the publisher a serializer, "
    "Publisher(address, serializer=stream.documents.codec.to_msgpack), or functools.partial(msgpack.packb, "
    "default=msgpack_numpy.encode), or one that returns JSON bytes"
)


class DocumentError(ValueError):
    """Bytes that are not a bluesky document, or a document that does not say what it should."""


def encode_document(
    name: str, document: Mapping[str, Any], *, serializer: Serializer = "msgpack", prefix: bytes = b""
) -> bytes:
    """Returns the message that bluesky's publisher would send."""
    payload = to_msgpack(document) if serializer == "msgpack" else to_json(document)
    return b" ".join([prefix, name.encode(), payload])


def decode_document(message: Buffer) -> tuple[str, Document]:
    """Returns the name and the content of a document.

    Raises
    ------
    DocumentError
        If the message is not a document in msgpack or JSON; pickle is refused, never read.
    """
    message = bytes(message)
    head = message.split(b" ", 2)
    if len(head) < 3 or len(head[0]) > MAX_PREFIX_BYTES:
        raise DocumentError(f"wanted 'prefix name payload', got {len(message)} bytes {message[:24]!r}...")
    name = head[1].decode(errors="replace")
    if name not in DOCUMENT_NAMES:
        raise DocumentError(f"unknown document {name[:40]!r}: wanted {', '.join(sorted(DOCUMENT_NAMES))}")
    try:
        document = _loads(head[2])
    except DocumentError as error:
        raise DocumentError(f"{name} document: {error}") from error
    if not isinstance(document, dict):
        raise DocumentError(f"{name} document: wanted a mapping, got {type(document).__name__}")
    return name, document


def to_msgpack(document: Any) -> bytes:
    """Returns msgpack, arrays in the layout of msgpack-numpy; the serializer for bluesky's publisher."""
    packed: bytes = msgpack.packb(document, default=_from_numpy, use_bin_type=True)
    return packed


def to_json(document: Any) -> bytes:
    """Returns JSON, arrays as lists; for publishers whose readers have no msgpack."""
    return plain_json(document)


def as_record(name: str, document: Document) -> bytes:
    """Returns what `append_records` takes of a document: its msgpack behind its length of four bytes.

    Raises
    ------
    DocumentError
        If msgpack cannot carry what the document holds, though JSON could.
    """
    try:
        record = to_msgpack([name, document])
    except (ValueError, TypeError, OverflowError) as error:
        raise DocumentError(f"{name} document cannot be recorded: {error}") from error
    return len(record).to_bytes(_LENGTH_BYTES, "little") + record


def append_records(folder: Path, records: Iterable[bytes]) -> None:
    """Appends documents (`as_record`) to those recorded in `folder`, all or none.

    Raises
    ------
    DiskFullError
        If there is no room; what is recorded stays as it is.
    """
    content = b"".join(records)
    with full_disk_named(RECORD_FILE, folder), (folder / RECORD_FILE).open("ab", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        try:  # a write that does not fit ends where the room does; the next one says why
            while content:
                content = content[file.write(content) :]
        except OSError:
            file.truncate(end)
            raise


def read_documents(folder: Path) -> list[tuple[str, Document]]:
    """Returns the documents recorded in `folder`, in order of arrival; a torn last record is left out.

    Raises
    ------
    DocumentError
        If the record holds something else than documents.
    """
    return [(name, document) for name, document, _ in _records(folder)]


def repair_record(folder: Path) -> str:
    """Cuts off what is no whole document, so that the next one can be appended; returns what it was.

    Half a document at the end is what a crash leaves: nothing is said of it, "". Before anything else is cut
    off, the whole record is copied to `documents.msgpack.damaged`, or `.damaged.1`, `.damaged.2` ... where an
    earlier copy has that name.

    Raises
    ------
    DiskFullError
        If there is no room for the copy; the record stays as it is.
    """
    path, end, damage = folder / RECORD_FILE, 0, ""
    if not path.exists():
        return ""
    try:
        for _, _, after in _records(folder):
            end = after
    except DocumentError as error:
        suffixes = (f".{n}" if n else "" for n in itertools.count())
        copies = (path.with_name(f"{RECORD_FILE}.damaged{suffix}") for suffix in suffixes)
        aside = next(copy for copy in copies if not copy.exists())
        with written_atomically(aside) as file:
            file.write(path.read_bytes())
        damage = f"all of them lie in {aside}: {error}"
    with path.open("r+b") as file:
        file.truncate(end)
    return damage


def _records(folder: Path) -> Iterable[tuple[str, Document, int]]:
    path = folder / RECORD_FILE
    content = path.read_bytes() if path.exists() else b""
    start = 0
    while start + _LENGTH_BYTES <= len(content):
        end = start + _LENGTH_BYTES + int.from_bytes(content[start : start + _LENGTH_BYTES], "little")
        if end > len(content):
            return
        record = _loads(content[start + _LENGTH_BYTES : end])
        if not (isinstance(record, list) and len(record) == 2 and record[0] in DOCUMENT_NAMES):
            raise DocumentError(f"{path}: no document at byte {start}")
        yield record[0], record[1], end
        start = end


def _loads(payload: bytes) -> Any:
    if payload[:1] == b"\x80" and payload[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise DocumentError(_PICKLE_ADVICE)
    try:
        if payload[:1] == b"{":
            return json.loads(payload)
        return msgpack.unpackb(payload, object_hook=_to_numpy, strict_map_key=False)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise DocumentError(f"neither msgpack nor JSON ({error}); {_PICKLE_ADVICE}") from error


def _from_numpy(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufcUS":
        is_array = isinstance(value, np.ndarray)
        head = {b"nd": is_array, b"type": value.dtype.str, b"data": np.ascontiguousarray(value).tobytes()}
        return {**head, b"kind": b"", b"shape": list(value.shape)} if is_array else head
    raise TypeError(f"a document cannot carry {type(value).__name__} {in_short(value)}")


def _to_numpy(value: dict[Any, Any]) -> Any:
    # Not msgpack_numpy.decode: that unpickles arrays of objects.
    if b"nd" not in value:
        return value
    # NumPy would evaluate parts of other descriptions.
    if not _PLAIN_DTYPE.fullmatch(str(value.get(b"type"))) or not isinstance(value.get(b"data"), bytes):
        raise DocumentError(f"array of type {in_short(value.get(b'type'))}: wanted plain numbers or strings")
    dtype = np.dtype(value[b"type"])
    if not value[b"nd"]:
        return np.frombuffer(value[b"data"], dtype, count=1)[0]
    shape = value.get(b"shape", ())
    if not isinstance(shape, list | tuple) or not all(type(n) is int and 0 <= n < 2**40 for n in shape):
        raise DocumentError(f"array of shape {in_short(shape)}: wanted whole numbers")
    if math.prod(shape) * dtype.itemsize != len(value[b"data"]):
        raise DocumentError(f"array {dtype.str} {in_short(shape)} does not fit {len(value[b'data'])} bytes")
    return np.frombuffer(value[b"data"], dtype).reshape(shape)


def decisions_of(folder: Path) -> list[dict[str, Any]]:
    """Returns what a steered run has written into its stream `decisions`, a mapping per decision."""
    documents = list(read_documents(folder))
    streams = {
        str(document.get("uid"))
        for name, document in documents
        if name == "descriptor" and document.get("name") == "decisions"
    }
    return [
        {str(key).removeprefix("decision_"): value for key, value in document["data"].items()}
        for name, document in documents
        if name == "event"
        and str(document.get("descriptor")) in streams
        and isinstance(document.get("data"), dict)
    ]
