"""The documents of a run as the store gets them: the beamline's own, and a stream for the recorded frames.

Pure: documents in, documents out.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from launch.results.store.frames import FRAMES_DATASET, NUMBERS_DATASET, POSITIONS_DATASET, FramesFile
from operators.geometry import Geometry
from stream.documents.codec import Document
from stream.record.scan import ScanHeader

FRAMES_KEY, NUMBERS_KEY, POSITIONS_KEY = "recorded_frames", "recorded_frame_number", "recorded_positions_m"
RECORDED_STREAM = "recorded"
_DEVICE = "ptychostream"
_ASSETS = ("resource", "datum", "datum_page", "stream_resource", "stream_datum")
_COLUMNS = ("data", "timestamps", "filled")

Named = tuple[str, Document]


def run_documents(
    header: ScanHeader,
    documents: Sequence[Named],
    frames: FramesFile,
    geometry: Geometry | None = None,
) -> list[Named]:
    """Returns the documents of one complete run, start to stop, with the recorded frames as a stream.

    Files that the beamline's documents refer to are left out: they lie on another machine. The stream of
    the frames is called "recorded", or "primary" where the run has no stream of that name.

    Parameters
    ----------
    header : ScanHeader
        Of the scan; a run is composed of it where there are no documents.
    documents : sequence of (str, dict)
        Of one run, in order; its stop document may be missing. Without a start they are left out.
    frames : FramesFile
    geometry : Geometry or None
    """
    if documents and documents[0][0] != "start":  # the scan was joined: what came has no beginning
        documents = ()
    is_composed = not documents
    kept = list(_without_files(documents)) if documents else [("start", _start(header))]
    start = kept[0][1]
    has_primary = any(name == "descriptor" and document["name"] == "primary" for name, document in kept)
    stops = [document for name, document in documents if name == "stop"]
    stop = stops[0] if stops else _stop(start, is_composed=is_composed)
    stream = RECORDED_STREAM if has_primary else "primary"
    return [*kept, *_frames_stream(start, frames, stream, geometry), ("stop", stop)]


def _start(header: ScanHeader) -> Document:
    return {
        "uid": str(uuid.uuid4()),
        "time": header.started_s,
        "plan_name": "recorded_by_ptychostream",
        "detector_series_id": header.series_uid or str(header.series_id),
        "run_id": header.run_id,
        "config_hash": header.config_hash,
    }


def _stop(start: Document, *, is_composed: bool) -> Document:
    return {
        "uid": str(uuid.uuid4()),
        "time": start["time"],
        "run_start": start["uid"],
        "exit_status": "success" if is_composed else "abort",
        "reason": "" if is_composed else "the beamline published no stop document",
    }


def _without_files(documents: Sequence[Named]) -> Iterator[Named]:
    """Yield documents but the stop, without what refers to files of the beamline."""
    external: dict[str, set[str]] = {}
    for name, document in documents:
        if name == "descriptor":
            keys = document["data_keys"]
            external[document["uid"]] = {key for key, value in keys.items() if "external" in value}
            if len(external[document["uid"]]) < len(keys):
                yield name, _descriptor_without(document, external[document["uid"]])
        elif name in ("event", "event_page"):
            gone = external.get(document["descriptor"], set())
            yield name, {**document, **{part: _without(document.get(part), gone) for part in _COLUMNS}}
        elif name not in (*_ASSETS, "stop"):
            yield name, document


def _descriptor_without(descriptor: Document, gone: set[str]) -> Document:
    objects = {
        device: [key for key in keys if key not in gone]
        for device, keys in descriptor.get("object_keys", {}).items()
    }
    return {**descriptor, "data_keys": _without(descriptor["data_keys"], gone), "object_keys": objects}


def _without(mapping: Mapping[str, Any] | None, gone: set[str]) -> Document:
    return {key: value for key, value in (mapping or {}).items() if key not in gone}


def _frames_stream(
    start: Document, frames: FramesFile, stream: str, geometry: Geometry | None
) -> Iterator[Named]:
    if not frames.n_frames:
        return
    layout = {
        FRAMES_KEY: (FRAMES_DATASET, frames.frame_shape, frames.frame_dtype),
        NUMBERS_KEY: (NUMBERS_DATASET, (), "<i8"),
        POSITIONS_KEY: (POSITIONS_DATASET, (2,), "<f8"),
    }
    descriptor = {
        "uid": str(uuid.uuid4()),
        "time": start["time"],
        "run_start": start["uid"],
        "name": stream,
        "data_keys": {
            key: {
                "source": f"ptychostream://{dataset}",
                "dtype": "array",
                "dtype_numpy": np.dtype(dtype).str,
                "shape": list(shape),
                "external": "STREAM:",
                "object_name": _DEVICE,
            }
            for key, (dataset, shape, dtype) in layout.items()
        },
        "object_keys": {_DEVICE: list(layout)},
        "hints": {_DEVICE: {"fields": [FRAMES_KEY]}},
        "configuration": {_DEVICE: _configuration(geometry, start["time"])},
    }
    yield "descriptor", descriptor
    for key, (dataset, shape, _) in layout.items():
        yield from _file_part(descriptor, frames, key, dataset, shape)


def _file_part(
    descriptor: Document, frames: FramesFile, key: str, dataset: str, shape: tuple[int, ...]
) -> Iterator[Named]:
    resource = {
        "uid": str(uuid.uuid4()),
        "run_start": descriptor["run_start"],
        "data_key": key,
        "mimetype": "application/x-hdf5",
        "uri": f"file://localhost{frames.path}",
        "parameters": {"dataset": dataset, "chunk_shape": [1 if shape[1:] else frames.n_frames, *shape]},
    }
    yield "stream_resource", resource
    yield (
        "stream_datum",
        {
            "uid": f"{resource['uid']}/0",
            "stream_resource": resource["uid"],
            "descriptor": descriptor["uid"],
            "indices": {"start": 0, "stop": frames.n_frames},
            "seq_nums": {"start": 1, "stop": frames.n_frames + 1},
        },
    )


def _configuration(geometry: Geometry | None, time_s: float) -> Document:
    values = {} if geometry is None else asdict(geometry)
    return {
        "data": values,
        "timestamps": dict.fromkeys(values, time_s),
        "data_keys": {
            name: {"source": "ptychostream://geometry", "dtype": "number", "shape": []} for name in values
        },
    }
