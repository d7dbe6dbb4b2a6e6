"""Stage: what stays of a scan, off the hot path: CXI, picture, figures, and the entry in the store.

Last of the stages: it waits until all others have closed a scan. The store is written by a process of its own
(launch.results.store.process), so a store that is slow, broken or missing costs its entry and nothing else.
"""

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from launch.config.sections import ResultsConfig, StoreConfig
from launch.results.cxi import write_cxi
from launch.results.halves import (
    CHEAP_S,
    LEFT,
    MEASURING,
    OVERTAKEN,
    STORING,
    measured_resolution,
    seconds_of_halves,
    unmeasured,
)
from launch.results.product import write_product
from launch.results.reconstruction import Reconstruction
from launch.results.summary import result_folder, summarise, write_summary
from operators.arrays import Probe, abs2
from operators.mosaic.error_bars import ErrorModel
from operators.mosaic.mosaic import Mosaic, Picture
from operators.mosaic.stitching import stitch_parts
from operators.reconstruct import transparent_where_unlit
from stream.record.account import frame_counts
from stream.record.calibration import read_calibration
from stream.record.handover import NETWORK, has_successor
from stream.record.scan import Numbers, Scan, State
from stream.record.snapshot import read_snapshot
from stream.stages.inputs import ImageOrigin, Optics, read_corners, read_patches
from stream.stages.refusals import in_words
from stream.stages.stage import ScanWork
from stream.stages.stitching.composition import Refined

log = logging.getLogger(__name__)


class Recorder:
    """Worker: one result per scan.

    Parameters
    ----------
    config : ResultsConfig
    store : StoreConfig
    origin : ImageOrigin
        What the results of this run are made from; its versions are written into each.
    save : Path
        Results go into `results` below it, the store into `store` where it has no folder of its own.
    is_ending : callable
        Says whether the run was asked to end: nobody waits for what can be had later as well.
    origin_of : callable, optional
        Takes the id of an earlier run, of which a scan was finished, and returns what that was made from.

    Raises
    ------
    OSError
        If the folder of results cannot be made: better known now than after the scan.
    """

    name = "recorder"
    begins_last: Literal[True] = True
    inputs: tuple[str, ...] = ("stitcher",)
    waits_for: tuple[str, ...] = ("subscriber", "positions", NETWORK, "refinement")
    batch_size = 4096
    deadline_s = 0.5

    def __init__(
        self,
        config: ResultsConfig,
        store: StoreConfig,
        origin: ImageOrigin,
        save: Path,
        *,
        is_ending: Callable[[], bool] = lambda: False,
        origin_of: Callable[[str], ImageOrigin] | None = None,
    ) -> None:
        self.config, self.results = config, result_folder(save)
        self._origin, self._origin_of = origin, origin_of
        self.is_ending = is_ending
        self.store = (store.path or save / "store") if store.enabled else None
        self.store_timeout_s = store.timeout_s
        self.results.mkdir(parents=True, exist_ok=True)

    def open(self, scan: Scan) -> "ScanResult":
        """Begins with a scan."""
        return ScanResult(self, scan, self._origin_in(scan.header.run_id))

    def _origin_in(self, run_id: str) -> ImageOrigin:
        if self._origin_of is None or run_id == self._origin.run_id:
            return self._origin
        try:
            return self._origin_of(run_id)
        except (ValueError, OSError) as error:
            log.warning("run %s cannot be read, this run's settings stand in for its own: %s", run_id, error)
            return self._origin


class ScanResult(ScanWork):
    """What stays of one scan."""

    def __init__(self, stage: Recorder, scan: Scan, origin: ImageOrigin) -> None:
        self._stage, self._scan, self._origin = stage, scan, origin

    def handle(self, numbers: Numbers) -> None:
        """Notes that these frames are in the record: they are in the columns."""
        self._scan.mark(Recorder.name, numbers, State.DONE)

    def close(self) -> None:
        """Writes the results of the scan."""
        stage, scan = self._stage, self._scan
        figures = summarise(scan)
        result = reconstruction_of(
            scan,
            self._origin.optics,
            uses_network=self._origin.uses_network,
            error_model=self._origin.error_model,
        )
        stem = stage.results / scan.name
        if result is not None:
            figures |= result.motion()
            figures |= self._written(stem, result, figures)
        self._write_figures(stem, figures)
        if stage.store is not None:
            scan.counters(Recorder.name, writable=True)["step"] = STORING  # which may take its time
            figures["uid"] = self._store(stage.store, stem)
            self._write_figures(stem, figures)
        if result is not None:
            reason = self._unmeasured_for(result) if "result" in figures else "there is no result"
            measured = (
                unmeasured(reason, scan.folder) if reason else self._resolution(stem.with_suffix(".cxi"))
            )
            self._write_figures(stem, figures | measured)
            if measured == unmeasured(OVERTAKEN, scan.folder):
                scan.counters(Recorder.name, writable=True)["step"] = LEFT

    def _written(self, stem: Path, result: Reconstruction, figures: dict[str, Any]) -> dict[str, str]:
        """Write the files of a result that there is room for; return which they are, by figure."""
        from launch.results.pictures import write_png  # Matplotlib, which no start has to wait for

        writers = {
            "result": (".cxi", lambda path: write_cxi(path, result, self._provenance(figures))),
            "picture": (".png", lambda path: write_png(path, result)),
        }
        if self._stage.config.product:
            writers["product"] = (".h5", lambda path: write_product(path, result, self._provenance(figures)))
        written = {}
        for figure, (suffix, write) in writers.items():
            with self._for_want_of_room():
                write(stem.with_suffix(suffix))
                written[figure] = str(stem.with_suffix(suffix))
        return written

    def _write_figures(self, stem: Path, figures: dict[str, Any]) -> None:
        with self._for_want_of_room():
            write_summary(stem.with_suffix(".json"), figures)

    @contextlib.contextmanager
    def _for_want_of_room(self) -> Iterator[None]:
        """Say what a full disk keeps from being written; the scan itself is on it."""
        try:
            yield
        except (OSError, RuntimeError) as error:  # HDF5 has words of its own for it
            folder = self._scan.folder
            log.warning("a file of %s cannot be written: %s", folder.name, in_words(error))
            log.warning("free space, then `ptychostream reconstruct %s` makes it", folder)

    def _unmeasured_for(self, result: Reconstruction) -> str:
        """Return why the resolution is not to be measured, "" if it is."""
        how = self._stage.config.resolution
        n_pending, seconds = frame_counts(self._scan)["pending"], seconds_of_halves(result)
        if how == "never":
            return "results.resolution is 'never'"
        if how == "auto":
            if not self._origin.uses_refinement:
                return "nothing was refined"
            if n_pending:
                return f"{n_pending} of the frames were pending"
            if seconds >= CHEAP_S:
                return f"it would have taken about {seconds:.0f} s"
        return self._urgent()

    def _resolution(self, result_file: Path) -> dict[str, Any]:
        begun_s, is_patient = time.monotonic(), self._stage.config.resolution == "always"
        self._scan.counters(Recorder.name, writable=True)["step"] = MEASURING

        def why_not() -> str:
            if reason := self._urgent():
                return reason
            is_late = not is_patient and time.monotonic() - begun_s > CHEAP_S
            return f"it would have taken more than {CHEAP_S:.0f} s" if is_late else ""

        return measured_resolution(self._scan.folder, result_file, why_not)

    def _urgent(self) -> str:
        """Return what leaves no time for a resolution, "" if nothing does."""
        if self._stage.is_ending():
            return "the run was asked to end"
        return OVERTAKEN if has_successor(self._scan) else ""

    def _provenance(self, figures: dict[str, Any]) -> dict[str, Any]:
        own = {name: getattr(self._origin, name) for name in ("run_id", "config_hash", "model")}
        own["models"] = ", ".join(f"{name}: {n}" for name, n in figures["models"].items())
        return own | {
            name: value
            for name, value in figures.items()
            if value is not None and not isinstance(value, dict | list)
        }

    def _store(self, store: Path, stem: Path) -> str:
        """Return the uid of the stored run, "" if it was not stored; the reason is in the log."""
        scan = self._scan
        command = [sys.executable, "-P", "-m", "launch.results.store.process", "--parent", str(os.getpid())]
        command += [str(store), str(scan.folder)]
        command += [str(stem.with_suffix(".cxi"))] if stem.with_suffix(".cxi").exists() else []
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=self._stage.store_timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            log.warning("%s is not in the store: no answer in %g s", scan.name, self._stage.store_timeout_s)
            return ""
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            log.warning("%s is not in the store: %s", scan.name, reason)
            return ""
        return done.stdout.strip().splitlines()[-1]


def reconstruction_of(
    scan: Scan,
    optics: Optics,
    *,
    uses_network: bool,
    error_model: ErrorModel,
) -> Reconstruction | None:
    """Returns what a closed scan became, None if no frame got into a picture."""
    snapshot = read_snapshot(scan.folder)
    mosaic = _mosaic(scan, optics, error_model) if uses_network else None
    factor = np.float32(read_calibration(scan.folder).sigma_factor)
    if snapshot is not None and snapshot.is_finite:
        used = _done(scan, "refinement")
        refined = Refined.of(snapshot, Mosaic(np.ones((1, 1), np.float32)), before=None)
        maps = {"sigma": refined.sigma}
        picture = Picture(
            object=snapshot.object, photons=snapshot.illumination, sigma=refined.sigma, bounds=snapshot.bounds
        )
        probe: Probe | None = snapshot.probe
        history = np.array(snapshot.error_history)
    elif mosaic is not None and mosaic.bounds is not None:
        used, picture = _done(scan, "inference", "positions"), mosaic.picture(mosaic.bounds)
        maps, history = {"sigma": factor * picture.sigma}, np.zeros(0)
        probe = optics.probe_of(scan)
    else:
        return None
    if mosaic is not None and mosaic.bounds is not None and mosaic.bounds.contains(picture.bounds):
        below = mosaic.picture(picture.bounds)
        maps |= {"mosaic": below.object, "mosaic_sigma": factor * below.sigma}
    return Reconstruction(
        object=transparent_where_unlit(picture.object, picture.photons, probe),
        bounds=picture.bounds,
        probe=probe,
        photons=picture.photons,
        positions_m=scan.column("positions_m").read(used),
        frame_numbers=used,
        geometry=optics.geometry,
        error_history=history,
        maps=maps,
        moments=scan.column("moments").read(used) if scan.has("moments") else None,
        travel_m=scan.column("travel_m").read(used) if scan.has("travel_m") else None,
        spread_m=scan.column("spread_m").read(used) if scan.has("spread_m") else None,
    )


def _done(scan: Scan, *stages: str) -> Numbers:
    return np.flatnonzero(np.all([scan.states(stage) == State.DONE for stage in stages], axis=0))


def _mosaic(scan: Scan, optics: Optics, error_model: ErrorModel) -> Mosaic | None:
    numbers, probe = _done(scan, "inference", "positions"), optics.probe_of(scan)
    if probe is None or not numbers.size:
        return None
    return stitch_parts(
        lambda rows: read_patches(scan, numbers[rows]),
        abs2(probe).sum(axis=0),
        read_corners(scan, optics.geometry, numbers),
        error_model,
    )
