"""What a stage is.

A stage is a class with plain methods and no socket; tests call them. Its constructor takes a frozen
configuration, and loads and warms up what the first frame would otherwise wait for; a `ValueError` says what
it cannot be built from, and ends the run with that sentence. There are three kinds:

- A `Worker` is a cursor over the ledger. All it knows of one scan is in the `ScanWork` that `open` returns:
  that gets the numbers of frames whose inputs are done, stores what it makes of them, and ends with the scan.
- A `Source` gets messages from outside; one that shares them with another source is a `Forwarder` as well,
  one that looks for itself a `Fetcher`.
- A `Service` handles no frames and has a loop of its own.

A worker that clients may ask is a `DoorKeeper` as well, one that works on what stays of a scan a `Latecomer`.
Refinement and stitcher hand a scan over when the next one has begun (`stream.record.handover`).
`stream.stages.loop.run_stage` owns everything else.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from stream.record.batches import oldest_of
from stream.record.scan import Numbers, Scan
from stream.stages.link import Link
from stream.wire.codec import Buffer
from stream.wire.sockets import Endpoint, Kind, Part


class UnusableScanError(ValueError):
    """Nothing can come of a scan in this stage, however often it is tried; others may be usable."""


class ScanWork(Protocol):
    """What a worker does with one scan.

    A class that derives from this one has nothing to do between arrivals and at the end, and no figures to
    report, unless it says so itself. `handle` and `idle` may raise `UnusableScanError`, which ends the work
    on the scan: its frames that are still pending are marked BAD.
    """

    @abstractmethod
    def handle(self, numbers: Numbers) -> None:
        """Works on these frames: stores its values and then marks its byte (`Scan.mark`), now or later.

        A frame is given once per process, and again after a restart if its byte is still pending.
        """

    def first_of(self, ready: Numbers, n_most: int) -> Numbers:
        """Returns which of the frames that are `ready` go first, up to `n_most`; both ascending.

        Asked where more than two batches wait. The same ledger has to give the same answer.
        """
        return oldest_of(ready, n_most)

    def idle(self, deadline: float) -> bool:
        """Works between arrivals until `deadline`, monotonic seconds; says whether there is more to do."""
        return False

    def rest_s(self, now: float) -> float:
        """Returns for how long at most nothing has to be done between arrivals, seconds from `now` on."""
        return math.inf

    def awaits_others(self) -> bool:
        """Says whether other processes still work on frames of this one: the scan is not over before."""
        return False

    def closing(self, deadline: float) -> bool:
        """Does a part of what `close` would do, until `deadline`; says whether there is more of that.

        Called when no more frames will come: a stage that is long at it is heard of in between.
        """
        return False

    def close(self) -> None:
        """Leaves the scan with everything published; called once, when no more frames will come."""
        return

    def hand_over(self) -> None:
        """Leaves in the scan's folder all that another process needs to go on; called instead of `close`."""
        return

    def counts(self) -> dict[str, int]:
        """Returns figures for the progress report."""
        return {}


@runtime_checkable
class Worker(Protocol):
    """A stage that turns finished inputs of frames into its own column."""

    name: str  # of its ledger and counters
    inputs: tuple[str, ...]  # stages whose byte must be DONE
    waits_for: tuple[str, ...]  # further stages that close a scan before this one does
    batch_size: int
    deadline_s: float  # a frame waits no longer than this for its batch to fill

    def open(self, scan: Scan) -> ScanWork:
        """Begins with `scan`, or goes on after a restart: frames that an earlier process did are DONE.

        Raises
        ------
        ValueError
            If the scan's frames cannot be used; they are all marked BAD.
        """


@runtime_checkable
class DoorKeeper(Protocol):
    """A worker that answers clients, also when no scan is open."""

    door: Endpoint  # where they may ask
    most_unread: int  # answers that wait for a client; further ones are dropped

    def exchange(self, requests: Sequence[Sequence[Buffer]]) -> Sequence[Sequence[Part]]:
        """Takes what came through the door, [client, message, ...] parts, and returns what goes out."""


@runtime_checkable
class Latecomer(Protocol):
    """A worker that opens a scan when its inputs, and of `waits_for` those it has, have closed it."""

    begins_last: Literal[True]


class Inlet(NamedTuple):
    """The socket of a source."""

    pattern: Kind
    endpoints: tuple[Endpoint, ...]
    queue: int  # messages held while the source is busy
    most_bytes: int = 0  # of a message, where less is known to be enough than any socket takes
    relay: Endpoint | None = None  # where another process of the run passes on what it does not deal with


@runtime_checkable
class Source(Protocol):
    """A stage that listens to the world outside; its constructor resumes what an earlier process left."""

    inlet: Inlet | None

    def handle(self, messages: Sequence[Sequence[Buffer]]) -> None:
        """Takes messages in the order of arrival."""

    def idle(self, now: float) -> None:
        """Looks at the clock and deals with what is overdue."""

    def close(self) -> None:
        """Ends what is open; frames that never came are marked so."""

    def progress(self) -> tuple[str, dict[str, int]]:
        """Returns the name of the current scan and figures for the progress report."""


@runtime_checkable
class Forwarder(Protocol):
    """A source that leaves what it does not deal with to another one of the run, which has a `relay`."""

    outlet: Endpoint  # of the other

    def passed_on(self) -> list[Sequence[Buffer]]:
        """Returns the messages for the other that have come since it was asked last."""


@runtime_checkable
class Fetcher(Protocol):
    """A source that looks for itself, too: into files, or at what a library has received."""

    def fetch(self) -> int:
        """Takes what has come since, as much as a turn takes, and returns how many pieces that was."""


@runtime_checkable
class Service(Protocol):
    """A process of a run that handles no frames and has a loop of its own."""

    def run(self, link: Link) -> None:
        """Says `link.ready`, works until `link.is_stopped`, and lets `link.wait` and `link.report` happen."""


Stage = Worker | Source | Service
