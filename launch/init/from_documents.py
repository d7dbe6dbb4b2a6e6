"""What bluesky's documents tell of positions: which fields are y and x, in which unit, beside which files."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from launch.init.told import Told
from operators.geometry import METRES_PER_UNIT
from stream.documents.codec import RECORD_FILE, Document, DocumentError, read_documents
from stream.documents.position_reader import PositionFields, PositionReader
from stream.wire.foreign import in_short


def documents_in(path: Path) -> list[tuple[str, Document]]:
    """Returns the documents in a file, by name.

    Parameters
    ----------
    path : Path
        A recorded scan's folder or its `documents.msgpack`; or JSON: a descriptor, or documents as
        [name, document] or {"name": name, "doc": document}, in a list or one to a line.

    Raises
    ------
    ValueError
        If it holds something else.
    """
    if path.is_dir() or path.name == RECORD_FILE:
        return read_documents(path if path.is_dir() else path.parent)
    text = path.read_bytes()
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError:
        try:
            found = msgspec.json.Decoder().decode_lines(text)
        except msgspec.DecodeError as error:
            raise ValueError(f"{path}: wanted documents of bluesky in JSON: {error}") from error
    return [_named(path, each) for each in (found if isinstance(found, list) else [found])]


def _named(path: Path, found: Any) -> tuple[str, Document]:
    match found:
        case [str(name), dict(document)] | {"name": str(name), "doc": dict(document)}:
            return name, document
        case {"data_keys": dict()}:
            return "descriptor", found
    raise ValueError(
        f"{path}: wanted a descriptor of bluesky, or documents as [name, document], found {in_short(found)}"
    )


def tell_of_documents(told: Told, source: str, documents: Iterable[tuple[str, Document]]) -> bool:
    """Adds what the documents say; returns whether a descriptor with positions was among them.

    Raises
    ------
    DocumentError
        If no descriptor has two fields for y and x, and one was there.
    """
    trouble: DocumentError | None = None
    for name, document in documents:
        if name == "descriptor":
            try:
                _tell_of_descriptor(told, source, document)
            except DocumentError as error:
                trouble = trouble or error
        elif name == "stream_resource" and isinstance(uri := document.get("uri"), str):
            folder = Path(unquote(urlsplit(uri).path)).parent
            told.add(source, {("positions", "folders"): [str(folder)]})
    if trouble is not None and ("positions", "y") not in told.values:
        raise trouble
    return ("positions", "y") in told.values


def _tell_of_descriptor(told: Told, source: str, descriptor: Document) -> None:
    y, x = (str(told.values.get(("positions", name), "")) for name in ("y", "x"))
    readers = {
        unit: PositionReader(PositionFields.model_validate({"unit": unit, "y": y, "x": x}))
        for unit in METRES_PER_UNIT
    }
    refusals = []
    for reader in readers.values():
        try:
            reader.read("descriptor", descriptor)
        except DocumentError as error:
            refusals.append(error)
    units = [unit for unit, reader in readers.items() if reader.fields_read]
    if not units:
        if not refusals:
            next(iter(readers.values())).read("stop", {})  # which says what is missing
        raise refusals[0]
    y, x = readers[units[0]].fields_read or ("", "")
    told.add(source, {("positions", "y"): y, ("positions", "x"): x})
    if len(units) == 1:  # a descriptor that names none suits all
        told.add(source, {("positions", "unit"): units[0]})
