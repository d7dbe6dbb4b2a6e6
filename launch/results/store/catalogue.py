"""The store: every recorded run found again by its uid, through databroker, in one folder without a server.

A run holds the beamline's own documents and the recorded frames as an external HDF5 file; a reconstruction
is a run of its own that names it (`raw_uid`). The catalogue is tiled's, in process; databroker, tiled and
bluesky-tiled-plugins are imported when a store is opened.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from launch.extras import missing_extra
from launch.results.store.documents import FRAMES_KEY, NUMBERS_KEY, POSITIONS_KEY, run_documents
from launch.results.store.frames import StoredFrames, write_frames
from operators.arrays import Array, Probe
from operators.geometry import Geometry
from stream.documents.codec import Document
from stream.files.base import ScanFile
from stream.record.scan import Scan

RAW, PROCESSED = "raw", "processed"
CATALOGUE_FILE = "catalogue.db"
_RUN_SPEC, _CATALOGUE_SPEC, _SPEC_VERSION = "BlueskyRun", "CatalogOfBlueskyRuns", "3.0"


class StoreError(ValueError):
    """The store cannot be opened, or does not hold what was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a reconstruction leaves in the store.

    Attributes
    ----------
    arrays : mapping of str to array
        Such as object, probe (complex64) and positions_m; complex objects are also stored as amplitude and
        phase for viewers that cannot show complex numbers.
    metadata : mapping
        Model, configuration, epochs, completeness, object_pixel_m, wavelength_m ...: plain values only.
    """

    arrays: Mapping[str, Array]
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Store:
    """A catalogue of runs in a folder; a context manager. Opened by `open_store`."""

    def __init__(self, folder: Path, client: Any) -> None:
        self._folder, self._client = folder, client

    def record_run(
        self,
        scan_folder: Path,
        documents: Sequence[tuple[str, Document]] = (),
        reconstruction: Result | None = None,
        *,
        geometry: Geometry | None = None,
    ) -> tuple[str, str | None]:
        """Returns the uids of the recorded run and of its reconstruction, None without one.

        Parameters
        ----------
        scan_folder : Path
            The scan whose frames and positions are copied.
        documents : sequence of (str, dict)
            What bluesky published (stream.documents.codec.read_documents); composed where there are none.
        reconstruction : Result or None
        geometry : Geometry or None
            Kept with the frames, so that the stored run can be reconstructed.

        Raises
        ------
        StoreError
            If the documents are not those of one run.
        """
        scan = Scan(scan_folder)
        uid = self._recorded_uid(documents)
        if uid is None:
            frames = write_frames(scan, self._folder / "frames")
            uid = self._insert(run_documents(scan.header, documents, frames, geometry))
        return uid, None if reconstruction is None else self._write_result(uid, reconstruction)

    def scan(self, uid: str) -> ScanFile:
        """Returns the run whose uid begins with `uid`, its frames read as they are sliced.

        Its name is the whole uid, its probe that of the newest reconstruction; the store keeps no mask.

        Raises
        ------
        StoreError
            If no run or several begin so, or the run has no recorded frames.
        """
        uid = self._full_uid(uid)
        run = self._client[RAW].v3[uid]
        streams = [run[name] for name in run if FRAMES_KEY in run[name]]
        if not streams:
            raise StoreError(f"run {uid} has no recorded frames")
        stream = streams[0]
        return ScanFile(
            frames=StoredFrames(stream[FRAMES_KEY]),
            positions_m=np.asarray(stream[POSITIONS_KEY].read()).reshape(-1, 2),
            frame_numbers=np.asarray(stream[NUMBERS_KEY].read()).reshape(-1),
            geometry=_geometry(stream.metadata),
            probe=self._newest_probe(uid),
            mask=None,
            name=uid,
        )

    def databroker(self) -> Any:
        """Returns a databroker v1 `Broker` of the recorded runs: `broker[uid].table(fill=True)`."""
        from databroker.v1 import Broker

        return Broker(self._client[RAW])

    def results(self, uid: str) -> list[str]:
        """Returns the uids of the reconstructions of a run, the oldest first."""
        from tiled.queries import Key

        found = self._client[PROCESSED].v3.search(Key("raw_uid") == uid).values()
        starts = sorted((run.metadata["start"]["time"], run.metadata["start"]["uid"]) for run in found)
        return [recon_uid for _, recon_uid in starts]

    def _insert(self, documents: Sequence[tuple[str, Document]]) -> str:
        from bluesky_tiled_plugins import TiledWriter

        writer = TiledWriter(self._client[RAW])
        for name, document in documents:
            writer(name, document)
        return str(documents[0][1]["uid"])

    def _recorded_uid(self, documents: Sequence[tuple[str, Document]]) -> str | None:
        if not documents:
            return None
        name, start = documents[0]
        if name != "start" or not isinstance(start.get("uid"), str):
            raise StoreError(f"the documents of a run begin with its start document, these with {name!r}")
        return start["uid"] if start["uid"] in self._client[RAW] else None

    def _write_result(self, raw_uid: str, result: Result) -> str:
        from event_model import compose_run
        from tiled.structures.core import Spec

        run = compose_run(
            metadata={
                **result.metadata,
                "plan_name": "reconstruction",
                "purpose": "analysis",
                "raw_uid": raw_uid,
            }
        )
        container = self._client[PROCESSED].create_container(
            key=run.start_doc["uid"],
            metadata={"start": dict(run.start_doc)},
            specs=[Spec("PtychoReconstruction"), Spec(_RUN_SPEC, version=_SPEC_VERSION)],
        )
        for name, array in _with_real_parts(result.arrays).items():
            container.write_array(array, key=name)
        container.update_metadata({"stop": run.compose_stop()})
        return str(run.start_doc["uid"])

    def _full_uid(self, prefix: str) -> str:
        uids = [uid for uid in self._client[RAW] if uid.startswith(prefix)]
        if len(uids) == 1:
            return str(uids[0])
        found = ", ".join(uids[:5]) if uids else "none"
        raise StoreError(f"{self._folder}: wanted one run whose uid begins with {prefix!r}, found {found}")

    def _newest_probe(self, uid: str) -> Probe | None:
        for recon_uid in reversed(self.results(uid)):
            run = self._client[PROCESSED].v3[recon_uid]
            if "probe" in run:
                return run["probe"].read()
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.context.close()


def open_store(folder: Path) -> Store:
    """Returns the store in `folder`, made if it is not there; takes seconds the first time.

    Raises
    ------
    StoreError
        If the packages of the store are not installed.
    """
    try:
        import hdf5plugin  # noqa: F401  (registers the frames' compression with HDF5)
        from bluesky_tiled_plugins.exporters import json_seq_exporter
        from tiled.catalog import from_uri
        from tiled.client import Context, from_context
        from tiled.media_type_registration import default_serialization_registry
        from tiled.server.app import build_app
        from tiled.structures.core import Spec
    except ImportError as error:
        raise StoreError(f"the store {missing_extra(error) or error}") from error
    folder = folder.resolve()
    for part in ("data", "frames"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    # Without it databroker cannot give the documents back.
    default_serialization_registry.register(_RUN_SPEC, "application/json-seq", json_seq_exporter)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        catalogue = from_uri(
            str(folder / CATALOGUE_FILE),
            writable_storage=[str(folder / "data"), f"duckdb:///{folder / 'tables.duckdb'}"],
            readable_storage=[str(folder / "frames")],
            # Asking tiled whether it exists starts a process that takes seconds.
            init_if_not_exists=not (folder / CATALOGUE_FILE).exists(),
        )
        client = from_context(Context.from_app(build_app(catalogue)))
    for name in (RAW, PROCESSED):
        if name not in client:
            client.create_container(name, specs=[Spec(_CATALOGUE_SPEC, version=_SPEC_VERSION)])
    return Store(folder, client)


def _geometry(metadata: Mapping[str, Any]) -> Geometry | None:
    values = metadata.get("configuration", {}).get("ptychostream", {}).get("data", {})
    return Geometry(**values) if values else None


def _with_real_parts(arrays: Mapping[str, Array]) -> dict[str, Array]:
    written = dict(arrays)
    for name, array in arrays.items():
        if np.iscomplexobj(array):
            written[f"{name}_amplitude"] = np.abs(array).astype(np.float32)
            written[f"{name}_phase"] = np.angle(array).astype(np.float32)
    return written
