"""Stage: refinement that is done on another machine, as the run sees it.

It has the ledger, the columns and the snapshot of refinement, and alone writes them. Frames are given to one
worker (`stream.remote.refinement.lender`), which runs the stage of `stream.stages.refinement` on a mirror of
the scan and sends back what that publishes. A worker that goes away leaves what it has sent last: the next
one goes on from there, or the same stage does here. A scan that the next one has overtaken is left to the
finisher, which works on this machine.
"""

import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from operators.arrays import release_memory
from stream.record.forerunner import FOLDER as EARLIER
from stream.record.forerunner import PROBE as EARLIER_PROBE
from stream.record.forerunner import Forerunner, take_forerunner
from stream.record.probe import found_probe_file
from stream.record.scan import Numbers, Scan, State
from stream.record.snapshot import FILE_NAME as SNAPSHOT
from stream.record.snapshot import read_snapshot, write_snapshot
from stream.remote.answering import first_lease
from stream.remote.asking import Arrays
from stream.remote.column_values import answer_to_fetch
from stream.remote.files import SharedFiles
from stream.remote.messages import Fetch, Lend, Refined, Setup, SharedFile, Tiles, Values
from stream.remote.refinement.lender import Lender
from stream.remote.refinement.refined import RefinedElsewhere
from stream.stages.config import RefinementConfig, Reuse
from stream.stages.inputs import Optics
from stream.stages.refinement.setup import BATCH_SIZE, STAGE, inputs_of
from stream.stages.refinement.worker import Refinement
from stream.stages.refusals import in_words
from stream.stages.stage import ScanWork, UnusableScanError, Worker
from stream.wire.codec import Buffer
from stream.wire.sockets import Endpoint

log = logging.getLogger(__name__)

COUNTS = ("epoch_milli", "updates", "divergences", "seeds_refused")  # of a worker, for people
COLUMNS = ("frames", "positions_m", "patches", "sigma", "visits", "refined_px")  # that may be fetched
STEADY_S = 10.0  # for which this machine goes on before the scan is lent again, for each worker that it lost
LONELY_S = 5.0  # after which it is said that nobody refines


class LentRefinement:
    """Worker and door keeper: refinement by whoever asks for it on another machine.

    Parameters
    ----------
    config : RefinementConfig
    optics : Optics
    door : Endpoint
        Where workers ask.
    setup : Setup
        What they build the stage from; `files` share what it names.
    files : SharedFiles
    folder : Path
        For what is shared of a scan while it is lent; what lies there is gone with the run.
    here : Worker or None
        Refines while there is no worker; without it scans wait for one.
    uses_network : bool
    reuse : {"none", "probe", "object"}
    run_id : str
    clock : callable
        Monotonic seconds.
    """

    name = STAGE
    waits_for: tuple[str, ...] = ()
    batch_size, deadline_s = BATCH_SIZE, Refinement.deadline_s
    most_unread = 64

    def __init__(
        self,
        config: RefinementConfig,
        optics: Optics,
        door: Endpoint,
        setup: Setup,
        files: SharedFiles,
        folder: Path,
        *,
        here: Worker | None,
        uses_network: bool,
        reuse: Reuse = "none",
        run_id: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config, self.optics, self.door, self.files, self.here = config, optics, door, files, here
        self.folder, self.uses_network, self.reuse, self.clock = folder, uses_network, reuse, clock
        self.inputs = inputs_of(uses_network=uses_network)
        self.lender = Lender(run_id, STAGE, setup, files, clock=clock, first_lease=first_lease())

    def open(self, scan: Scan) -> "LentScan":
        """Begins a scan; after a restart with the frames that had been refined."""
        self.optics.preprocess(scan)  # frames that no worker can use are known at once
        return LentScan(self, scan)

    def exchange(self, requests: Sequence[Sequence[Buffer]]) -> list[list[Buffer]]:
        """Takes what workers say, and returns what they get."""
        return self.lender.exchange(requests)


class LentScan(ScanWork):
    """One scan: lent to a worker, refined here, or waiting for either."""

    def __init__(self, stage: LentRefinement, scan: Scan) -> None:
        self._stage, self._scan = stage, scan
        moves = stage.config.refines_positions
        self._refined = RefinedElsewhere(scan, stage.optics.geometry, moves=moves, clock=stage.clock)
        self._numbers, self._n_given = scan.done(STAGE), 0  # in the order in which they are refined
        self._note_given(self._numbers)
        self._here: ScanWork | None = None
        self._counts: Mapping[str, int] = {}
        self._is_done, self._is_all, self._unusable = False, False, ""
        self._n_lost, self._lend_at = 0, float("-inf")
        self._lonely_since: float | None = stage.clock()
        self._lent: Path | None = None  # folder of its snapshot as it was lent
        stage.lender.offer(self)

    # The stage's side.

    def handle(self, numbers: Numbers) -> None:
        """Gives these frames to whoever refines the scan."""
        self._refined.write()
        self._note_given(numbers)
        if self._here is not None:
            self._here.handle(numbers)

    def idle(self, deadline: float) -> bool:
        """Writes what has come; refines here if nobody else does. Says whether there is more to do here."""
        self._refined.write()
        if self._unusable:
            raise UnusableScanError(self._unusable)
        if self._here is None and self._is_alone():
            self._take_over()
        return self._here is not None and self._here.idle(deadline)

    def awaits_others(self) -> bool:
        """Says whether a worker is still to finish the scan."""
        return self._here is None and not self._is_done and bool(self._given.size)

    def close(self) -> None:
        """Leaves what was published last as one file."""
        self._stage.lender.offer(None)
        self._forget_lent()
        if self._here is not None:
            self._here.close()
        elif self._given.size:
            self._refined.finish()

    def hand_over(self) -> None:
        """Leaves what was published last, from which the finisher goes on."""
        self._stage.lender.offer(None)
        self._forget_lent()
        self._refined.write()
        if self._here is not None:
            self._here.hand_over()

    def counts(self) -> dict[str, int]:
        """Returns how far the refinement is, and whether a worker elsewhere does it."""
        counts = dict(self._counts) if self._here is None else self._here.counts()
        return counts | {"elsewhere": int(self._stage.lender.is_lent)}

    @property
    def _given(self) -> Numbers:
        return self._numbers[: self._n_given]

    def _note_given(self, numbers: Numbers) -> None:
        n_given = self._n_given + len(numbers)
        if n_given > len(self._numbers):
            self._numbers = np.pad(self._numbers, (0, n_given))
        self._numbers[self._n_given : n_given] = numbers
        self._n_given = n_given
        self._refined.expect(numbers)

    def _is_alone(self) -> bool:
        """Whether nobody refines the scan; said once it has lasted."""
        lender, now = self._stage.lender, self._stage.clock()
        if lender.is_lent or self._is_done or not self._is_worth_it():
            self._lonely_since = None
            return False
        if self._stage.here is not None:
            return not lender.is_asked or now < self._lend_at
        self._lonely_since = now if self._lonely_since is None else self._lonely_since
        if now - self._lonely_since >= LONELY_S:
            self._lonely_since = float("inf")
            log.warning("%s waits for a worker on another machine: nothing is refined", self._scan.name)
        return False

    def _is_worth_it(self) -> bool:
        """Whether there are frames enough to begin with."""
        return len(self._given) >= self._stage.config.first_frames or (bool(self._given.size) and self.is_all)

    def _take_over(self) -> None:
        """Refine here, from what was published last."""
        if self._stage.here is None:
            return
        self._here = self._stage.here.open(self._scan)
        pending = self._given[self._scan.states(STAGE, self._given) == State.PENDING]
        for start in range(0, len(pending), BATCH_SIZE):
            self._here.handle(pending[start : start + BATCH_SIZE])

    # The lender's side.

    def lend(self, lease: int) -> Lend | None:
        """Returns what a worker is told that gets the scan; what refines here leaves what it has."""
        now = self._stage.clock()
        if self._is_done or self._unusable or now < self._lend_at or not self._is_worth_it():
            return None
        try:
            return self._lend(lease)
        except OSError as error:
            self._lend_at = now + STEADY_S
            log.warning("%s cannot be lent to another machine: %s", self._scan.name, in_words(error))
            return None

    def _lend(self, lease: int) -> Lend:
        if self._here is not None:
            self._here.hand_over()
            self._here = None
            release_memory()
        self._refined.write()
        self._refined.begin()
        given = self._given
        is_done = self._scan.states(STAGE, given) == State.DONE
        self._numbers = np.concatenate([np.sort(given[is_done]), given[~is_done]])
        facts = self._facts(lease, int(np.count_nonzero(is_done)))
        log.info("%s is refined on another machine from now on", self._scan.name)
        return facts

    def numbers(self, after: int, n_most: int) -> Numbers:
        """Returns which frames are to be refined, in their order, after so many."""
        return self._given[after : after + n_most]

    @property
    def is_all(self) -> bool:
        """Whether no more frames will be given."""
        scan, inputs = self._scan, self._stage.inputs
        if not self._is_all and all(scan.count(stage, "closed") for stage in inputs):
            is_ready = scan.states(STAGE) <= State.DONE
            for stage in inputs:
                is_ready &= scan.states(stage)[: len(is_ready)] == State.DONE
            self._is_all = int(np.count_nonzero(is_ready)) <= len(self._given)
        return self._is_all

    def values(self, fetch: Fetch, arrays: Arrays) -> tuple[Values, Arrays]:
        """Returns values of a column of this scan."""
        if fetch.scan != self._scan.name:
            raise ValueError(f"the scan that is lent is {self._scan.name}")
        return answer_to_fetch(fetch, arrays, self._scan, COLUMNS)

    def take_tiles(self, tiles: Tiles, arrays: Arrays) -> None:
        """Takes tiles of the next state."""
        self._refined.take_tiles(tiles, arrays)

    def take(self, refined: Refined, arrays: Arrays) -> None:
        """Takes a state."""
        if refined.is_last and not self.is_all:
            raise ValueError(f"{self._scan.name} is not over: more frames will come")
        self._refined.take(refined, arrays)
        self._is_done = refined.is_last

    def take_unusable(self, reason: str) -> None:
        """Takes note that nothing can come of the scan; where it can be, that is tried here as well."""
        self._stage.lender.offer(None)
        self._lend_at = float("inf")
        if self._stage.here is None:
            self._unusable = reason
        log.warning("the worker can make nothing of %s: %s", self._scan.name, reason)

    def note(self, counts: Mapping[str, int]) -> None:
        """Takes note of how far the worker is."""
        self._counts = {name: counts[name] for name in COUNTS if name in counts}

    def has_gone(self) -> None:
        """Goes on without the worker: with another one, or here for a while."""
        self._forget_lent()
        if self._is_done:
            return
        self._n_lost += 1
        self._lend_at = self._stage.clock() + (STEADY_S * self._n_lost if self._stage.here else 0.0)
        goes_on = "this machine goes on" if self._stage.here else "it waits for another one"
        log.warning("the worker that refined %s has gone: %s", self._scan.name, goes_on)

    def _facts(self, lease: int, n_refined: int) -> Lend:
        scan, network = self._scan, self._stage.uses_network
        frames, counters = scan.column("frames"), scan.counters(STAGE)
        earlier, files = self._earlier(), []
        if n_refined:
            files.append(self._shared_snapshot(lease))
        if (found := found_probe_file(scan)) is not None:
            files.append(self._stage.files.share(found, "found_probe"))
        if earlier is not None:
            folder = scan.folder / EARLIER
            files.append(self._stage.files.share(folder / EARLIER_PROBE, "earlier_probe"))
            if earlier.snapshot is not None:
                files.append(self._stage.files.share(folder / SNAPSHOT, "earlier_object"))
        return Lend(
            lease=lease,
            scan=scan.name,
            frame_shape=(frames.item_shape[0], frames.item_shape[1]),
            frame_dtype=frames.dtype.str,
            patch_px=scan.column("patches").item_shape[0] if network else 0,
            joined=scan.count("subscriber", "joined"),
            announced=scan.count("subscriber", "announced"),
            moves=self._stage.config.refines_positions,
            n_refined=n_refined,
            started_over=bool(counters["started_over"]),
            closing_milli=counters["closing_milli"],
            earlier="" if earlier is None else earlier.scan,
            files=tuple(files),
        )

    def _earlier(self) -> Forerunner | None:
        if self._stage.reuse == "none":
            return None
        n_pixels, with_object = self._stage.optics.geometry.n_pixels, self._stage.reuse == "object"
        return take_forerunner(self._scan, n_pixels, with_object=with_object)

    def _shared_snapshot(self, lease: int) -> SharedFile:
        """Return the object as it is now, in a file that stays as it is while the scan is lent."""
        self._forget_lent()
        self._lent = self._stage.folder / f"lent-{lease}"
        self._lent.mkdir()
        snapshot = read_snapshot(self._scan.folder)
        if snapshot is None:
            raise FileNotFoundError(f"{self._scan.folder} has refined frames and no object")
        write_snapshot(self._lent, snapshot)
        return self._stage.files.share(self._lent / SNAPSHOT, "snapshot")

    def _forget_lent(self) -> None:
        if self._lent is not None:
            shutil.rmtree(self._lent, ignore_errors=True)
            self._lent = None
