"""A scan that is refined here or on another machine, in one process; the line may lose what it carries."""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from operators.optics.forward import intensities
from stream.record.scan import Scan
from stream.record.snapshot import read_snapshot
from stream.remote.asking import Asker
from stream.remote.files import SharedFiles
from stream.remote.messages import DECODER, DIALECT, Question, Values
from stream.remote.refinement.at_work import InTurn
from stream.remote.refinement.lent import LentRefinement
from stream.remote.refinement.refiner import RemoteRefiner
from stream.remote.setup import RefinementRules, refinement_setup_of, refinement_taken_up
from stream.stages.config import RefinementConfig
from stream.stages.loop import WorkerLoop
from stream.stages.refinement.setup import STAGE
from stream.stages.refinement.worker import Refinement
from stream.wire.codec import decode_with, encode
from stream.wire.handshake import greeting
from stream.wire.messages import Reject
from stream.wire.sockets import Endpoint
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.scans import Sample, close, infer, make_scan, place, record

RULES = {"n_modes": 1, "scale_probe": True, "uses_network": True, "starts_over": False}


class Scanned:
    """A scan with all that refinement takes, and what is known before it."""

    CORNERS = Sample(n_side=8).corners

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder, self.sample = folder, Sample(n_side=8)
        self.scan = make_scan(folder / "scans")
        patterns = np.random.default_rng(0).poisson(intensities(self.sample.probe, self.sample.patches))
        self.frames = np.fft.fftshift(patterns, axes=(1, 2)).astype("<u2")
        self.optics = self.sample.optics(folder)
        settings = {"first_frames": 16, "epochs": 6, "publish_s": 1e-9, "device": "numpy", **settings}
        self.config = RefinementConfig(**settings)
        self.rules = RefinementRules(**RULES)

    def take(self, numbers: Any) -> None:
        """Record frames, with all that refinement waits for."""
        record(self.scan, numbers, self.frames[numbers])
        place(self.scan, numbers, self.sample.corners[numbers])
        infer(self.scan, numbers, self.sample.patches[numbers])

    def end(self) -> None:
        close(self.scan, "subscriber", "positions", "inference")

    def refinement(self) -> Refinement:
        """The stage, by a clock of its own that counts how often it is read."""
        return Refinement(self.config, self.optics, clock=count(1.0).__next__, **RULES)

    def refine_here(self) -> Scan:
        """Refine the scan to its end as a run does on its own machine."""
        loop = WorkerLoop(self.refinement(), self.folder / "scans", Clock())
        while not self.scan.count(STAGE, "closed"):
            loop.turn()
        return self.scan


class There:
    """A worker on another machine."""

    def __init__(self, bench: "Bench", name: str) -> None:
        self.client, self.asker, self._clock = name.encode(), Asker(), bench.clock
        folder = bench.scanned.folder / name
        self.refiner = RemoteRefiner(
            self._build, self._begin, folder / "kept", folder, self.asker, bench.clock
        )
        self.answered: list[Question] = []

    def _build(self, settings: str, paths: Any) -> Refinement:
        return refinement_taken_up(settings, paths, device="numpy", threads=1, clock=count(1.0).__next__)

    def _begin(self, stage: Any, scans: Path) -> InTurn:
        return InTurn(stage, scans, self._clock)


class Bench:
    """The run's side of a scan and its workers; `turn` carries one round of messages."""

    def __init__(self, scanned: Scanned, *, goes_on_here: bool = False) -> None:
        self.scanned, self.clock = scanned, Clock()
        self.goes_on_here = goes_on_here
        self.loses: Callable[[], bool] = lambda: False
        self.n_bytes_of_values = 0  # that were fetched
        self.start()

    def start(self) -> None:
        """Start the run's side, for the first time or anew."""
        scanned, files = self.scanned, SharedFiles()
        self.stage = LentRefinement(
            scanned.config,
            scanned.optics,
            Endpoint(address="tcp://127.0.0.1:*", bind=True),
            refinement_setup_of(scanned.config, scanned.optics, scanned.rules, files),
            files,
            scanned.folder,
            here=scanned.refinement() if self.goes_on_here else None,
            uses_network=True,
            run_id="run-7",
            clock=self.clock,
        )
        self.loop = WorkerLoop(self.stage, scanned.folder / "scans", self.clock)

    def says(self, message: Any, arrays: Any = (), client: bytes = b"w") -> Any:
        """Return what is answered at once to a message, None if nothing."""
        for who, *reply in self.stage.exchange([[client, *encode(message, arrays)]]):
            if who == client:
                return decode_with(DECODER, reply)
        return None

    def worker(self, name: str = "w") -> There:
        """A worker that has greeted."""
        there = There(self, name)
        self.says(greeting(STAGE, DIALECT), client=there.client)
        return there

    def turn(self, *workers: There) -> None:
        self.clock.now += 0.02
        self.loop.turn()
        sent = []
        for there in workers:
            there.refiner.turn()
            sent += [[there.client, *encode(*question)] for question in there.asker.due()]
        sent = [parts for parts in sent if not self.loses()]
        replies = self.stage.exchange(sent)
        for who, *parts in replies:
            message, arrays = decode_with(DECODER, parts)
            assert not isinstance(message, Reject), message.reason
            if isinstance(message, Values):
                self.n_bytes_of_values += sum(values.nbytes for values in arrays)
            for there in workers:
                if there.client == bytes(who) and isinstance(message, Question) and not self.loses():
                    there.answered.append(message)
                    there.asker.take(message, arrays)

    def until(self, condition: Callable[[], Any], *workers: There, most: int = 4000) -> None:
        for turn in range(most):
            if condition():
                return
            if turn % 20 == 19:  # silence: the line is new, and everything is asked again
                for there in workers:
                    there.asker.ask_again()
            self.turn(*workers)
        raise AssertionError("it does not come to that")

    @property
    def is_closed(self) -> bool:
        return bool(self.scanned.scan.count(STAGE, "closed"))

    @property
    def n_refined(self) -> int:
        return len(self.scanned.scan.done(STAGE))


def assert_same_object(scan: Scan, other: Scan) -> None:
    """Object, probe, visits and errors of two scans are the same but for rounding."""
    ours, theirs = read_snapshot(scan.folder), read_snapshot(other.folder)
    assert ours is not None and theirs is not None
    assert (ours.bounds, ours.n_updates, ours.n_frames) == (theirs.bounds, theirs.n_updates, theirs.n_frames)
    np.testing.assert_allclose(ours.object, theirs.object, atol=1e-6)
    np.testing.assert_allclose(ours.probe, theirs.probe, atol=1e-6 * np.abs(theirs.probe).max())
    np.testing.assert_allclose(ours.error_history, theirs.error_history, rtol=1e-6)
    visits, others = (it.column("visits").head(it.n_frames) for it in (scan, other))
    np.testing.assert_array_equal(visits, others)
