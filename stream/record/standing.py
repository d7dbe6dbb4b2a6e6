"""Which frames are where: the account of every stage at one moment, with the numbers of what is not done."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.record.account import DONE_AT, Account, Delay, Ranges, has_begun, percentiles_ms, ranges_of
from stream.record.columns import DamagedScanError
from stream.record.handover import NETWORK
from stream.record.scan import Numbers, Scan, State

NOT_RECEIVED, AWAITED = "not_received", "awaited"
MOST_BEYOND_LEDGER = 1 << 24  # frames that are known and have no byte: a disk that is full has no room for it
_ALWAYS = ("subscriber", "positions")


class Share(NamedTuple):
    """What one of several workers has done for a stage: how many frames, and times as of `Standing`."""

    done: int
    times_ms: tuple[float, float] | None


class Standing(NamedTuple):
    """Where every frame of a scan is for one stage.

    Attributes
    ----------
    account : Account
    not_done : dict of str to ranges
        Frames that the stage is not done with, by what became of them. Of the subscriber those that are not
        recorded, of every other stage those that are.
    times_ms : (float, float) or None
        Median and 99th percentile, milliseconds, from the end of the exposure until the stage was done; None
        where no time is on record.
    by_worker : dict of int to Share
        Of inference by several processes what each has done, by its number; empty where one does all.
    """

    account: Account
    not_done: dict[str, Ranges]
    times_ms: tuple[float, float] | None
    by_worker: dict[int, Share]


def stages_of(scan: Scan) -> list[str]:
    """Returns the stages that frames of this scan pass, in their order."""
    return [stage for stage in DONE_AT if stage in _ALWAYS or scan.has_stage(stage) or has_begun(scan, stage)]


def standings(scan: Scan) -> dict[str, Standing]:
    """Returns where every frame is at each of `stages_of` a scan, all as of one moment.

    Raises
    ------
    DamagedScanError
        If the ledger holds what no stage writes.
    """
    _check_head(scan)
    stages = stages_of(scan)
    joined, is_closed = (scan.count("subscriber", name) for name in ("joined", "closed"))
    # The last stage first: what it is done with by then is recorded when that is read.
    states = {stage: _states(scan, stage) for stage in reversed(stages)}
    recorded = states["subscriber"]
    n_missed = 0 if is_closed else min(joined, len(recorded))
    by_state, is_recorded = _by_state(recorded[n_missed:]), recorded == State.DONE
    expected = max(len(recorded), scan.count("subscriber", "announced"))
    found = {}
    for stage in stages:
        own = np.full(len(recorded), State.DONE, np.uint8)
        own[is_recorded] = _padded(states[stage], len(recorded))[is_recorded]
        account = Account.of_counts(by_state, _by_state(own[is_recorded]), n_missed, expected)
        is_first = stage == "subscriber"
        not_done = _not_recorded(recorded, joined, expected) if is_first else _by_reason(own)
        done = np.flatnonzero(is_recorded & (own == State.DONE))
        by_worker = _by_worker(scan, done) if stage == NETWORK else {}
        found[stage] = Standing(account, not_done, _times_ms(scan, stage, done), by_worker)
    return found


def n_in(ranges: Ranges) -> int:
    """Returns how many frames lie in `ranges`."""
    return sum(last - first + 1 for first, last in ranges)


def _check_head(scan: Scan) -> None:
    room = scan.ledger("subscriber").n_room if has_begun(scan, "subscriber") else 0
    if not 0 <= scan.n_frames <= room + MOST_BEYOND_LEDGER:
        file = scan.folder / "counters" / "subscriber"
        raise DamagedScanError(f"{file} is damaged: {scan.n_frames} frames, the ledger has room for {room}")


def _states(scan: Scan, stage: str) -> NDArray[np.uint8]:
    states = scan.states(stage)
    if states.max(initial=0) >= len(State):
        number = int(np.argmax(states >= len(State)))
        raise DamagedScanError(
            f"{scan.folder / 'ledger' / stage} has the byte {states[number]} for frame {number}, wanted 0 to "
            f"{len(State) - 1}: it is damaged, or of a later version"
        )
    return states


def _padded(states: NDArray[np.uint8], n_frames: int) -> NDArray[np.uint8]:
    return np.append(states, np.zeros(max(n_frames - len(states), 0), np.uint8))[:n_frames]


def _by_state(states: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.bincount(states, minlength=len(State))


def _by_reason(states: NDArray[np.uint8]) -> dict[str, Ranges]:
    """Return the frames that are not DONE by their state."""
    numbers = {state: np.flatnonzero(states == state) for state in State if state != State.DONE}
    return {state.name.lower(): ranges_of(found) for state, found in numbers.items() if found.size}


def _not_recorded(recorded: NDArray[np.uint8], joined: int, expected: int) -> dict[str, Ranges]:
    """Return the frames from before the run joined, those given up, and those that may still come."""
    never = np.flatnonzero((recorded[:joined] == State.PENDING) | (recorded[:joined] == State.LOST))
    others = recorded.copy()
    others[never] = State.DONE
    given_up = _by_reason(others)
    awaited = given_up.pop("pending", [])
    if expected > len(recorded):
        awaited = [*awaited, (len(recorded), expected - 1)]
    found = {NOT_RECEIVED: ranges_of(never), **given_up, AWAITED: awaited}
    return {what: ranges for what, ranges in found.items() if ranges}


def _by_worker(scan: Scan, done: Numbers) -> dict[int, Share]:
    if not scan.has("worker"):
        return {}
    workers = scan.column("worker").read(done)
    own = {int(worker): done[workers == worker] for worker in np.unique(workers[workers > 0])}
    return {worker: Share(len(numbers), _times_ms(scan, NETWORK, numbers)) for worker, numbers in own.items()}


def _times_ms(scan: Scan, stage: str, done: Numbers) -> tuple[float, float] | None:
    # A position may be there before its frame, which then has not waited for it.
    return percentiles_ms(np.maximum(Delay(scan, DONE_AT[stage]).seconds(done), 0.0))
