"""The worker on another machine: what it asks of the run, and when it works. No sockets.

It asks what inference is built from, builds it, and from then on for frames: it holds a few leases, so that
the frames of the next are on their way while it works on one.
"""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from stream.record.scan import Numbers
from stream.remote.asking import Arrays, Asker
from stream.remote.files import FetchedFiles
from stream.remote.inference.bench import Bench
from stream.remote.messages import (
    AskLeases,
    AskSetup,
    Fetch,
    Lease,
    Leases,
    Question,
    Refused,
    Result,
    Setup,
    SharedFile,
    Taken,
    Values,
)
from stream.remote.setup import Paths
from stream.stages.inference.worker import Inference, Passed, judged

log = logging.getLogger(__name__)

LEASES = 3  # held: one is worked on, one is on its way here, one on its way back
FETCH_BYTES = 2 << 20  # asked for at a time: larger messages hold up what else is on the line

Build = Callable[[str, Paths], Inference]


@dataclass(slots=True)
class _Held:
    """A lease in hand."""

    lease: Lease
    numbers: Numbers
    bench: Bench
    places: Numbers
    missing: set[object]  # what has not come yet


class RemoteWorker:
    """Inference on frames that a run elsewhere leases to it.

    Parameters
    ----------
    build : callable
        Makes it from settings and files (`stream.remote.setup`).
    kept : Path
        Folder for files of runs, which are fetched once.
    benches : Path
        Folder for what is in hand.
    asker : Asker

    Attributes
    ----------
    n_done : int
        Frames of which the run has taken the result.
    """

    def __init__(self, build: Build, kept: Path, benches: Path, asker: Asker) -> None:
        self._build, self._folder, self._asker = build, benches, asker
        self._files = FetchedFiles(kept, asker)
        self._inference: Inference | None = None
        self._benches: dict[str, Bench] = {}
        self._coming: dict[int, _Held] = {}  # by number of the lease
        self._in_work: deque[_Held] = deque()
        self._going: set[int] = set()
        self._is_asking = False
        self.n_done = 0
        asker.ask(AskSetup(), self._take_setup)

    def turn(self) -> bool:
        """Works on one lease of which all has come; says whether there was anything to do.

        Raises
        ------
        ValueError
            If the network can do nothing with the frames of the run.
        """
        self._ask_for_leases()
        held = next((held for held in self._coming.values() if not held.missing), None)
        ready = None if held is None else held.bench.passes.weights.look()
        if held is None or ready is None:
            return self._flush()
        if self._in_work and self._in_work[0].bench is not held.bench:  # what it works on comes first
            self._flush()
        del self._coming[held.lease.lease]
        self._in_work.append(held)
        self._send(held.bench.passes.infer(ready, held.places))
        return True

    def close(self) -> None:
        """Lets go of what is in hand."""
        for bench in self._benches.values():
            bench.close()
        self._benches.clear()

    @property
    def _patch_px(self) -> int:
        return self._inference.before.predictor.crop if self._inference else 1

    def _take_setup(self, answer: Question, arrays: Arrays) -> None:
        if not isinstance(answer, Setup):
            raise ValueError(f"the run does not say what inference is built from: {_reason(answer)}")  # noqa: TRY004

        def build(paths: Paths) -> None:
            self._inference = self._build(answer.settings, paths)

        self._files.fetch_all(answer.files, build)

    def _ask_for_leases(self) -> None:
        held = (*self._coming, *(held.lease.lease for held in self._in_work), *self._going)
        if self._inference is not None and not self._is_asking and len(held) < LEASES:
            self._is_asking = True
            question = AskLeases(held=held, room=LEASES - len(held), patch_px=self._patch_px)
            self._asker.ask(question, self._take_leases)

    def _take_leases(self, answer: Question, arrays: Arrays) -> None:
        self._is_asking = False
        if not isinstance(answer, Leases) or len(arrays) != len(answer.leases):
            raise ValueError(f"the run leases no frames: {_reason(answer)}")
        for lease, numbers in zip(answer.leases, arrays, strict=True):
            if numbers.dtype != np.int64 or numbers.ndim != 1 or not numbers.size:
                raise ValueError(f"numbers of frames came as {numbers.dtype} of shape {numbers.shape}")
            self._begin(lease, numbers)

    def _begin(self, lease: Lease, numbers: Numbers) -> None:
        bench = self._bench_of(lease)
        n_bytes = np.dtype(lease.frame_dtype).itemsize * lease.frame_shape[0] * lease.frame_shape[1]
        step = max(FETCH_BYTES // n_bytes, 1)
        parts = [slice(start, start + step) for start in range(0, len(numbers), step)]
        missing: set[object] = {part.start for part in parts} | {file.sha256 for file in lease.files}
        held = _Held(lease, numbers, bench, bench.take(len(numbers)), missing)
        self._coming[lease.lease] = held
        for file in lease.files:
            self._files.fetch(file, partial(self._take_file, held, file))
        for part in parts:
            ask = Fetch(scan=lease.scan, column="frames")
            self._asker.ask(ask, partial(self._take_frames, held, part), [numbers[part]])

    def _bench_of(self, lease: Lease) -> Bench:
        if self._inference is None:
            raise ValueError("the run leases frames before inference is built")
        if lease.scan not in self._benches:
            in_use = [held.bench for held in (*self._coming.values(), *self._in_work)]
            for scan in [scan for scan, bench in self._benches.items() if bench not in in_use]:
                self._benches.pop(scan).close()
            # A name of this side: what the run calls its scans is no path here.
            self._benches[lease.scan] = Bench(self._folder / f"scan-{lease.lease}", lease, self._inference)
        return self._benches[lease.scan]

    def _take_file(self, held: _Held, file: SharedFile, path: Path) -> None:
        held.bench.publish(file, path)
        held.missing.discard(file.sha256)

    def _take_frames(self, held: _Held, part: slice, answer: Question, arrays: Arrays) -> None:
        if held.lease.lease not in self._coming:  # let go of meanwhile
            return
        if not isinstance(answer, Values) or len(arrays) != 1:  # the scan has been removed
            log.warning("frames of %s do not come: %s", held.lease.scan, _reason(answer))
            del self._coming[held.lease.lease]
            held.bench.free(held.places)
            return
        held.bench.store(held.places[part], arrays[0])
        held.missing.discard(part.start)

    def _flush(self) -> bool:
        """Send what the network was given last; say whether there was any."""
        passed = self._in_work[0].bench.passes.flush() if self._in_work else None
        self._send(passed)
        return passed is not None

    def _send(self, passed: Passed | None) -> None:
        if passed is None:
            return
        held = self._in_work.popleft()
        held.bench.free(held.places)
        is_good, sigma = judged(passed.patches, passed.sigma)
        made = [passed.patches, sigma, passed.models, is_good.astype(np.uint8)]
        self._going.add(held.lease.lease)
        self._asker.ask(Result(lease=held.lease.lease), partial(self._take_taken, held), made)

    def _take_taken(self, held: _Held, answer: Question, arrays: Arrays) -> None:
        if not isinstance(answer, Taken):
            raise ValueError(f"the run does not take patches of {held.lease.scan}: {_reason(answer)}")  # noqa: TRY004
        self._going.discard(held.lease.lease)
        self.n_done += len(held.numbers)


def _reason(answer: Question) -> str:
    return answer.reason if isinstance(answer, Refused) else f"it answers {type(answer).__name__}"
