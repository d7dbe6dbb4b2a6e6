"""Where the frames of a run are, over all of its scans: running counts, kept by looking at what is new.

They are those of `stream.record.account`, summed; a scan that is over stays in the sums and is looked at no
more.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import msgspec

from launch.page.metrics.backlogs import Backlogs
from launch.page.metrics.times import Times
from launch.page.status import RateMeter
from stream.record.account import DONE_AT, Account, Accounts, Delay, inputs_of, total
from stream.record.handover import runs_of
from stream.record.passage import Passage
from stream.record.scan import NewScans, Scan, State

log = logging.getLogger(__name__)

LOOK_S = 1.0  # between two looks while nobody asks
FRESH_S = 0.5  # for which a look is good for whoever asks
LOOK_SHARE = 0.05  # of the time, at most, that looking takes while nobody asks
LISTENERS = ("subscriber", "positions")  # stages that others send to
IGNORED = ("duplicates", "conflicts", "rejected", "late")  # counters of what they did not take


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a tally has seen.

    Attributes
    ----------
    accounts : dict of str to Account
        By stage, of all scans of the run.
    through, waiting : dict of str to int
        By stage: frames that it is through with, and frames ready for it that it is not.
    by_worker : dict of int to int
        Frames by the worker of inference that did them, where there are several.
    ignored : dict of (str, str) to int
        What was sent to a stage and not taken, by stage and counter.
    times : dict of str to Times
        From the end of the exposure, by the stage up to which.
    slow : dict of str to str
        Stages that do not keep up, each with how much in words.
    n_begun, n_over, n_receiving : int
        Scans that have begun, that are looked at no more, and of which frames may still come.
    n_images : int
        Versions of the image that were published.
    received_s : float
        When the last frame came, monotonic seconds; minus infinity before the first.
    scan : str
        The newest, "" before there is one.
    counts : dict of str to int
        Of the frames of the newest, as `Accounts.frame_counts`.
    rates : dict of str to float
        The same a second, where it moves, and images a second.
    """

    accounts: Mapping[str, Account] = field(default_factory=dict)
    through: Mapping[str, int] = field(default_factory=dict)
    waiting: Mapping[str, int] = field(default_factory=dict)
    by_worker: Mapping[int, int] = field(default_factory=dict)
    ignored: Mapping[tuple[str, str], int] = field(default_factory=dict)
    times: Mapping[str, Times] = field(default_factory=dict)
    slow: Mapping[str, str] = field(default_factory=dict)
    n_begun: int = 0
    n_over: int = 0
    n_receiving: int = 0
    n_images: int = 0
    received_s: float = float("-inf")
    scan: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)


class ScanTally:
    """One scan of a run.

    Parameters
    ----------
    scan : Scan
    times : dict of str to Times
        Of the run: this scan adds its own.

    Attributes
    ----------
    reading : Reading
        Of this scan alone, as of the last look.
    """

    def __init__(self, scan: Scan, times: dict[str, Times]) -> None:
        self.scan, self._accounts, self._times = scan, Accounts(scan), times
        self.reading = Reading(scan=scan.name, n_begun=1, n_receiving=1)
        inputs = inputs_of([stage for stage in DONE_AT if scan.has_stage(stage)])
        ways = {"subscriber": ("subscriber",)} | {stage: (*inputs[stage], stage) for stage in inputs}
        self._ways = {stage: Passage(scan, way) for stage, way in ways.items()}
        self._delays = {stage: Delay(scan, DONE_AT[stage]) for stage in ways}
        self._by_worker = Counter[int]()

    def look(self) -> None:
        """Takes up what is new."""
        scan, received_s = self.scan, self.reading.received_s
        for stage, way in self._ways.items():
            new = way.look()
            self._times[stage] = self._times[stage].plus(self._delays[stage].seconds(new))
            if stage == "subscriber" and new.size:
                received_s = max(received_s, float(scan.column("received_s").read(new).max()))
            if stage == "inference" and new.size and scan.has("worker"):
                workers = scan.column("worker").read(new)  # 0 where the finisher did it
                self._by_worker.update(workers[workers > 0].tolist())
        ways = {stage: way for stage, way in self._ways.items() if stage != "subscriber"}
        self.reading = replace(
            self.reading,
            accounts={stage: self._accounts.of(stage) for stage in self._ways},
            through={stage: int(way.n_by_state()[State.PENDING + 1 :].sum()) for stage, way in ways.items()},
            waiting={stage: len(way.pending()) for stage, way in ways.items()},
            by_worker=self._by_worker.copy(),
            ignored={(stage, name): scan.count(stage, name) for stage, name in product(LISTENERS, IGNORED)},
            n_receiving=int(not scan.count("subscriber", "closed")),
            n_images=scan.count("stitcher", "version"),
            received_s=received_s,
            counts=self._accounts.frame_counts(),
        )


class RunTally:
    """All scans of a run; several threads may use it.

    Parameters
    ----------
    scans : Path
        Folder of scans; those of other runs are left out.
    run_id : str
    stages : collection of str
        That the run has.
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self,
        scans: Path,
        run_id: str,
        stages: Collection[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._new, self._run_id, self._clock = NewScans(scans), run_id, clock
        self._lock = threading.Lock()
        self._going: list[ScanTally] = []
        self._newest: ScanTally | None = None
        self._over = _nothing(stages)  # the sums of the scans that are looked at no more
        self._times = {stage: Times() for stage in DONE_AT}
        self._rates, self._backlogs = RateMeter(), Backlogs()
        self._looked_at, self._reading = float("-inf"), Reading()

    def follow(self, stopping: threading.Event) -> None:
        """Looks again and again until `stopping` is set: rates and growth are of the last seconds."""
        while not stopping.is_set():
            began = self._clock()
            self.reading()
            stopping.wait(max(LOOK_S, (self._clock() - began) / LOOK_SHARE))

    def reading(self) -> Reading:
        """Returns what is seen now, or was half a second ago: who asks more often gets the same again."""
        with self._lock:
            if self._clock() - self._looked_at >= FRESH_S:
                self._reading = self._look()
                self._looked_at = self._clock()
            return self._reading

    def _look(self) -> Reading:
        for scan in self._new.look():
            if self._run_id in runs_of(scan):
                self._newest = ScanTally(scan, self._times)
                self._going.append(self._newest)
        for tally in self._going.copy():
            if _is_exhausted(tally):
                self._going.remove(tally)
                over = summed([self._over, tally.reading])
                waiting = dict.fromkeys(over.waiting, 0)
                self._over = replace(over, waiting=waiting, n_receiving=0, n_over=self._over.n_over + 1)
                tally.scan.close()
            elif tally is not self._newest:
                tally.scan.close()  # it may wait for its end for long, and so may many
        reading, now = summed([self._over, *(tally.reading for tally in self._going)]), self._clock()
        self._backlogs.add(now, reading.through, reading.waiting)
        newest = self._newest.reading if self._newest else reading
        self._rates.add(now, newest.scan, {**newest.counts, "images": newest.n_images})
        return replace(
            reading,
            accounts=_never_fewer(self._reading.accounts, reading.accounts),
            times=dict(self._times),
            slow=self._backlogs.growing(),
            n_over=self._over.n_over,
            scan=newest.scan,
            counts=newest.counts,
            rates=self._rates.rates(),
        )


def _is_exhausted(tally: ScanTally) -> bool:
    """Take up what is new of a scan; say whether nothing more will be: it has results, or is gone."""
    scan = tally.scan
    try:
        is_over = bool(scan.count("recorder", "closed"))  # before the look, which sees all of it then
        tally.look()
    except (OSError, ValueError) as error:
        log.warning("%s is not counted any more: %s", scan.name, error)
        return True
    return is_over or not scan.folder.exists()


def summed(readings: Iterable[Reading]) -> Reading:
    """Returns the counts of several scans together."""
    held = list(readings)
    stages = dict.fromkeys(stage for reading in held for stage in reading.accounts)
    through, waiting = Counter[str](), Counter[str]()
    by_worker, ignored = Counter[int](), Counter[tuple[str, str]]()
    for reading in held:
        through.update(reading.through)
        waiting.update(reading.waiting)
        by_worker.update(reading.by_worker)
        ignored.update(reading.ignored)
    return Reading(
        accounts={stage: total(r.accounts[stage] for r in held if stage in r.accounts) for stage in stages},
        through=through,
        waiting=waiting,
        by_worker=by_worker,
        ignored=ignored,
        n_begun=sum(reading.n_begun for reading in held),
        n_receiving=sum(reading.n_receiving for reading in held),
        n_images=sum(reading.n_images for reading in held),
        received_s=max((reading.received_s for reading in held), default=float("-inf")),
    )


def _never_fewer(before: Mapping[str, Account], now: Mapping[str, Account]) -> dict[str, Account]:
    """Return the accounts `now`; none has fewer frames lost than before.

    A frame that has overtaken the first one of a series that was joined takes it off those lost.
    """
    return {
        stage: msgspec.structs.replace(of_stage, lost=max(of_stage.lost, before[stage].lost))
        if stage in before
        else of_stage
        for stage, of_stage in now.items()
    }


def _nothing(stages: Collection[str]) -> Reading:
    """Return the counts before the first scan."""
    inputs = inputs_of(stages)
    none = dict.fromkeys(inputs, 0)
    return Reading(
        accounts=dict.fromkeys(["subscriber", *inputs], total([])),
        through=none,
        waiting=none,
        ignored=dict.fromkeys(product(LISTENERS, IGNORED), 0),
    )
