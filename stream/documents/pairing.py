"""Which bluesky run belongs to which detector series.

A run that names its series is paired by name; the others by order.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Run:
    series: str  # named in the start document, "" if not
    scan: str | None = None
    is_open: bool = True
    has_positions: bool = False
    is_given_up: bool = False  # it has stopped, and its series does not appear any more


@dataclass(slots=True)
class _Series:
    ids: frozenset[str]
    run: str | None = None
    is_orphan: bool = False


@dataclass(slots=True)
class RunPairing:
    """Pairs runs and series as they come; both sides are told apart by their names.

    A run whose start document names a series waits for that one, and takes it from a run that names none.
    Otherwise a series that appears while an unpaired run is open gets that run; one that appears while the
    open run has its series already (the detector was restarted) is an orphan; one that appears with no run
    open gets the one with positions that has just stopped, or else the next that starts. What a run has by
    order alone goes to the next one that has positions, if it has none itself: others may publish to the
    same place.
    """

    _runs: dict[str, _Run] = field(default_factory=dict)
    _series: dict[str, _Series] = field(default_factory=dict)

    def start_run(self, uid: str, series: str = "") -> None:
        """Takes note of a run that starts; `series` is the id its start document names."""
        run = self._runs.setdefault(uid, _Run(series))
        if run.scan is not None:
            return
        for name, waiting in reversed(self._series.items()):
            holder = self._runs.get(waiting.run or "")
            if series and series in waiting.ids and not (holder and holder.series):
                if holder:  # it had the series by order alone
                    holder.scan = None
                self.pair(uid, name)
                return
            if not series and waiting.run is None and not waiting.is_orphan:
                self.pair(uid, name)
                return

    def note_positions(self, uid: str) -> None:
        """Takes note that a run has fields with positions."""
        run = self._runs[uid]
        run.has_positions = True
        if run.scan is not None or run.series:
            return
        for name, series in reversed(self._series.items()):
            holder = self._runs.get(series.run or "")
            if holder and not holder.series and not holder.has_positions:
                holder.scan = None
                self.pair(uid, name)
                return

    def stop_run(self, uid: str) -> None:
        """Takes note that a run has stopped; frames take longer than documents, its series may yet appear."""
        if uid in self._runs:
            self._runs[uid].is_open = False

    def give_up_run(self, uid: str) -> None:
        """Takes note that a run that has stopped gets no series any more by order."""
        if uid in self._runs:
            self._runs[uid].is_given_up = True

    def add_series(self, scan: str, ids: Iterable[str]) -> None:
        """Takes note of a series that appears as `scan`; `ids` are the detector's names of it."""
        series = self._series.setdefault(scan, _Series(frozenset(ids) - {""}))
        if series.run is not None:
            return
        named = [uid for uid, run in self._runs.items() if run.series in series.ids and run.scan is None]
        unnamed = [uid for uid, run in self._runs.items() if not (run.series or run.is_given_up)]
        running = [uid for uid in unnamed if self._runs[uid].is_open]
        free = [uid for uid in unnamed if self._runs[uid].has_positions and self._runs[uid].scan is None]
        open_and_free = [uid for uid in free if self._runs[uid].is_open]
        if named:
            self.pair(named[-1], scan)
        elif open_and_free:
            self.pair(open_and_free[-1], scan)
        elif running and self._runs[running[-1]].scan is None:
            self.pair(running[-1], scan)
        elif running:
            series.is_orphan = True
        elif free:
            self.pair(free[-1], scan)

    def forget_run(self, uid: str) -> None:
        """Forgets a run of which nothing more is to come."""
        self._runs.pop(uid, None)

    def forget_series(self, scan: str) -> None:
        """Forgets a series that is over."""
        self._series.pop(scan, None)

    def pair(self, uid: str, scan: str) -> None:
        """Pairs a run and a series, whatever the rules say."""
        self._runs.setdefault(uid, _Run("")).scan = scan
        self._series.setdefault(scan, _Series(frozenset())).run = uid

    def give_up(self, scan: str) -> None:
        """Takes note that a series that waits for a run will not get one."""
        self._series.setdefault(scan, _Series(frozenset())).is_orphan = True

    def scan_of(self, uid: str) -> str | None:
        """Returns the scan of a run, None while it has none."""
        return self._runs[uid].scan if uid in self._runs else None

    def run_of(self, scan: str) -> str | None:
        """Returns the run of a scan, None while it has none."""
        return self._series[scan].run if scan in self._series else None
