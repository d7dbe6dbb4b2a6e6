"""The scans of a save folder as the page reads them: never written to, and only by name.

What a frame means is in the configuration of the run that recorded it, which the scan names.
"""

import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from launch.config.run_file import PROBE_FILE, ResolvedRun, optics
from launch.results.summary import result_folder
from operators.engine.config import RefinerSnapshot, RefinerState
from stream.record.handover import runs_of
from stream.record.scan import Scan, names_of_scans
from stream.record.snapshot import read_snapshot, read_state
from stream.stages.inputs import Optics

NEWEST = "newest"
MOST_OPEN = 3  # each holds its newest object
READ_SHARE = 0.1  # of the time, at most, goes into reading snapshots of the running scan


class NotThereError(LookupError):
    """What was asked for is not there, or not yet; the text says so to the person at the page."""


class ScanRecord:
    """One scan, with the run that recorded it; used by one thread.

    Attributes
    ----------
    scan : Scan
    run_folder : Path
        Of the run that recorded it.
    result : Path
        Where its result lies once it is written; .json and .png lie beside it.
    """

    def __init__(
        self, scan: Scan, runs: Path, results: Path, run_id: str, clock: Callable[[], float]
    ) -> None:
        self.scan, self._is_of_this_run = scan, run_id in runs_of(scan)
        self.run_folder = runs / (scan.header.run_id or "unknown")
        self.result = results / f"{scan.name}.cxi"
        self._clock = clock
        self._snapshot: RefinerSnapshot | None = None
        self._state: RefinerState | None = None
        self._snapshot_version = self._state_version = 0
        self._read_again_at = float("-inf")

    @cached_property
    def run(self) -> ResolvedRun:
        """The run that recorded it.

        Raises
        ------
        NotThereError
            If its file is missing or of another version.
        """
        file = self.run_folder / "run.json"
        try:
            # the folder of scans may have been moved since
            return ResolvedRun.read(file).model_copy(update={"folder": self.run_folder})
        except FileNotFoundError as error:
            raise NotThereError(f"the configuration of {self.scan.name} is not in {file}") from error
        except ValidationError as error:
            raise NotThereError(
                f"{file} was written by another version, which this one cannot read"
            ) from error

    @cached_property
    def optics(self) -> Optics:
        """What its run knew about instrument and frames."""
        return optics(self.run)

    @property
    def is_going_on(self) -> bool:
        """Whether more may come of it: its run goes on and is not done with it."""
        return self._is_of_this_run and not self.scan.count("recorder", "closed")

    @property
    def guessed_probe(self) -> Path:
        """Where the probe lies that its run began with, if it began with one."""
        return self.run_folder / PROBE_FILE

    def snapshot(self) -> RefinerSnapshot | None:
        """Returns the refined object and probe, None before refinement has published.

        Of a running scan it may be a little old: large ones are not read at every version.
        """
        version = self.scan.count("refinement", "version")
        if version != self._snapshot_version and self._clock() >= self._read_again_at:
            began = self._clock()
            snapshot = read_snapshot(self.scan.folder)
            if snapshot is not None and snapshot.is_finite:  # else the last finite one stays, as in the image
                self._snapshot, self._snapshot_version = snapshot, version
            self._read_again_at = began + (self._clock() - began) / READ_SHARE
        return self._snapshot

    def state(self) -> RefinerState | None:
        """Returns the refined probe, and all but the object; None before refinement has published."""
        version = self.scan.count("refinement", "version")
        if version != self._state_version:
            state = read_state(self.scan.folder)
            if state is not None and np.isfinite(state.probe).all():
                self._state, self._state_version = state, version
        return self._state

    @property
    def state_version(self) -> int:
        """Which version `state` returned last."""
        return self._state_version


class ScanRecords:
    """All scans below one save folder.

    Parameters
    ----------
    save : Path
        The folder that a run saves to.
    run_id : str
        Of the run that is going on: only its scans can be.
    """

    def __init__(self, save: Path, run_id: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self._scans, self._runs, self._results = save / "scans", save / "runs", result_folder(save)
        self._run_id, self._clock = run_id, clock
        self._opened: dict[str, ScanRecord] = {}

    def names(self) -> list[str]:
        """Returns the names of all scans, the newest first."""
        return list(names_of_scans(self._scans, newest_first=True))

    def _newest(self) -> str:
        """Return the name of the newest scan, "" if there is none; looks into as few of them as it can."""
        return next(names_of_scans(self._scans, newest_first=True), "")

    def open(self, name: str) -> ScanRecord:
        """Returns the scan `name`, or the newest one for the name "newest"; it stays open for the next time.

        Raises
        ------
        NotThereError
            If there is no such scan in the folder.
        """
        if name == NEWEST:
            name = self._newest()
        record = self._opened.pop(name, None) or self.read(name)
        self._opened[name] = record
        while len(self._opened) > MOST_OPEN:
            del self._opened[next(iter(self._opened))]
        return record

    def read(self, name: str) -> ScanRecord:
        """Returns the scan `name`, opened for this once.

        Raises
        ------
        NotThereError
            If there is no such scan in the folder.
        """
        if not name:
            raise NotThereError("no scan has begun yet")
        # A name that is a path would lead out of the folder.
        if name == ".." or Path(name).name != name or not (self._scans / name / "scan.json").is_file():
            raise NotThereError(f"there is no scan {name!r} in {self._scans}")
        try:
            scan = Scan(self._scans / name)
        except (OSError, ValueError) as error:
            raise NotThereError(f"scan {name} cannot be read: {error}") from error
        return ScanRecord(scan, self._runs, self._results, self._run_id, self._clock)
