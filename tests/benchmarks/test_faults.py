"""The benchmark `faults` in its short form, fault by fault, and that it sees what goes wrong."""

from pathlib import Path

import numpy as np
import pytest

from stream.record.scan import Scan, State
from tests.benchmarks.faults.gates import GATES, Gate
from tests.benchmarks.faults.processes import wrong_frames
from tests.benchmarks.figures import Figures
from tests.benchmarks.kilohertz.scan import RepeatingScan, stamped
from tests.helpers.stream.scans import make_scan

IN_PROCESS = ("tests.benchmarks.faults.messages", "tests.benchmarks.faults.recording")
QUICK = [gate for gate in GATES if gate.measure.__module__ in IN_PROCESS]
# Of the others either a test is the same code, or time is what counts.
SLOW = [gate for gate in GATES if gate.measure.__name__ in ("frozen", "garbage")]


@pytest.mark.parametrize("gate", QUICK, ids=lambda gate: gate.fault)
def test_a_fault_is_borne(tmp_path: Path, gate: Gate) -> None:
    row = gate.row(tmp_path / "scans", in_full=False)
    assert row["passed"], row


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("gate", SLOW, ids=lambda gate: gate.fault)
def test_a_fault_of_processes_is_borne(run_folder: Path, gate: Gate) -> None:
    row = gate.row(run_folder, in_full=False)
    assert row["passed"], row


def test_a_fault_that_ends_in_an_error_has_not_passed(tmp_path: Path) -> None:
    def fail(folder: Path, in_full: bool) -> Figures:
        raise AssertionError("frame 3 is missing")

    row = Gate("a fault", fail).row(tmp_path, in_full=True)
    assert (row["fault"], row["passed"], row["found"]) == (
        "a fault",
        False,
        "AssertionError: frame 3 is missing",
    )


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[Scan, RepeatingScan]:
    """A scan as it should be, of frames that say which they are."""
    scan = RepeatingScan(n_frames=40, n_pixels=32, is_stamped=True)
    found, numbers = make_scan(tmp_path, frame_shape=(32, 32)), np.arange(40)
    found.column("frames", writable=True).write(numbers, stamped(scan.frames()[scan.numbers()], numbers))
    found.column("positions_m", writable=True).write(numbers, scan.positions_m())
    found.column("patches", writable=True, shape=(8, 8)).write(numbers, numbers[:, None, None])
    found.mark("subscriber", numbers, State.DONE)
    return found, scan


def test_a_wrong_pair_is_seen_in_what_is_recorded(recorded: tuple[Scan, RepeatingScan]) -> None:
    found, scan = recorded
    assert wrong_frames(found, scan) == 0
    for column in ("frames", "positions_m", "patches"):
        values = found.column(column, writable=True)
        right = values.read([7, 8])
        values.write([7, 8], right[::-1])
        assert wrong_frames(found, scan) == 2, column
        values.write([7, 8], right)
