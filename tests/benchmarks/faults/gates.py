"""What goes wrong at a beamline, done on purpose: what does each fault cost, and is that within its gate.

Faults happen at a place of the ledger, never at a time. Frames say in their pixels which they are, so a wrong
pair is seen in what is recorded.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from stream.detector.dialects import DIALECTS
from tests.benchmarks.faults import connections, messages, processes, recording, shift
from tests.benchmarks.figures import Benchmark, Figures

Measure = Callable[[Path, bool], Figures]  # folder, whether in full; a figure `passed` among them


class Gate(NamedTuple):
    """A fault, and what does it."""

    fault: str
    measure: Measure

    def row(self, folder: Path, *, in_full: bool) -> Figures:
        """Return the row of this fault; one that ends in an error has not passed."""
        began = time.monotonic()
        try:
            figures = self.measure(folder, in_full)
        except (AssertionError, OSError, RuntimeError, ValueError) as error:
            figures = {"passed": False, "found": f"{type(error).__name__}: {error}"[:300]}
        return {"fault": self.fault, **figures, "took_s": time.monotonic() - began}


GATES = (
    Gate("kill -9 of every stage but the detector's, at 1 kHz", processes.killed),
    Gate("SIGSTOP of stages, and SIGCONT", processes.frozen),
    Gate("kill -9 of the supervisor", shift.supervisor_killed),
    Gate("kill -9 of one of two subscribers", processes.one_of_two_killed),
    Gate("a subscriber stopped for a second", processes.subscriber_frozen),
    Gate("line to another machine cut, then its worker gone", processes.other_machine),
    Gate("line to a machine that refines cut, then its worker killed", processes.refining_machine),
    Gate("a node of a Ray cluster gone, and back", processes.ray_node),
    *(Gate(f"wrong messages of the detector, {name}", messages.detector(name)) for name in DIALECTS),
    Gate("wrong documents", messages.documents),
    Gate("wrong messages of clients", messages.clients),
    Gate("wrong messages to the policy", messages.policy),
    Gate("wrong words on the page's connection", messages.page),
    Gate("garbage connections and slow requests", connections.garbage),
    Gate("50 clients at 10 versions a second", connections.many_clients),
    Gate("wrong key, no key", connections.strangers),
    Gate("a network slower than the frames", recording.slow_consumer),
    Gate("disk full when the series is armed", recording.full_when_armed),
    Gate("disk full in the series", recording.full_in_series),
    Gate("the detector starts again in a series", recording.detector_restarts),
    Gate("clocks an hour apart", recording.clock_skew),
    Gate("power cut", recording.power_cut),
    Gate("many short series", shift.many_series),
)


def measure(folder: Path, *, in_full: bool = True) -> Iterator[Figures]:
    """Yield the rows so far and how many have passed, fault after fault."""
    rows: list[Figures] = []
    for index, gate in enumerate(GATES):
        rows.append(gate.row(folder / str(index), in_full=in_full))
        n_passed = sum(bool(row["passed"]) for row in rows)
        yield {
            "faults": list(rows),
            "n_passed": n_passed,
            "n_failed": len(rows) - n_passed,
        }


def rehearse(folder: Path) -> Iterator[Figures]:
    """Yield the same of few messages, frames and series."""
    return measure(folder, in_full=False)


TARGETS = {"n_failed": ("<=", 0)}
BENCHMARK = Benchmark(
    measure=measure, rehearse=rehearse, targets=TARGETS, columns={"faults": ("passed", "found", "took_s")}
)
