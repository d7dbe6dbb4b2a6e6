"""Everything that is told of a run at one moment, whoever asks: gathered here, written elsewhere."""

import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from launch.memory import resident_bytes
from launch.page.metrics.tally import Reading, RunTally
from launch.page.run_facts import RunFacts
from launch.page.status import Status
from stream.record.run_state import ProcessState
from stream.stages.loop import CLIENTS
from stream.wire.messages import StageState
from stream.wire.sockets import STRANGERS

TO_THE_IMAGE = ("positions", "probe", "inference", "refinement", "stitcher")
"""Stages that have to keep up with the detector, as their rows are called."""
TROUBLE = ("warning", "error")
SERVER, DETECTOR = "stitcher", "subscriber"  # processes that serve the live image, and hear the detector
DOORS = {name: name for name in ("positions", "policy", "refinement")} | {"live": SERVER, "remote": "gateway"}
"""Where others connect to, and the processes that listen there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessReport:
    """A process, and how much memory it holds: bytes, None where there is none to look at."""

    state: ProcessState
    resident_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How a run stands.

    Attributes
    ----------
    run_id : str
    status : Status
        In one sentence, as on the page.
    reading : Reading
    stages : tuple of StageState
        The rows of the page.
    behind : dict of str to str
        Stages because of which the image does not keep up with the detector, and why.
    processes : tuple of ProcessReport
    folder : Path
        That the run saves to.
    free_bytes, size_bytes : int or None
        Of its disk, None where it cannot be asked.
    clients : dict of str to int
        Who follow the image: "page" the browsers that show it, "live" programs, of which the page is one.
    strangers : dict of str to (dict of str to int)
        Connections that were not let in, by door (`DOORS`) and reason, since the process at the door began.
    n_refused : int
        Series that were refused, since the process of the subscriber began.
    last_frame_s : float
        When the last frame came, Unix seconds, 0 before the first.
    """

    run_id: str
    status: Status
    reading: Reading
    stages: tuple[StageState, ...]
    behind: Mapping[str, str]
    processes: tuple[ProcessReport, ...]
    folder: Path
    free_bytes: int | None
    size_bytes: int | None
    clients: Mapping[str, int]
    strangers: Mapping[str, Mapping[str, int]]
    n_refused: int
    last_frame_s: float

    @property
    def keeps_up(self) -> bool:
        """Whether the image keeps up with the detector."""
        return not self.behind


class Monitor:
    """Gathers what is told of a run.

    Parameters
    ----------
    tally : RunTally
        Of the scans of the run.
    run_id : str
    save : Path
        The folder that the run saves to.
    facts : RunFacts
        Of the run.
    clock, wall : callable
        Monotonic and Unix seconds.
    """

    def __init__(
        self,
        tally: RunTally,
        run_id: str,
        save: Path,
        facts: RunFacts,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.tally = tally
        self._run_id, self._save, self._facts = run_id, save, facts
        self._clock, self._wall = clock, wall

    def report(self, status: Status, n_browsers: int) -> Report:
        """Returns how the run stands now: `status` as the page says it, shown by so many browsers."""
        reading, state, processes = self.tally.reading(), self._facts.state(), self._facts.processes()
        stages = state.stages if state is not None else ()
        free_bytes, size_bytes = _disk(self._save)
        age_s = max(self._clock() - reading.received_s, 0.0)
        return Report(
            run_id=self._run_id,
            status=status,
            reading=reading,
            stages=stages,
            behind=_behind(reading, stages),
            processes=tuple(map(_reported, processes)),
            folder=self._save,
            free_bytes=free_bytes,
            size_bytes=size_bytes,
            clients=_clients(n_browsers, processes),
            strangers=_strangers(processes),
            n_refused=_told(processes, DETECTOR, "refused") or 0,
            last_frame_s=self._wall() - age_s if age_s < float("inf") else 0.0,
        )


def _behind(reading: Reading, stages: tuple[StageState, ...]) -> dict[str, str]:
    """Return which stages do not keep up: the backlog grows, or the supervisor sees trouble."""
    troubled = {row.name: row.text for row in stages if row.name in TO_THE_IMAGE and row.level in TROUBLE}
    return dict(reading.slow) | troubled


def _reported(state: ProcessState) -> ProcessReport:
    return ProcessReport(state=state, resident_bytes=resident_bytes(state.pid) if state.pid else None)


def _disk(folder: Path) -> tuple[int | None, int | None]:
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None, None
    return usage.free, usage.total


def _clients(n_browsers: int, processes: Iterable[ProcessState]) -> dict[str, int]:
    """Return how many follow the image, programs only where the server of the image has told."""
    n_programs = _told(processes, SERVER, CLIENTS)
    return {"page": n_browsers} | ({} if n_programs is None else {"live": n_programs})


def _strangers(processes: Iterable[ProcessState]) -> dict[str, dict[str, int]]:
    """Return how many were not let in at each door of which somebody has told, by the reason."""
    counts = {process.name: process.counts for process in processes}
    told = {door: counts.get(name, {}) for door, name in DOORS.items()}
    return {
        door: {why: of[why] for why in STRANGERS} for door, of in told.items() if of.keys() >= {*STRANGERS}
    }


def _told(processes: Iterable[ProcessState], name: str, count: str) -> int | None:
    """Return a count of the last report of a process, None where it has told none."""
    return next((process.counts.get(count) for process in processes if process.name == name), None)
