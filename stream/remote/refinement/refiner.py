"""The worker on another machine that refines: it keeps a mirror of the scan in hand, and sends what is new.

The stage itself is that of `stream.stages.refinement`. It runs on the mirror, beside this: the line is
answered while it is at work. No sockets.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np

from stream.record.scan import COLUMNS, PATCH_COLUMNS, Numbers
from stream.record.snapshot import Index, Layers
from stream.remote.asking import Arrays, Asker
from stream.remote.column_values import fetched
from stream.remote.files import FetchedFiles
from stream.remote.messages import (
    MOST_GIVEN,
    AskFrames,
    AskScan,
    AskSetup,
    Fetch,
    Given,
    Lend,
    Over,
    Question,
    Refined,
    Refused,
    Setup,
    SharedFile,
    Taken,
    Tiles,
    Unusable,
    Wait,
)
from stream.remote.refinement.mirror import Mirror, News
from stream.remote.setup import Paths
from stream.stages.stage import Worker

FETCH_BYTES = 2 << 20  # asked for at a time: larger messages hold up what else is on the line
PARTS_AHEAD = 4  # that are on their way or wait for one before them
TILES_AT_ONCE = 64


class Work(Protocol):
    """The stage at work on a mirror."""

    def turn(self) -> bool:
        """Does a piece of work, where nobody else has it done; says whether there is more."""

    def left_out(self) -> str:
        """Returns why nothing can come of the scan, "" while something may.

        Raises
        ------
        Exception
            Whatever the stage raised.
        """

    def counts(self) -> Mapping[str, int]:
        """Returns how far it is."""

    def close(self) -> None:
        """Ends it as it is."""


Build = Callable[[str, Paths], Worker]
Begin = Callable[[Worker, Path], Work]


@dataclass(slots=True)
class _Part:
    """Frames that are fetched together."""

    numbers: Numbers
    missing: set[str]  # columns


@dataclass(slots=True)
class _Held:
    """The scan in hand."""

    lent: Lend
    mirror: Mirror
    missing: set[str]  # files
    work: Work | None = None
    parts: deque[_Part] = field(default_factory=deque)
    n_known: int = 0  # frames that are given
    n_given: int = 0  # of them to the stage
    refined: list[Numbers] = field(default_factory=list)  # before, until all are here
    is_all: bool = False
    is_asking: bool = False
    is_sending: bool = False
    n_sent: int = 0  # states
    is_sent: bool = False  # all that there will be


class RemoteRefiner:
    """Refinement of scans that a run elsewhere lends to it, one at a time.

    Parameters
    ----------
    build : callable
        Makes the stage from settings and files (`stream.remote.setup`).
    begin : callable
        Has a stage work on the scan in a folder of scans.
    kept : Path
        Folder for files of runs, which are fetched once.
    mirrors : Path
        Folder for what is in hand.
    asker : Asker
    clock : callable
        Monotonic seconds, as of the stage.

    Attributes
    ----------
    n_done : int
        Frames that the run has given and whose scan is done, or was until the lease was over.
    """

    def __init__(
        self,
        build: Build,
        begin: Begin,
        kept: Path,
        mirrors: Path,
        asker: Asker,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._build, self._begin, self._folder, self._asker, self._clock = build, begin, mirrors, asker, clock
        self._files = FetchedFiles(kept, asker)
        self._stage: Worker | None = None
        self._held: _Held | None = None
        self._is_asking = False
        self.n_done = 0
        asker.ask(AskSetup(), self._take_setup)

    def turn(self) -> bool:
        """Asks and sends what is due; says whether the stage has more to do for whoever calls this.

        Raises
        ------
        ValueError
            If the run refuses what the worker sends.
        """
        if self._stage is None:
            return False
        if (held := self._held) is None:
            if not self._is_asking:
                self._is_asking = True
                self._asker.ask(AskScan(), self._take_scan)
            return False
        self._ask_for_frames(held)
        if held.work is None:
            return False
        is_busy = held.work.turn()
        self._send(held, held.work)
        return is_busy

    def close(self) -> None:
        """Lets go of the scan in hand."""
        if (held := self._held) is None:
            return
        self.n_done += held.n_given
        if held.work is not None:
            held.work.close()
        held.mirror.close()
        self._held = None

    def _take_setup(self, answer: Question, arrays: Arrays) -> None:
        if not isinstance(answer, Setup):
            raise ValueError(f"the run does not say what refinement is built from: {_reason(answer)}")  # noqa: TRY004

        def build(paths: Paths) -> None:
            self._stage = self._build(answer.settings, paths)

        self._files.fetch_all(answer.files, build)

    def _take_scan(self, answer: Question, arrays: Arrays) -> None:
        self._is_asking = False
        if isinstance(answer, Wait):
            return
        if not isinstance(answer, Lend) or self._stage is None:
            raise ValueError(f"the run lends no scan: {_reason(answer)}")
        mirror = Mirror(self._folder / f"scan-{answer.lease}", answer, self._stage.inputs)
        self._held = held = _Held(answer, mirror, {file.sha256 for file in answer.files})
        for file in answer.files:
            self._files.fetch(file, partial(self._take_file, held, file))
        self._start(held)

    def _take_file(self, held: _Held, file: SharedFile, path: Path) -> None:
        if held is self._held:
            held.mirror.put(file.role, path)
            held.missing.discard(file.sha256)
            self._start(held)

    def _ask_for_frames(self, held: _Held) -> None:
        n_ahead = sum(len(part.numbers) for part in held.parts)
        room = min(PARTS_AHEAD * _frames_at_once(held.lent) - n_ahead, MOST_GIVEN)
        if not held.is_asking and room > 0:  # otherwise values are on their way, which is as good
            held.is_asking = True
            counts = {} if held.work is None else {k: max(v, 0) for k, v in held.work.counts().items()}
            question = AskFrames(lease=held.lent.lease, after=held.n_known, room=room, counts=counts)
            self._asker.ask(question, partial(self._take_given, held))

    def _take_given(self, held: _Held, answer: Question, arrays: Arrays) -> None:
        held.is_asking = False
        if held is not self._held or self._is_over(answer):
            return
        if not isinstance(answer, Given) or len(arrays) != 1 or arrays[0].dtype != np.int64:
            raise ValueError(f"the run gives no frames: {_reason(answer)}")
        (numbers,), step = arrays, _frames_at_once(held.lent)
        for start in range(0, len(numbers), step):
            self._fetch(held, numbers[start : start + step])
        held.is_all = answer.is_all
        self._give(held)

    def _fetch(self, held: _Held, numbers: Numbers) -> None:
        columns = _columns(held.lent, is_refined=held.n_known < held.lent.n_refined)
        held.n_known += len(numbers)
        part = _Part(numbers, set(columns))
        held.parts.append(part)
        for column in columns:
            ask = Fetch(scan=held.lent.scan, column=column, packs=column == "frames")
            self._asker.ask(ask, partial(self._take_values, held, part, column), [numbers])

    def _take_values(self, held: _Held, part: _Part, column: str, answer: Question, arrays: Arrays) -> None:
        if held is not self._held or self._is_over(answer):
            return
        dtype, shape = _layout(held.lent, column)
        held.mirror.store(column, part.numbers, fetched(answer, arrays, part.numbers, dtype, shape))
        part.missing.discard(column)
        self._give(held)

    def _give(self, held: _Held) -> None:
        """Give the stage what has come, in the order of the run."""
        while held.parts and not held.parts[0].missing:
            numbers = held.parts.popleft().numbers
            held.mirror.give(numbers)
            if not held.mirror.has_begun:
                held.refined.append(numbers)
            held.n_given += len(numbers)
        self._start(held)
        if held.is_all and not held.parts and held.mirror.has_begun:
            held.mirror.end()

    def _start(self, held: _Held) -> None:
        """Have the stage begin once all is there that it begins with."""
        n_refined = held.lent.n_refined
        if self._stage is None or held.mirror.has_begun or held.missing or held.n_given < n_refined:
            return
        refined = np.concatenate([np.zeros(0, np.int64), *held.refined])[:n_refined]
        held.refined.clear()
        held.mirror.begin(refined)
        held.work = self._begin(self._stage, held.mirror.scans)

    def _send(self, held: _Held, work: Work) -> None:
        if held.is_sending or held.is_sent:
            return
        reason = work.left_out()
        news = None if reason else held.mirror.news()
        if reason:
            held.is_sending = True
            question = Unusable(lease=held.lent.lease, reason=reason)
            self._asker.ask(question, partial(self._take_taken, held, lambda: None))
        elif news is not None:
            held.is_sending, held.n_sent, held.is_sent = True, held.n_sent + 1, news.is_last
            tiles = _Outgoing(held.lent.lease, held.n_sent, news, self._clock())
            self._send_next(held, tiles)

    def _send_next(self, held: _Held, outgoing: "_Outgoing") -> None:
        question = outgoing.next()
        if question is None:
            held.is_sending = False
            return
        then = partial(self._send_next, held, outgoing)
        self._asker.ask(question[0], partial(self._take_taken, held, then), question[1])

    def _take_taken(self, held: _Held, then: Callable[[], None], answer: Question, arrays: Arrays) -> None:
        if held is not self._held or self._is_over(answer):
            return
        if not isinstance(answer, Taken):
            raise ValueError(f"the run does not take the object of {held.lent.scan}: {_reason(answer)}")  # noqa: TRY004
        then()

    def _is_over(self, answer: Question) -> bool:
        """Let go of the scan if the run says so."""
        if isinstance(answer, Over):
            self.close()
            return True
        return False


class _Outgoing:
    """A state on its way to the run: its tiles, so many at a time, then all else."""

    def __init__(self, lease: int, version: int, news: News, now: float) -> None:
        self._lease, self._version, self._news, self._now = lease, version, news, now
        self._tiles: Iterator[tuple[Index, Layers]] = iter(news.tiles.items())
        self._is_complete = False

    def next(self) -> tuple[Question, Arrays] | None:
        """Returns what is to be sent next, None when all has been."""
        if some := list(islice(self._tiles, TILES_AT_ONCE)):
            layers = [np.stack([tile[layer] for _, tile in some]) for layer in (0, 1)]
            index = np.array([which for which, _ in some], np.int64)
            return Tiles(lease=self._lease, version=self._version), [index, *layers]
        if self._is_complete:
            return None
        self._is_complete = True
        return self._refined()

    def _refined(self) -> tuple[Question, Arrays]:
        news, state = self._news, self._news.state
        bounds = state.bounds
        refined = Refined(
            lease=self._lease,
            version=self._version,
            n_tiles=len(news.tiles),
            bounds=(bounds.top, bounds.left, bounds.bottom, bounds.right),
            n_frames=state.n_frames,
            n_updates=state.n_updates,
            error=state.error,
            n_divergences=state.n_divergences,
            started_over=bool(news.counters["started_over"]),
            n_reused=news.counters["reused"],
            closing_milli=news.counters["closing_milli"],
            is_last=news.is_last,
        )
        curve = news.curve.copy()
        curve[:, 3] = self._now - curve[:, 3]  # clocks of two machines have nothing in common
        history = np.array(state.error_history, np.float64)
        of_frames = (news.numbers, news.visits, news.positions_px)
        return refined, (state.probe, history, state.withheld, *of_frames, curve)


def _columns(lent: Lend, *, is_refined: bool) -> tuple[str, ...]:
    """Return the columns of which values are fetched for frames, more for those refined before."""
    columns = ("frames", "positions_m", *(PATCH_COLUMNS if lent.patch_px else ()))
    if is_refined:
        columns += ("visits", *(("refined_px",) if lent.moves else ()))
    return columns


def _layout(lent: Lend, column: str) -> tuple[str, tuple[int, ...]]:
    """Return dtype and shape per frame of a column."""
    if column in PATCH_COLUMNS:
        return PATCH_COLUMNS[column], (lent.patch_px, lent.patch_px)
    dtype, shape = COLUMNS[column]
    return (lent.frame_dtype, lent.frame_shape) if shape is None else (dtype, shape)


def _frames_at_once(lent: Lend) -> int:
    """Return of how many frames values are fetched together."""
    sizes = [_layout(lent, column) for column in _columns(lent, is_refined=False)]
    n_bytes = sum(np.dtype(dtype).itemsize * math.prod(shape) for dtype, shape in sizes)
    return max(FETCH_BYTES // n_bytes, 1)


def _reason(answer: Question) -> str:
    return answer.reason if isinstance(answer, Refused) else f"it answers {type(answer).__name__}"
