"""A gateway and a worker in one process, with a line between them that may lose what it carries."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from stream.record.scan import Scan
from stream.remote.asking import Asker
from stream.remote.files import SharedFiles
from stream.remote.inference.gateway import Gateway
from stream.remote.inference.worker import RemoteWorker
from stream.remote.messages import DECODER, DIALECT, Question
from stream.remote.setup import setup_of, taken_up
from stream.stages.config import NetworkConfig
from stream.stages.inference.worker import Inference
from stream.stages.inputs import Optics
from stream.wire.codec import decode_with, encode
from stream.wire.handshake import greeting
from stream.wire.messages import Reject
from tests.helpers.stream.clock import Clock


class Share:
    """A dispatcher that leases what the test says, and keeps what comes back by frame number."""

    def __init__(self) -> None:
        self.waiting: list[tuple[str, np.ndarray]] = []
        self.made: dict[int, tuple[np.ndarray, ...]] = {}
        self.n_answers, self.is_closed = 0, False

    def ask(self, patch_px: int) -> None:
        self.patch_px = patch_px

    def leases(self) -> list[tuple[str, np.ndarray]]:
        leases, self.waiting = self.waiting[:1], self.waiting[1:]
        return leases

    def answer(self, scan: str, numbers: np.ndarray, made: Any) -> None:
        self.n_answers += 1
        self.made |= dict(zip(numbers.tolist(), zip(*made, strict=True), strict=True))

    def close(self) -> None:
        self.is_closed = True


class Elsewhere:
    """A run's gateway and one worker; `turn` carries one round of messages."""

    def __init__(self, folder: Path, scans: Path, network: NetworkConfig, optics: Optics) -> None:
        self.clock, self.share, self.files = Clock(), Share(), SharedFiles()
        self.gateway = Gateway(
            "run-7",
            setup_of(network, optics, self.files),
            self.files,
            scans,
            join=lambda number: self.share,
            numbers=range(2, 4),
            clock=self.clock,
            first_lease=1000,
        )
        self.loses: Callable[[], bool] = lambda: False
        self.asker = Asker()
        self.worker = RemoteWorker(self._build, folder / "kept", folder / "benches", self.asker)
        self.says(greeting("inference", DIALECT))

    def _build(self, settings: str, paths: Any) -> Inference:
        network, optics = taken_up(settings, paths, device="cpu", threads=1)
        return Inference(network, optics, clock=self.clock)

    def says(self, message: Any, arrays: Any = (), client: bytes = b"w") -> Any:
        """Return what the gateway answers at once to a message, None if nothing."""
        for reply in self.gateway.exchange([[client, *encode(message, arrays)]]):
            return decode_with(DECODER, reply[1:])
        return None

    def turn(self) -> None:
        self.clock.now += 0.05
        self.worker.turn()
        sent = [[b"w", *encode(*question)] for question in self.asker.due()]
        for reply in self.gateway.exchange([parts for parts in sent if not self.loses()]):
            message, arrays = decode_with(DECODER, reply[1:])
            assert not isinstance(message, Reject), message.reason
            if isinstance(message, Question) and not self.loses():
                self.asker.take(message, arrays)

    def works_on(self, scan: Scan, numbers: np.ndarray, size: int = 8) -> None:
        """Lease these frames, and carry messages until all are back."""
        self.share.waiting += [
            (scan.name, numbers[start : start + size]) for start in range(0, len(numbers), size)
        ]
        for turn in range(2000):
            if self.share.made.keys() >= set(numbers.tolist()):
                return
            if turn % 20 == 19:  # silence: the line is new, and everything is asked again
                self.asker.ask_again()
            self.turn()
        raise AssertionError(f"{len(self.share.made)} of {len(numbers)} frames came back")
