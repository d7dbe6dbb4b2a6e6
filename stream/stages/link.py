"""One stage's ties to the rest of the run: the supervisor, its own doorbell and the bells of others.

Bells only say that there is something new; what it is stands in the ledger, so a lost bell costs one poll
and nothing else.
"""

import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from stream.wire.codec import encode
from stream.wire.handshake import Connection
from stream.wire.messages import Notice, Progress, Ready, StageState, Stop
from stream.wire.sockets import Endpoint, Socket, wait_for_message

GREETING_TIMEOUT_S = 30.0
REPORT_INTERVAL_S = 0.2
FAREWELL_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class StageContext:
    """Where a stage finds its run.

    Attributes
    ----------
    scans : Path
        Folder of scans (stream.record.scan).
    rendezvous : Path
        Folder of the run's local sockets; its path must be short (ipc addresses end at 107 bytes).
    run_id, config_hash : str
        Stamped on what the stage publishes.
    """

    scans: Path
    rendezvous: Path
    run_id: str = ""
    config_hash: str = ""

    def local(self, name: str, *, bind: bool = False) -> Endpoint:
        """Returns the run's own address `name`."""
        return Endpoint(address=f"ipc://{self.rendezvous / name}", bind=bind)


class Link:
    """Sockets of one stage inside its run; a context manager."""

    def __init__(self, context: StageContext, name: str) -> None:
        self.context, self.name = context, name
        self.is_stopped = False
        identity = f"{name}-{os.getpid()}".encode()
        self._control = Connection(context.local("control"), name, queue=1000, identity=identity)
        self._bell = Socket("PUB", context.local(f"{name}.bell", bind=True), queue=8)
        self._bells: Socket | None = None
        self._reported_at = float("-inf")
        self._last: tuple[str, dict[str, int]] | None = None

    def greet(self) -> None:
        """Introduces the stage to the supervisor.

        Raises
        ------
        ProtocolError
            If there is no supervisor or it refuses.
        """
        self._control.greet(GREETING_TIMEOUT_S)

    def ready(self, address: str = "") -> None:
        """Tells the supervisor that the first frame may come."""
        self._control.say(Ready(stage=self.name, address=address))

    def listen_to(self, stages: Sequence[str]) -> None:
        """Wakes up when one of `stages` has something new."""
        self._bells = Socket("SUB", [self.context.local(f"{stage}.bell") for stage in stages], queue=64)

    def notice(self, level: int, text: str) -> None:
        """Shows `text` at the terminal of the run."""
        self._control.say(Notice(stage=self.name, level=level, text=text[:4000]))

    def report(
        self,
        scan: str,
        counts: dict[str, int],
        now: float,
        *,
        ring: bool | None = None,
        force: bool = False,
        state: StageState | None = None,
    ) -> None:
        """Rings the bell when something changed and tells the supervisor a few times a second."""
        has_news = (scan, counts) != self._last
        if has_news if ring is None else ring:
            self._bell.send(encode(Progress(stage=self.name, scan=scan)))
        self._last = (scan, dict(counts))
        if force or now - self._reported_at >= REPORT_INTERVAL_S:
            self._reported_at = now
            self._control.say(Progress(stage=self.name, scan=scan, counts=counts, state=state))

    def wait(self, timeout_s: float, sockets: Sequence[Socket] = ()) -> None:
        """Sleeps until something may have changed, at most `timeout_s`."""
        bells = [self._bells] if self._bells else []
        if timeout_s > 0:
            wait_for_message([self._control.open(), *bells, *sockets], timeout_s)
        for bell in bells:
            while bell.receive() is not None:
                pass
        while (heard := self._control.hear()) is not None:
            if isinstance(heard[0], Stop):
                self.is_stopped = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._control.close(FAREWELL_S)
        self._bell.close()
        if self._bells:
            self._bells.close()


class NoticeHandler(logging.Handler):
    """Sends warnings and errors of a stage to the terminal of the run.

    Those of other threads stay in the log, since a socket bears one thread only, and so do exceptions:
    `run_stage` reports the failure that ends it.
    """

    def __init__(self, link: Link) -> None:
        super().__init__(logging.WARNING)
        self._link, self._thread = link, threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Passes one record on."""
        if record.thread == self._thread and record.exc_info is None:
            self._link.notice(record.levelno, record.getMessage())
